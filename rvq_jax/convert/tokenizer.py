"""What a tokenizer of another project may hold, so that reading text with it stays bounded.

A tokenizer.json is a program: patterns that take exponential time, replacements that make a
thousand letters of one, tables with offsets beyond their ends. The parts that T5's tokenizers are
made of are let through, with numbers in bounds; all else is refused.
"""

import base64
import json
import math
import struct

import numpy as np

from rvq_jax.errors import UserError, shown

BYTES = 64 << 20  # of a file: ten times the largest T5's
VOCABULARY = 1 << 20
PIECE = 1024  # characters of a token
GROWTH = 1000  # characters that one may become: decomposed twice it is hundreds
STEPS = 32  # of a part, and sequences of them
# The runs of spaces that transformers' converted tokenizers join; what they become.
REGEXES = {" {2,}"}
NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "Strip", "StripAccents"}
NORMALIZERS |= {"BertNormalizer"}
PRE_TOKENIZERS = {"WhitespaceSplit", "Whitespace", "Metaspace", "BertPreTokenizer", "Digits"}
PRE_TOKENIZERS |= {"Punctuation", "ByteLevel", "UnicodeScripts"}
POST_PROCESSORS = {"TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel"}
MODELS = {"Unigram", "WordLevel", "WordPiece", "BPE"}


def checked(data: bytes, vocab: int | None = None) -> bytes:
    """The parts of a tokenizer.json that make ids of text.

    Args:
      data: of the file.
      vocab: ids of the model that reads them; None for any number.

    Returns:
      A tokenizer.json without a decoder, or the lengths of whoever saved it.

    Raises:
      UserError: kinds of parts that T5's tokenizers have not, numbers out of bounds.
    """
    if len(data) > BYTES:
        raise UserError(f"it has {len(data):,} bytes, more than {BYTES:,}")
    fields = json.loads(data)
    if not isinstance(fields, dict):
        raise UserError("it holds no object")
    growth = 1
    for step in _steps("normalizer", fields.get("normalizer"), "normalizers"):
        growth = _grown(step, growth)
    if growth > GROWTH:
        raise UserError(f"its normalizer makes more than {GROWTH} characters of one")
    _check_kinds("pre_tokenizer", fields.get("pre_tokenizer"), PRE_TOKENIZERS, "pretokenizers")
    _check_kinds("post_processor", fields.get("post_processor"), POST_PROCESSORS, "processors")
    for step in _steps("post_processor", fields.get("post_processor"), "processors"):
        _check_template(step)
    added = _list(fields, "added_tokens", 100_000)
    tokens = [_token(item) for item in added] + _vocabulary(fields.get("model"))
    for token, number in tokens:
        _check_token(token, number, vocab)
    named = ("version", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")
    return json.dumps({name: fields[name] for name in named if name in fields}).encode()


def check_charsmap(data: bytes) -> int:
    """The most characters that a precompiled map of sentencepiece makes of one.

    It is a double array of 32-bit units (Aoe 1989), found by offsets, and the texts that its leaves
    point at, each closed by a zero. Raises UserError for offsets or texts out of bounds.
    """
    if not data:
        return 1
    size = struct.unpack("<I", data[:4])[0] if len(data) >= 4 else 0
    if size % 1024 or not 0 < size <= len(data) - 4:
        raise UserError("its map of characters is damaged")
    units, texts = np.frombuffer(data, "<u4", size // 4, 4), data[4 + size :]
    is_leaf = units >> 31 == 1
    shift = (units & (1 << 9)) >> 6
    reached = np.arange(len(units), dtype=np.uint64) ^ ((units >> 10).astype(np.uint64) << shift)
    if (reached[~is_leaf] >= len(units)).any():
        raise UserError("its map of characters points beyond its end")
    # A node with a value has it in the unit that it reaches.
    has_leaf = ~is_leaf & (units >> 8 & 1 == 1)
    values = units[reached[has_leaf]] & 0x7FFFFFFF
    if len(values) and (not texts.endswith(b"\0") or values.max() >= len(texts)):
        raise UserError("its map of characters points beyond its texts")
    return max(1, max(map(len, texts.decode().split("\0"))))


def check_pieces(data: bytes) -> None:
    """Raises UserError for a spiece.model without tokens, or maps of characters out of bounds."""
    parts = list(messages(data))
    if not any(number == 1 for number, _ in parts):
        raise UserError("it has no tokens")
    for number, value in parts:
        # normalizer_spec and denormalizer_spec, and in them precompiled_charsmap.
        for inner, text in messages(value) if number in (3, 5) else ():
            if inner == 2 and check_charsmap(text) > GROWTH:
                raise UserError(f"its normalizer makes more than {GROWTH} characters of one")


def messages(data: bytes):
    """Numbers and bytes of a protobuf message's fields that are bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 2:
            size, at = _varint(data, at)
            if size > len(data) - at:
                raise UserError("it is cut off")
            yield key >> 3, data[at : at + size]
            at += size
        elif key & 7 == 0:
            _, at = _varint(data, at)
        else:
            at += {1: 8, 5: 4}.get(key & 7, len(data))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise UserError("it is cut off")
        number |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return number, at
    raise UserError("it is no message of protobuf")


def _steps(name: str, part, inner: str) -> list[dict]:
    """The parts that one is made of, in their order: itself, or those of a sequence."""
    found, waiting = [], [] if part is None else [part]
    for _ in range(STEPS):
        if not waiting:
            return found
        first, *waiting = waiting
        if _kind(name, first) == "Sequence":
            waiting = _list(first, inner, STEPS) + waiting
        else:
            found.append(first)
    raise UserError(f"its {name} has more than {STEPS} steps")


def _grown(part: dict, growth: float) -> float:
    """Characters of one after a normalizer, at most; raises UserError for one that is not let."""
    kind = part["type"]
    if kind == "Precompiled":
        text = part.get("precompiled_charsmap")
        if not isinstance(text, str) or not text:
            raise UserError("its normalizer has no map of characters")
        return growth * check_charsmap(base64.b64decode(text, validate=True))
    if kind == "Prepend":
        return growth + len(_text(part, "prepend"))
    if kind == "Replace":
        pattern = part.get("pattern")
        if not isinstance(pattern, dict) or len(pattern) != 1:
            raise UserError("its normalizer replaces no pattern")
        if "Regex" in pattern and pattern["Regex"] not in REGEXES:
            raise UserError(f"its normalizer has the pattern {shown(pattern['Regex'])}, no T5's")
        (found,) = pattern.values()
        if not isinstance(found, str) or not found:
            raise UserError("its normalizer replaces no text")
        least = 1 if "Regex" in pattern else len(found)
        return growth * max(1, len(_text(part, "content")) / least)
    if kind not in NORMALIZERS:
        raise UserError(f"its normalizer is a {shown(kind)}, which no T5 has")
    # Decomposed, a character is up to 18 others.
    return growth * (1 if kind in ("Strip", "Lowercase", "StripAccents", "Nmt") else 18)


def _check_kinds(name: str, part, kinds: set[str], inner: str) -> None:
    """Raises UserError for a part, or one of a sequence, that is of none of the kinds."""
    for step in _steps(name, part, inner):
        if step["type"] not in kinds:
            raise UserError(f"its {name} is a {shown(step['type'])}, which no T5 has")


def _check_template(step: dict) -> None:
    """Raises UserError for what is put around a text, if it is much or is not there."""
    if step["type"] != "TemplateProcessing":
        return
    known = step.get("special_tokens")
    if not isinstance(known, dict) or len(json.dumps(known)) > 10_000:
        raise UserError(f"its post_processor has the special_tokens {shown(known)}")
    named = {token.get("id") for token in known.values() if isinstance(token, dict)} & known.keys()
    for part in _list(step, "single", STEPS) + _list(step, "pair", STEPS):
        part = part if isinstance(part, dict) else {}
        token = part.get("SpecialToken")
        if "Sequence" not in part and not (isinstance(token, dict) and token.get("id") in named):
            raise UserError(f"its post_processor has {shown(part)}, which is none of its tokens")


def _kind(name: str, part) -> str:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise UserError(f"its {name} has no type")
    return part["type"]


def _list(fields: dict, name: str, most: int) -> list:
    found = fields.get(name) or []
    if not isinstance(found, list) or len(found) > most:
        raise UserError(f"its {name} must be a list of at most {most:,}, got {shown(found)}")
    return found


def _text(fields: dict, name: str) -> str:
    found = fields.get(name, "")
    if not isinstance(found, str) or len(found) > GROWTH:
        raise UserError(f"its {name} must be a text of at most {GROWTH}, got {shown(found)}")
    return found


def _token(item) -> tuple:
    if not isinstance(item, dict):
        raise UserError("its added_tokens are no tokens")
    return item.get("content"), item.get("id")


def _vocabulary(model) -> list[tuple]:
    """Tokens and ids of a model."""
    if not isinstance(model, dict):
        raise UserError("it has no model")
    pieces = model.get("vocab")
    # The type may be left away: then the form of the vocabulary says it.
    kind = model.get("type", "Unigram" if isinstance(pieces, list) else "WordLevel")
    if kind not in MODELS:
        raise UserError(f"its model is a {shown(kind)}, which no T5 has")
    for name, value in model.items():
        # Each is put before words, or says how long a word is looked at.
        if name not in ("vocab", "merges") and not _small(value):
            raise UserError(f"its model has {shown(name)} {shown(value)}, which no T5 has")
    if not isinstance(pieces, list | dict) or not 0 < len(pieces) <= VOCABULARY:
        raise UserError(f"its vocabulary must have 1 to {VOCABULARY:,} tokens")
    if isinstance(pieces, dict) != (kind != "Unigram"):
        raise UserError(f"its vocabulary is not that of a {kind}")
    if isinstance(pieces, dict):
        return list(pieces.items())
    for piece in pieces:
        if not (isinstance(piece, list) and len(piece) == 2 and _finite(piece[1])):
            raise UserError(f"its vocabulary has {shown(piece)}, no token with a score")
    unknown = model.get("unk_id")
    if unknown is not None and not (isinstance(unknown, int) and 0 <= unknown < len(pieces)):
        raise UserError(f"its unk_id {shown(unknown)} is no token of its vocabulary")
    return [(piece[0], i) for i, piece in enumerate(pieces)]


def _small(value) -> bool:
    if isinstance(value, str):
        return len(value) <= 64
    return value is None or (_finite(value) and abs(value) <= VOCABULARY)


def _finite(score) -> bool:
    return isinstance(score, int | float) and abs(score) < 1e30 and not math.isnan(score)


def _check_token(token, number, vocab: int | None) -> None:
    if not isinstance(token, str) or len(token) > PIECE:
        raise UserError(f"it has the token {shown(token)}, which must be text of at most {PIECE}")
    if not isinstance(number, int) or not 0 <= number < (vocab or VOCABULARY):
        what = f"the model has {vocab:,}" if vocab else f"there are at most {VOCABULARY:,}"
        raise UserError(f"its token {shown(token)} has the id {shown(number)}, and {what}")
