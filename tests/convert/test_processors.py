"""What lies beside an exported model for transformers' AutoProcessor: the fields it would write."""

import dataclasses
import json
from pathlib import Path

import config_changes
import pytest
import small_folders

import rvq_jax as rj
from rvq_jax.audio import chroma
from rvq_jax.convert import processors

FIXTURES = Path(__file__).parents[1] / "fixtures"
CODECS = sorted(path.name for path in (FIXTURES / "codecs").iterdir())


def fields_of(folder: Path) -> dict:
    return json.loads((folder / processors.FILE).read_text())


@pytest.mark.parametrize("name", CODECS)
def test_a_codecs_fields_are_theirs(name, tmp_path):
    rj.Codec.load(FIXTURES / "codecs" / name).save(tmp_path / "codec")
    assert fields_of(tmp_path / "codec") == fields_of(FIXTURES / "codecs" / name)


@pytest.mark.parametrize("kind", ["text", "stereo", "melody"])
def test_a_musicgens_fields_are_theirs(kind, tmp_path):
    """And its tokenizer's files, which it came with; a melody's classes are said beside them."""
    theirs = FIXTURES / "musicgen" / kind
    rj.MusicGen.load(theirs).save(tmp_path / "m")
    more = {"num_chroma": 12} if kind == "melody" else {}
    assert fields_of(tmp_path / "m") == fields_of(theirs) | more
    names = {path.name for path in theirs.iterdir()} - {"expected.npz"}
    assert {path.name for path in (tmp_path / "m").iterdir()} == names
    # Written over, all are replaced.
    rj.MusicGen.load(tmp_path / "m").save(tmp_path / "m")
    assert {path.name for path in (tmp_path / "m").iterdir()} == names


def test_the_published_melody_is_of_thirty_seconds():
    lm = dataclasses.replace(config_changes.LM, melody_bins=12)
    codec = dataclasses.replace(config_changes.ENCODEC, rate=32_000)
    found = processors.of_musicgen(lm, codec, channels=1)
    assert (found["chunk_length"], found["n_samples"]) == (30, 960_000)


@pytest.mark.parametrize("rate", [600, 16_000, 44_100])
@pytest.mark.parametrize("frames", [1, 2, 7, 235, 1000])
def test_a_melody_is_cut_where_the_model_has_its_last_frame(rate, frames):
    lm = dataclasses.replace(config_changes.LM, melody_bins=24, melody_frames=frames)
    codec = dataclasses.replace(config_changes.ENCODEC, rate=rate)
    found = processors.of_musicgen(lm, codec, channels=1)
    assert found["num_chroma"] == 24
    assert found["n_samples"] // chroma.HOP + 1 >= frames
    assert found["chunk_length"] == 1 or (
        (frames - 1) * chroma.HOP > (found["chunk_length"] - 1) * rate
    )


def test_what_transformers_has_no_words_for_has_no_processor(tmp_path):
    """A folder of our own keeps its tokenizer, if any, inside."""
    small_folders.own().save(tmp_path / "own")
    model = small_folders.published("text", tmp_path / "words")
    dataclasses.replace(model, pattern="flatten").save(tmp_path / "flat")
    assert not any((tmp_path / name / processors.FILE).exists() for name in ("own", "flat"))
    assert (tmp_path / "flat" / "text" / "tokenizer.json").is_file()
