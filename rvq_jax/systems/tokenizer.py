"""Text → ids, by the tokenizer of a folder of T5."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rvq_jax.convert import tokenizer
from rvq_jax.errors import UserError, clipped, printable, shown

TOKENIZER, PIECES = "tokenizer.json", "spiece.model"  # of tokenizers, of sentencepiece
TOKENIZER_FILES = (TOKENIZER, PIECES, "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text to the ids of its tokens, the closing </s> among them; and the files it came from."""

    encode: Callable[[str], list[int]]
    files: dict[str, bytes]

    def __repr__(self) -> str:
        return f"Tokenizer({', '.join(self.files)})"


def load_tokenizer(folder: str | Path, vocab: int | None = None) -> Tokenizer:
    """The tokenizer of a folder: its tokenizer.json, or else its spiece.model.

    Without either the folder takes ids of tokens only: `encode` raises UserError then.

    Args:
      folder: of a T5.
      vocab: ids that its model has; None for any number.

    Returns:
      The tokenizer.

    Raises:
      UserError: if it is damaged, does more than a T5's, has ids that the model has not, or the
        package that reads it is missing.
    """
    folder = Path(folder)
    places = [folder / name for name in TOKENIZER_FILES]
    if large := next((p for p in places if p.is_file() and p.stat().st_size > tokenizer.BYTES), ""):
        raise UserError(f"{large} is larger than any tokenizer; get it again")
    kept = {place.name: place.read_bytes() for place in places if place.is_file()}
    if TOKENIZER in kept:
        name, read = TOKENIZER, _of_tokenizers
    elif PIECES in kept:
        name, read = PIECES, _of_sentencepiece
    else:
        return Tokenizer(lambda text: _missing(folder), kept)
    with _refusing(folder / name):
        encode = read(kept[name], vocab)
        # What closes a text is not of the vocabulary alone.
        if vocab is not None and any(not 0 <= number < vocab for number in encode("")):
            raise UserError(f"it closes a text by {shown(encode(''))}, and the model has {vocab}")

    def guarded(text: str) -> list[int]:
        with _refusing(folder / name):
            return encode(text)

    return Tokenizer(guarded, kept)


def _missing(folder: Path) -> list[int]:
    raise UserError(
        f"{folder} has no tokenizer, neither {TOKENIZER} nor {PIECES}; add one, or give ids of "
        "tokens in place of text"
    )


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Whatever a package makes of a tokenizer, as one line; neither has errors of its own."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{path} needs the package {error.name}: pip install 'rvq_jax[convert]'"
        ) from error
    except BaseException as error:
        # A panic of Rust is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = clipped(printable(f"{error}"), 120)
        raise UserError(f"{path} cannot be read ({reason}); get it again") from None


def _of_tokenizers(data: bytes, vocab: int | None) -> Callable[[str], list[int]]:
    import tokenizers

    found = tokenizers.Tokenizer.from_buffer(tokenizer.checked(data, vocab))
    # Files may hold the lengths of whoever saved them.
    found.no_truncation()
    found.no_padding()
    return lambda text: found.encode(text).ids


def _of_sentencepiece(data: bytes, vocab: int | None) -> Callable[[str], list[int]]:
    import sentencepiece

    tokenizer.check_pieces(data)
    found = sentencepiece.SentencePieceProcessor(model_proto=data)
    if vocab is not None and found.get_piece_size() > vocab:
        raise UserError(f"it has {found.get_piece_size()} tokens, and the model {vocab}")
    if found.eos_id() < 0:
        raise UserError("it has no </s>, which closes a text")
    return lambda text: [*found.encode(text), found.eos_id()]
