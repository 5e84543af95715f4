"""Readers of config.json of every model, and tokenizers."""

import base64
import copy
import functools
import json
import tempfile
from pathlib import Path

import numpy as np
import small_folders
import small_pieces
import small_t5
from harness import Target

import rvq_jax as rj
from rvq_jax import limits
from rvq_jax.convert import audiocraft, audiocraft_magnet, tokenizer
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.text_encoder import TextEncoder
from rvq_jax.systems.tokenizer import load_tokenizer

FIXTURES = Path(__file__).parents[1] / "fixtures"
WHOLE = 64  # of so many configs one is read with its weights, as laying a model out takes a second
DEEP: list = []
for _ in range(50):
    DEEP = [DEEP]
VALUES = [0, -1, 1, 2, 3, 7, 0.5, 1e12, float("inf"), float("nan"), 10**12, 2**63, 10**400, None]
VALUES += [True, False, "", "x", "\x1b[2J", "a" * 100_000, [], [[1]], [1] * 1000, [0], [-1], DEEP]
VALUES += [{}, {"a": 1}, {"type": "Sequence"}, ["x", {}], 1000, 128, 4096, 1 << 17]


def changed(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three fields of JSON, at any depth, set, taken away, added or made larger."""
    fields = json.loads(data)
    for _ in range(int(rng.integers(1, 4))):
        part, name = _place(fields, rng)
        if name is None:
            continue
        value = part[name]
        match int(rng.integers(8)):
            case 0:
                del part[name]
            case 1 if isinstance(part, dict):
                part[f"{name}x"[:40]] = value
            case 2 if isinstance(value, int | float) and abs(value) < 1e9:
                part[name] = type(value)(value * [2, 8, 1000][int(rng.integers(3))])
            case 3 if isinstance(value, int):
                part[name] = value + int(rng.integers(-3, 4))
            case 4:
                part[name] = copy.deepcopy(_place(fields, rng)[0])
            case _:
                part[name] = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    return json.dumps(fields).encode()


def _place(fields, rng: np.random.Generator):
    """A dict or list of JSON, and a key or an index of it; None if it is empty."""
    part, name = fields, None
    while isinstance(part, dict | list) and part:
        keys = list(part) if isinstance(part, dict) else range(len(part))
        name = keys[int(rng.integers(len(keys)))]
        if not isinstance(part[name], dict | list) or not part[name] or rng.random() < 0.3:
            return part, name
        part = part[name]
    return part, None


class Described(Exception):
    """A config that has been read, before a model of it is laid out."""


def _described(*_):
    raise Described


def model(load, folder) -> Target:
    """The config.json of a folder, with all else that the folder holds beside it."""

    def samples(place: Path) -> list[bytes]:
        return [(_source(folder) / "config.json").read_bytes()]

    def read(path: Path):
        source = _source(folder)
        for file in source.iterdir():
            if not (path.parent / file.name).exists():
                (path.parent / file.name).symlink_to(file)
        data = path.read_bytes()
        if sum(data) % WHOLE == 0 or data == (source / "config.json").read_bytes():
            return load(path.parent)
        lay_out, limits.laid_out = limits.laid_out, _described
        try:
            return load(path.parent)
        except Described:
            return None
        finally:
            limits.laid_out = lay_out

    return Target(samples, "config.json", read, changed)


@functools.cache
def _source(folder) -> Path:
    return folder if isinstance(folder, Path) else folder()


@functools.cache
def _own() -> Path:
    place = Path(tempfile.mkdtemp()) / "own"
    small_folders.own().save(place)
    return place


@functools.cache
def _text() -> Path:
    place = Path(tempfile.mkdtemp())
    small_folders.text_encoder(place / "words").save(place / "text")
    return place / "text"


def crops(path: Path):
    """What an xp.cfg of audiocraft says, beside tensors of two levels."""
    names = {f"{part}.{k}.weight": (8, 4) for part in ("emb", "linears") for k in range(2)}
    names |= {"transformer.layers.0.linear1.weight": (6, 4), f"{audiocraft.TEXT}.weight": (4, 6)}
    text = path.read_bytes().decode(errors="replace")
    return audiocraft.read({n: np.zeros(x) for n, x in names.items()}, {"xp.cfg": text}, path)


def crop_samples(folder: Path) -> list[bytes]:
    """As YAML of one line, which is JSON."""
    unroll = {"flattening": [0, 1]}
    delay = {"delays": [0, 1], "flatten_first": 0}
    pattern = {"modeling": "delay", "delay": delay, "unroll": unroll, "musiclm": {"group_by": 2}}
    model = {"num_heads": 2, "activation": "gelu", "q_modeling": None}
    musicgen = {
        "dataset": {"segment_duration": 30.0},
        "conditioners": {"description": {"t5": {"name": "t5-base"}}},
        "codebooks_pattern": pattern,
        "transformer_lm": model,
    }
    parallel = {"modeling": "parallel", "parallel": {"empty_initial": -1}}
    magnet = musicgen | {
        "lm_model": audiocraft_magnet.KIND,
        "codebooks_pattern": parallel,
        "transformer_lm": model | {"causal": False, "subcodes_context": 5},
        "masking": {"span_len": 3},
        "generate": {"lm": {"temp": 3.0, "top_p": 0.9, "decoding_steps": [20, 10]}},
    }
    return [json.dumps(said).encode() for said in (musicgen, magnet)]


@functools.cache
def _words(rule: str) -> bytes:
    lines = [f"a {x} {y} in the night" for x in ("slow", "loud") for y in ("piano", "drum")]
    with tempfile.TemporaryDirectory() as folder:
        return small_pieces.write_pieces(Path(folder), lines, 30, normalization_rule_name=rule)


def _charsmap() -> bytes:
    spec = dict(tokenizer.messages(_words("nmt_nfkc")))[3]
    return dict(tokenizer.messages(spec))[2]


def hostile(data: bytes, rng: np.random.Generator) -> bytes:
    """Parts of a tokenizer.json that take for ever, or make a thousand letters of one."""
    fields = json.loads(data)
    replace = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
    parts = [
        replace,
        {"type": "Sequence", "normalizers": [replace | {"content": "aaaa"}] * 12},
        replace | {"pattern": {"Regex": "(a+)+$"}, "content": ""},
        replace | {"pattern": {"Regex": " {2,}"}, "content": " "},
        {"type": "Prepend", "prepend": "a" * 100_000},
        {"type": "Split", "pattern": {"Regex": "(a|a)*b"}, "behavior": "Isolated", "invert": False},
        {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}] * 1000},
        {"type": ["NFC", "NFKD", "Strip", "ByteLevel", "Digits", "Punctuation"][rng.integers(6)]},
    ]
    kind = ("normalizer", "pre_tokenizer", "post_processor")[int(rng.integers(3))]
    match int(rng.integers(4)):
        case 0:
            fields[kind] = parts[int(rng.integers(len(parts)))]
        case 1 if fields["normalizer"]:
            chars = bytearray(base64.b64decode(fields["normalizer"]["precompiled_charsmap"]))
            for at in rng.integers(0, len(chars), int(rng.integers(1, 200))):
                chars[int(at)] = int(rng.integers(256))
            fields["normalizer"]["precompiled_charsmap"] = base64.b64encode(chars).decode()
        case _:
            return changed(data, rng)
    return json.dumps(fields).encode()


def tokens(path: Path):
    """Ids of a few texts."""
    made = load_tokenizer(path.parent, 40)
    return [made.encode(text) for text in ("a slow piano", "a" * 300, "ﷺ né  ½ 🎹", "")]


def json_samples(folder: Path) -> list[bytes]:
    chars = base64.b64encode(_charsmap()).decode()
    charsmap = {"type": "Precompiled", "precompiled_charsmap": chars}
    return [small_t5.tokenizer_json(None), small_t5.tokenizer_json(charsmap)]


def pieces_samples(folder: Path) -> list[bytes]:
    return [_words("identity"), _words("nmt_nfkc")]


CODECS = FIXTURES / "codecs"
TARGETS = {
    "config of EnCodec": model(Codec.load, CODECS / "encodec_48khz"),
    "config of DAC": model(Codec.load, CODECS / "dac"),
    "config of Mimi": model(Codec.load, CODECS / "mimi"),
    "config of our codec": model(Codec.load, lambda: _own() / "codec"),
    "config of our MusicGen": model(rj.MusicGen.load, _own),
    "config of MusicGen": model(rj.MusicGen.load, FIXTURES / "musicgen" / "text"),
    "config of MusicGen-melody": model(rj.MusicGen.load, FIXTURES / "musicgen" / "melody"),
    "config of T5": model(TextEncoder.load, _text),
    "xp.cfg of audiocraft": Target(crop_samples, "state_dict.bin", crops, changed),
    "tokenizer.json": Target(json_samples, "tokenizer.json", tokens, hostile),
    "spiece.model": Target(pieces_samples, "spiece.model", tokens),
}
