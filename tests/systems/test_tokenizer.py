"""Tokenizers of other projects: T5's are read, and what would hang or end the process is not."""

import base64
import json
import struct
import time

import numpy as np
import pytest
from refusals import refused
from small_pieces import write_pieces
from small_t5 import TINY, encoder, tokenizer_json

from rvq_jax.convert import tokenizer
from rvq_jax.errors import UserError
from rvq_jax.systems.tokenizer import load_tokenizer

LINES = [f"a {x} {y} in the night" for x in ("slow", "loud") for y in ("piano", "drum")]
TEXTS = ("a slow", "a  slow  ", "a" * 2000, "ﷺ né ½ 🎹", "\x00\x1b[2J", "")


def load(folder, data: bytes, vocab: int | None = 40):
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_bytes(data)
    return load_tokenizer(folder, vocab)


def charsmap(pieces: bytes) -> bytes:
    """T5's map of characters, as sentencepiece makes it."""
    spec = dict(tokenizer.messages(pieces))[3]
    return dict(tokenizer.messages(spec))[2]


def precompiled(data: bytes) -> dict:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


def replace(pattern: dict, content: str) -> dict:
    return {"type": "Replace", "pattern": pattern, "content": content}


def test_a_t5s_own_tokenizer_is_read(tmp_path):
    """With its map of characters and the run of spaces that transformers joins."""
    pytest.importorskip("tokenizers", reason="tokenizer.json needs it")
    chars = charsmap(write_pieces(tmp_path, LINES, 30))
    spaces = replace({"Regex": " {2,}"}, "▁")
    for normalizer in (None, precompiled(chars), {"type": "Sequence", "normalizers": [
        precompiled(chars), {"type": "Strip", "strip_left": False, "strip_right": True}, spaces
    ]}):  # fmt: skip
        made = load(tmp_path / "m", tokenizer_json(normalizer))
        assert made.encode("a slow") == [3, 4, 1]
        assert made.encode("ⓐ") == ([5, 2, 1] if normalizer is None else [3, 1])
        assert [made.encode(text)[-1] for text in TEXTS] == [1] * len(TEXTS)


NONE = {"type": "Sequence", "normalizers": [replace({"String": "a"}, "aaaa")] * 12}
UNITS = np.zeros(256, "<u4")


def units(*changes: tuple[int, int], texts: bytes = b"x\0") -> bytes:
    found = UNITS.copy()
    for at, value in changes:
        found[at] = value
    return struct.pack("<I", 1024) + found.tobytes() + texts


HOSTILE = {
    "a letter of a thousand": {"normalizer": replace({"String": "a"}, "a" * 1001)},
    "twelve times four": {"normalizer": NONE},
    "twelve times four, deeper": {"normalizer": {"type": "Sequence", "normalizers": [NONE]}},
    "a nest of a hundred": {"normalizer": None},
    "a pattern that takes for ever": {"normalizer": replace({"Regex": "(a+)+$"}, "")},
    "a pattern of nothing": {"normalizer": replace({"String": ""}, "b")},
    "a pattern of nothing at all": {"normalizer": replace({}, "b")},
    "a prefix that is long": {"normalizer": {"type": "Prepend", "prepend": "a" * 2000}},
    "another normalizer": {"normalizer": {"type": "ByteLevel2"}},
    "a map that is cut": {"normalizer": precompiled(units()[:-300])},
    "a map beyond its end": {"normalizer": precompiled(units((7, 0x7FFFFC00)))},
    "a map beyond its texts": {"normalizer": precompiled(units((0, 0x100), (1, 0x80000000 + 9)))},
    "a map of long texts": {"normalizer": precompiled(units(texts=b"x" * 2000 + b"\0"))},
    "a map of no text": {"normalizer": precompiled(units(texts=b"\xff\0"))},
    "no map": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": None}},
    "a map that is no base64": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "!"}},
    "a split that takes for ever": {
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a|a)*b"}, "behavior": "Isolated"}
    },
    "a sequence of a thousand": {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}] * 1000}
    },
    "a closing of a thousand": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 1000,
            "pair": [],
            "special_tokens": {},
        }
    },
    "closed by what the model has not": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "x", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "x", "type_id": 0}}],
            "special_tokens": {"x": {"id": "x", "ids": [77], "tokens": ["x"]}},
        }
    },
    "closed by what is not there": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "y", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"x": {"id": "x", "ids": [1], "tokens": ["x"]}},
        }
    },
    "a prefix of a megabyte": {
        "model": {
            "type": "WordPiece",
            "unk_token": "a",
            "continuing_subword_prefix": "#" * 10**6,
            "max_input_chars_per_word": 100,
            "vocab": {"a": 1},
        }
    },
    "words of any length": {
        "model": {
            "type": "WordPiece",
            "unk_token": "a",
            "continuing_subword_prefix": "#",
            "max_input_chars_per_word": 10**12,
            "vocab": {"a": 1},
        }
    },
    "an id that the model has not": {"added_tokens": [{"id": 40, "content": "<new>"}]},
    "a negative id": {"added_tokens": [{"id": -1, "content": "<new>"}]},
    "an id of bits": {"added_tokens": [{"id": 2**70, "content": "<new>"}]},
    "a token of a megabyte": {"added_tokens": [{"id": 1, "content": "a" * 10**6}]},
    "no model": {"model": None},
    "no tokens": {"model": {"type": "Unigram", "unk_id": 0, "vocab": []}},
    "a score that is none": {"model": {"type": "Unigram", "vocab": [["a", float("nan")]]}},
    "a score beyond all": {"model": {"type": "Unigram", "vocab": [["a", 1e300]]}},
    "an unknown beyond": {"model": {"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]}},
    "more tokens than the model": {
        "model": {"type": "Unigram", "vocab": [[f"{i}", 0.0] for i in range(41)]}
    },
    "words beyond the model": {"model": {"type": "WordLevel", "vocab": {"a": 99}}},
    "another model": {"model": {"type": "Markov", "vocab": {"a": 1}}},
    "a list": [],
}
DEEP: dict = {"type": "Sequence", "normalizers": []}
for _ in range(100):
    DEEP = {"type": "Sequence", "normalizers": [DEEP] * 2 if _ < 3 else [DEEP]}
HOSTILE["a nest of a hundred"] = {"normalizer": DEEP}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_no_t5_has_is_refused_in_one_line(tmp_path, capfd, case):
    """In no time, and without a word of the package itself; or read, where nothing can go wrong."""
    pytest.importorskip("tokenizers", reason="tokenizer.json needs it")
    parts = HOSTILE[case]
    data = tokenizer_json(**parts) if isinstance(parts, dict) else json.dumps(parts).encode()
    began = time.perf_counter()
    refused(lambda: load(tmp_path / "m", data).encode("a" * 30), "tokenizer.json cannot be read")
    assert time.perf_counter() - began < 2
    assert capfd.readouterr().err == ""


def test_a_word_that_no_token_is_of_is_refused_when_it_is_met(tmp_path):
    """No unknown token, which some files lack: all other words are read."""
    pytest.importorskip("tokenizers", reason="tokenizer.json needs it")
    model = {"type": "WordLevel", "vocab": {"▁a": 3, "</s>": 1}, "unk_token": "<unk>"}
    made = load(tmp_path / "m", tokenizer_json(model=model, added_tokens=[]))
    assert made.encode("a a") == [3, 3, 1]
    refused(lambda: made.encode("drum"), "tokenizer.json cannot be read")


def test_a_folder_without_a_tokenizer_takes_ids(tmp_path):
    """And refuses text alone, with what to do; an empty prompt has none."""
    model = encoder(TINY, load_tokenizer(tmp_path, TINY.vocab))
    _, mask = model.tokens(["", ""])
    assert not mask.any()
    assert np.isfinite(model.encode_tokens(np.array([[3, 1]]), np.array([[True, True]]))).all()
    for call in (lambda: model.tokens(["", "a"]), lambda: model.encode(["a"])):
        refused(call, f"{tmp_path} has no tokenizer", "add one", "ids of tokens")
    model.save(tmp_path / "again")
    assert not (tmp_path / "again" / "tokenizer.json").exists()


@pytest.mark.parametrize("where", ["offsets", "values", "text"])
def test_a_damaged_map_in_spiece_model_is_refused(tmp_path, where):
    """Sentencepiece follows its offsets without asking where they end."""
    data = bytearray(write_pieces(tmp_path, LINES, 30))
    chars = charsmap(bytes(data))
    size = struct.unpack("<I", chars[:4])[0]
    begin = bytes(data).index(chars) + 4
    rng = np.random.default_rng(0)
    if where == "text":
        data[begin + size + 1] = 0xFF
    else:
        for at in rng.integers(0, size // 4, 50):
            part = slice(begin + 4 * int(at), begin + 4 * int(at) + 4)
            value = 0x7FFFFC00 if where == "offsets" else struct.unpack("<I", data[part])[0]
            data[part] = struct.pack("<I", value | (0x7FFF_FF00 if where == "values" else 0))
    (tmp_path / "spiece.model").write_bytes(data)
    refused(lambda: load_tokenizer(tmp_path), "spiece.model cannot be read")


@pytest.mark.parametrize("data", [b"", b"\x08\x01", b"\x0a\xff\xff\xff\xff\x0f", b"\xff" * 40])
def test_a_spiece_model_of_nothing_is_refused(tmp_path, data):
    pytest.importorskip("sentencepiece", reason="spiece.model needs it")
    (tmp_path / "spiece.model").write_bytes(data)
    refused(lambda: load_tokenizer(tmp_path), "spiece.model cannot be read")


def test_pieces_beyond_the_model_are_refused(tmp_path):
    write_pieces(tmp_path, LINES, 30)
    assert load_tokenizer(tmp_path, 40).encode("a")[-1] == 1
    refused(lambda: load_tokenizer(tmp_path, 20), "tokens, and the model 20")


def test_a_file_larger_than_any_tokenizer_is_not_read(tmp_path):
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(10**10)
    refused(lambda: load_tokenizer(tmp_path), "larger than any tokenizer")
    with pytest.raises(UserError):
        tokenizer.checked(b" " * (tokenizer.BYTES + 1))
