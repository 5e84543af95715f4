"""A dataset in which a file is damaged is one line, not what its libraries say."""

import json

import numpy as np
import pytest
import soundfile
from refusals import refused

from rvq_jax.data import builder

RATE = 1000
BAD = {
    "empty": b"",
    "bytes": b"\xff" * 200,
    "null": b"null",
    "half": b'{"a',
    "nested": b"[" * 100_000,
    "list": b"[1]",
}
NAMES = ("dataset_info.json", "features.json", "*-train.array_record*")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    place = tmp_path_factory.mktemp("damage")
    (place / "audio").mkdir()
    for name in "abc":
        soundfile.write(place / f"audio/{name}.wav", np.zeros(RATE), RATE)
    return builder.build(place / "audio", place / "dataset", RATE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", BAD)
def test_a_damaged_file_of_the_records(dataset, name, kind):
    (path,) = (dataset / "records").glob(name)
    whole = path.read_bytes()
    path.write_bytes(BAD[kind])
    try:
        refused(lambda: builder.open_split(dataset, "train")[0], str(dataset), "data build")
    finally:
        path.write_bytes(whole)
    assert len(builder.open_split(dataset, "train")[0]["audio"])


@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_bit_of_the_audio_is_never_heard(dataset, seed):
    """Records are stored as they are, yet under a hash."""
    (path,) = (dataset / "records").glob(NAMES[-1])
    whole = path.read_bytes()
    place = whole.index(bytes(2 * RATE)) + np.random.default_rng(seed).integers(2 * RATE)
    path.write_bytes(whole[:place] + b"\1" + whole[place + 1 :])
    try:
        refused(lambda: list(builder.open_split(dataset, "train")), str(dataset), "data build")
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "left", [5, {"of": 1}, {"files": 5, "of": 1}, {"files": [["a"]], "of": 1}, {"files": [[1, 2]]}]
)
def test_a_damaged_note_of_what_was_left_out(tmp_path, left):
    (tmp_path / "source.json").write_text(json.dumps({"left_out": left}))
    refused(lambda: builder.left_out(tmp_path), "source.json", "data build")
