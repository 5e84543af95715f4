"""Readers of what a run keeps: metrics.jsonl, config.json, notes and files of checkpoints."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
from harness import Target

from rvq_jax.errors import READING
from rvq_jax.train.checkpoint import METADATA, Checkpoints, Note, _digest, _hash
from rvq_jax.train.log import Log
from rvq_jax.train.loop import open_run

LINES = [
    {"step": i, "seconds": 0.5 * i, "data_wait": 0.1, "loss": 2.5, "levels": [1.0, None]}
    for i in (1, 2, 4, 6)
]
CONFIG = {"batch": 8, "lm": {"layers": 1, "dtype": "float32"}, "lora": {"rank": None}}
FILE = b"bytes of an array"
# As JSON has them, or as no JSON does.
VALUES = (b"null", b"true", b"-1", b"0", b"3", b"1" + b"0" * 5000, b"0.5", b"NaN", b"Infinity")
VALUES += (b"1e999", b'""', b'"%s"' % (b"x" * 5000), b"[]", b"{}", b"[" * 5000, b"[[[1]]]")
VALUES += (b'{"a": {"b": null}}', b'"\\ud800"', b'"\\u001b[31m"', b"\xff", b"")


def replaced(data: bytes, rng: np.random.Generator) -> bytes:
    """An object with one of its fields gone, of another kind, or one more."""
    fields = {name: json.dumps(value).encode() for name, value in json.loads(data).items()}
    name = str(rng.choice([*fields, "other"]))
    if rng.integers(5) == 0:
        fields.pop(name, None)
    else:
        fields[name] = VALUES[rng.integers(len(VALUES))]
    return b"{%s}" % b", ".join(b'"%s": %s' % (name.encode(), x) for name, x in fields.items())


def mutate_log(data: bytes, rng: np.random.Generator) -> bytes:
    """Bad bytes, other fields, lines cut, twice, turned about, deep, or endless."""
    lines = data.splitlines(keepends=True)
    at = int(rng.integers(len(lines)))
    match int(rng.integers(7)):
        case 0:
            lines[at] = lines[at][:5] + bytes([int(rng.integers(128, 256))]) + lines[at][5:]
        case 1:
            lines[at] = replaced(lines[at], rng) + b"\n"
        case 2:
            lines[at] = lines[at][: int(rng.integers(len(lines[at])))]
        case 3:
            lines.insert(at, lines[int(rng.integers(len(lines)))])
        case 4:
            lines = [lines[i] for i in rng.permutation(len(lines))]
        case 5:
            lines[at] = b'{"step":' + b"[" * int(rng.integers(1, 5000)) + b"\n"
        case 6:
            lines[at] = b"\0" * int(rng.integers(1, 1 << 21))
    return b"".join(lines)


def mutate_fields(data: bytes, rng: np.random.Generator) -> bytes:
    """Other fields; of a note, half of the time, with the hash that then belongs to them."""
    found = replaced(data, rng)
    with contextlib.suppress(*READING):
        fields = json.loads(found)
        if fields.pop("sha256", None) and rng.integers(2):
            return json.dumps({**fields, "sha256": _digest(fields)}).encode()
    return found


def go_on_with_log(path: Path) -> None:
    with contextlib.redirect_stderr(None):
        Log(path, 4).write(5, {"loss": 1.0})
    for damaged in path.parent.glob("*.damaged*"):
        damaged.unlink()


def checkpoint(folder: Path, note: bytes | None = None, data: bytes = FILE) -> bytes:
    """Writes a checkpoint of step 4, of two small files; returns its note."""
    place = folder / "4"
    place.mkdir(parents=True, exist_ok=True)
    (place / METADATA).write_bytes(b"{}")
    (place / "array").write_bytes(FILE)
    if note is None:
        hashes = {name: _hash(place / name) for name in (METADATA, "array")}
        fields = {**Note(4, 2.5, {"next_index": 4}, {"records": 9}, [2.5])._asdict()}
        fields["files"] = hashes
        note = json.dumps({**fields, "sha256": _digest(fields)}).encode()
    (folder / "4.json").write_bytes(note)
    (place / "array").write_bytes(data)
    return note


def choose(folder: Path, note: bytes | None, data: bytes = FILE) -> dict:
    """What a run would go on from."""
    shutil.rmtree(folder, ignore_errors=True)
    checkpoint(folder, note, data)
    with contextlib.redirect_stderr(None), Checkpoints(folder) as checkpoints:
        return Note(**checkpoints._choose(False))._asdict()


TARGETS = {
    "run_log": Target(
        lambda folder: [b"".join(json.dumps(line).encode() + b"\n" for line in LINES)],
        "metrics.jsonl",
        go_on_with_log,
        mutate_log,
    ),
    "run_config": Target(
        lambda folder: [json.dumps(CONFIG).encode()],
        "config.json",
        lambda path: open_run(path.parent, CONFIG),
        mutate_fields,
    ),
    "run_note": Target(
        lambda folder: [checkpoint(folder / "made")],
        "note",
        lambda path: choose(path.parent / "checkpoints", path.read_bytes()),
        mutate_fields,
    ),
    "run_checkpoint": Target(
        lambda folder: [FILE],
        "array",
        lambda path: choose(path.parent / "checkpoints", None, path.read_bytes()),
    ),
}
