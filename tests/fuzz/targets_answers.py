"""Readers of what listening pages save, and of the key to it."""

import functools
import json
import tempfile
from pathlib import Path

import evaluations
import listeners
import structure
from harness import Target

from rvq_jax.evaluate import answers, listening


@functools.cache
def _folder() -> Path:
    """An evaluation of one codec point, of one short clip."""
    place = Path(tempfile.mkdtemp())
    results = evaluations.codecs(names=("mine",), levels=(1,), baselines=False)
    listening.write(place, evaluations.add_sounds(place, results, ("one.flac",), seconds=0.02))
    return place


def _answers(folder: Path) -> list[bytes]:
    found = [
        listeners.abx(_folder(), lambda i: True),
        listeners.mushra(_folder(), lambda name, clip: 95),
    ]
    return [json.dumps(each).encode() for each in found]


def _key(folder: Path) -> list[bytes]:
    return [(_folder() / listening.KEY).read_bytes()]


def _read_key(path: Path):
    found = [json.loads(each) for each in _answers(path.parent)]
    return answers.read(listeners.saved(path.parent, *found), path.parent)


def _mutate(data: bytes, rng) -> bytes:
    return structure.text(json.loads(data), rng)


TARGETS = {
    "answers": Target(_answers, "a.json", lambda path: answers.read([path], _folder()), _mutate),
    "key of listening pages": Target(_key, listening.KEY, _read_key, _mutate),
}
