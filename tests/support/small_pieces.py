"""A tokenizer of sentencepiece trained on a few lines, as T5's folders have one."""

import io
from pathlib import Path

import pytest


def write_pieces(folder: Path, lines: list[str], size: int, **options) -> bytes:
    """Writes spiece.model with T5's special ids, of at most `size` pieces; its bytes.

    options: more of sentencepiece's own.
    """
    spm = pytest.importorskip("sentencepiece", reason="spiece.model needs it")
    written = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        vocab_size=size,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        **options,
    )
    (folder / "spiece.model").write_bytes(written.getvalue())
    return written.getvalue()
