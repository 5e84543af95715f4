"""info of everything that a command writes or reads, and of what is none of it."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import small_folders
import small_parallel as small
import soundfile
from command import good, refuses, run

from rvq_jax import config as configs
from rvq_jax.data.codes import CodeSet
from rvq_jax.offline.describe_folders import anything
from rvq_jax.systems.tokenizer import Tokenizer
from rvq_jax.train.runs import LMRun

MODELS = {
    "soundstorm": small.soundstorm,
    "magnet": small.magnet,
    "valle": small.valle,
    "semantic": small.semantic,
    "delay": small.autoregressive,
}


def shown(capsys, path) -> dict:
    """What is printed for people, beside the JSON of the same."""
    code, out, _ = run(capsys, "info", path, "--json")
    assert code == 0
    found = json.loads(out)
    code, out, _ = run(capsys, "info", path)
    lines = out.splitlines()
    assert code == 0 and len(lines) == len(found)
    for (name, value), line in zip(found.items(), lines, strict=True):
        assert line.startswith(name.replace("_", " "))
        assert isinstance(value, float) or line.endswith(f"{value}")
    return found


@pytest.mark.parametrize("kind", MODELS)
def test_a_token_model(capsys, tmp_path, kind):
    model = MODELS[kind]()
    model.save(tmp_path / "model")
    found = shown(capsys, tmp_path / "model")
    lm = model.lm if kind == "semantic" else model
    assert found["model"] == kind and found["levels"] == lm.config.levels
    assert found["parameters"] == sum(map(np.size, jax.tree.leaves(lm.params)))
    assert found.get("rate") == (None if kind == "semantic" else small.RATE)
    assert found.get("speaks", False) == (kind == "valle")
    longest = {"valle": 0.4}.get(kind)
    assert found.get("longest_seconds") == longest


@pytest.mark.parametrize("kind", ["text", "melody"])
def test_an_exported_musicgen(capsys, tmp_path, kind):
    """What it reads: the text encoder, its tokenizer, a melody."""
    model = small_folders.published(kind, tmp_path / "words")
    for tokenizer in (model.text.tokenizer, Tokenizer(lambda text: [], {})):
        text = dataclasses.replace(model.text, tokenizer=tokenizer)
        dataclasses.replace(model, text=text).save(tmp_path / "m")
        found = shown(capsys, tmp_path / "m")
        assert found["text_encoder"] == "t5 of 12 features"
        assert found["tokenizer"] == ("tokenizer.json" if tokenizer.files else "none")
        assert found.get("melody_bins") == (12 if kind == "melody" else None)


def test_a_run_at_its_beginning_on_its_way_and_at_its_end(capsys, tmp_path):
    place = tmp_path / "run"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(configs.to_dict(LMRun())))
    found = shown(capsys, place)
    assert (found["updates"], found["of"], found["checkpoints"]) == (0, 400, "none")
    assert found["model"].startswith("none yet")
    log = [{"step": 1, "loss": 9.5, "seconds": 1.0}, {"step": 250, "loss": 3.25, "seconds": 70.0}]
    (place / "metrics.jsonl").write_text("\n".join(map(json.dumps, log)) + '\n{"step": 251, "lo')
    (place / "checkpoints" / "200").mkdir(parents=True)
    (place / "checkpoints" / "200.json").write_text('{"step": 200, "loss": 3.5, "heldout": 4.0}')
    (place / "checkpoints" / "200" / "weights").write_bytes(bytes(7))
    found = shown(capsys, place)
    assert (found["updates"], found["loss"], found["checkpoints"]) == (250, 3.25, "200")
    found = shown(capsys, place / "checkpoints" / "200")
    assert found["loss"] == 3.5 and found["heldout_loss"] == 4.0 and found["bytes"] == 7
    small.autoregressive().save(place / "model")
    found = shown(capsys, place)
    assert found["model"] == "delay" and found["updates"] == 250


def test_a_dataset_and_its_codes(capsys, tmp_path):
    small_folders.own().codec.save(tmp_path / "codec")
    words = ["data", "build", good(tmp_path / "audio"), "--out", tmp_path / "set"]
    assert run(capsys, *words, "--codes", tmp_path / "codec")[0] == 0
    found = shown(capsys, tmp_path / "set")
    clips = [found[f"{split}_clips"] for split in ("train", "valid", "test")]
    assert sum(clips) == 3 and found["code_caches"] == "heldout.npz, train.npz"
    codes = CodeSet.load(tmp_path / "set" / "train.npz")
    found = shown(capsys, tmp_path / "set" / "train.npz")
    assert (found["records"], found["levels"]) == (len(codes), len(codes.codes[0]))
    frames = sum(x.shape[1] for x in codes.codes)
    assert found["minutes"] == pytest.approx(frames / codes.frame_rate / 60)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_an_audio_file(capsys, tmp_path, suffix):
    soundfile.write(tmp_path / f"a{suffix}", np.zeros((1200, 2)), 8000)
    found = shown(capsys, tmp_path / f"a{suffix}")
    assert (found["rate"], found["channels"], found["seconds"]) == (8000, 2, 0.15)


def test_what_is_none_of_it(capsys, tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.wav").write_text("x")
    (tmp_path / "a.npz").write_text("x")
    (tmp_path / "records").mkdir()
    (tmp_path / "source.json").write_text("[]")
    refuses(capsys, "info", tmp_path / "a.txt", say=("a.txt", "codec"))
    refuses(capsys, "info", tmp_path / "a.wav", say=("a.wav",))
    refuses(capsys, "info", tmp_path / "a.npz", say=("a.npz",))
    np.savez(tmp_path / "b.npz", weights=np.zeros(3))
    said = refuses(capsys, "info", tmp_path / "b.npz", say=("b.npz holds no codes",))
    assert "delete" not in said
    refuses(capsys, "info", tmp_path, say=("source.json",))
    (tmp_path / "source.json").write_text("{}")
    refuses(capsys, "info", tmp_path, say=("no clips that can be read",))
    refuses(capsys, "info", tmp_path / "gone", say=("gone is not there",))
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    refuses(capsys, "info", tmp_path / "checkpoints" / "7", say=("7.json",))


def test_it_is_the_same_from_python(tmp_path):
    small.semantic().save(tmp_path / "words")
    assert anything(tmp_path / "words")["model"] == "semantic"
