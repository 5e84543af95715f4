"""generate: a mistake is one line and exit code 2, and leaves nothing."""

import dataclasses
import io
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small_folders
import soundfile
from command import refuses
from small_lm import filled
from small_musicgen import CONFIGS, RATE

import rvq_jax as rj
from rvq_jax.lm import forms
from rvq_jax.offline import generate


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    return small_folders.folders(tmp_path_factory)


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with audio and texts of every kind that is none."""
    soundfile.write(tmp_path / "good.wav", np.full((400, 1), 0.1), RATE)
    soundfile.write(tmp_path / "nan.wav", np.full(40, np.nan), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "six.wav", np.zeros((40, 6)), RATE)
    soundfile.write(tmp_path / "short.wav", np.zeros(9), RATE)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("not audio " * 100)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text(" \n\r\n\t\n")
    (tmp_path / "latin.txt").write_bytes("né".encode("latin-1"))
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "folder.wav" / "thesis").write_text("kept")
    (tmp_path / "file").write_text("kept")
    return tmp_path


def files(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def refused_and_clean(capsys, place: Path, *words, say) -> None:
    """Words that begin with @ are names in the place."""
    words = [place / w[1:] if str(w).startswith("@") else w for w in words]
    before = files(place)
    refuses(capsys, "generate", *words, say=say)
    assert files(place) == before
    assert (place / "folder.wav" / "thesis").read_text() == "kept"


NUMBERS = [
    ("--seconds", "0", "more than 0"),
    ("--seconds", "-1", "more than 0"),
    ("--seconds", "nan", "nan"),
    ("--seconds", "inf", "inf"),
    ("--seconds", "1e9", "at most 86400"),
    ("--seconds", "long", "long"),
    ("--stride", "0", "more than 0"),
    ("--stride", "nan", "nan"),
    ("--guidance-scale", "-1", "in 0.."),
    ("--guidance-scale", "nan", "nan"),
    ("--text-guidance-scale", "inf", "inf"),
    ("--temperature", "-0.5", "in 0.."),
    ("--temperature", "nan", "nan"),
    ("--top-k", "-1", "in 0.."),
    ("--top-k", "2.5", "2.5"),
    ("--top-p", "-0.1", "in 0.."),
    ("--top-p", "1.5", "in 0..1"),
    ("--top-p", "nan", "nan"),
    ("--seed", "-1", "in 0.."),
    ("--seed", "4294967296", "in 0..4294967295"),
    ("--batch", "0", "in 1.."),
    ("--devices", "0", "in 1.."),
    ("--tensor", "-1", "in 1.."),
]


@pytest.mark.parametrize(("flag", "value", "say"), NUMBERS)
def test_numbers_out_of_range(capsys, place, models, flag, value, say):
    words = ["--model", models["own"], "--prompt", "x", "--out", "@a.wav", flag, value]
    refused_and_clean(capsys, place, *words, say=(flag, say))


CAPTIONS = {
    "none": ([], ["--prompt", "--prompts"]),
    "none behind the flag": (["--prompt"], ["--prompt"]),
    "both": (["--prompt", "x", "--prompts", "@blank.txt"], ["not both"]),
    "no file": (["--prompts", "@gone.txt"], ["gone.txt", "not there"]),
    "a folder": (["--prompts", "@folder.wav"], ["folder.wav", "cannot be read"]),
    "an empty file": (["--prompts", "@empty.txt"], ["empty.txt has no captions"]),
    "blank lines": (["--prompts", "@blank.txt"], ["blank.txt has no captions"]),
    "another encoding": (["--prompts", "@latin.txt"], ["latin.txt is not UTF-8"]),
    "an empty pipe": (["--prompts", "-"], ["standard input has no captions"]),
    "bytes that are no text": (["--prompt", "x", "n\udce9"], ["prompt 1 is not UTF-8"]),
}


@pytest.mark.parametrize("case", CAPTIONS)
def test_captions_that_are_none(capsys, place, models, monkeypatch, case):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    words, say = CAPTIONS[case]
    words = ["--model", models["own"], "--out", "@a", *words]
    refused_and_clean(capsys, place, *words, say=say)


ONE, TWO = ["--prompt", "x"], ["--prompt", "x", "y"]
PLACES = {
    "a folder for one caption": (ONE, "@folder.wav", ["folder.wav is a folder", "name a file"]),
    "no suffix": (ONE, "@a", ["no suffix", ".wav"]),
    "another suffix": (ONE, "@a.mp4", ["cannot write .mp4", ".wav"]),
    "below a file": (ONE, "@file/a.wav", ["cannot write"]),
    "a file for several": (TWO, "@good.wav", ["good.wav", "several captions need a folder"]),
    "a file's name for several": (TWO, "@new.wav", ["new.wav", "several captions need a folder"]),
    "a file without suffix": (TWO, "@file", ["several captions need a folder"]),
    "several in a pipe": (TWO, "-", ["several captions need a folder"]),
    "a pipe that JSON needs": ([*ONE, "--json"], "-", ["--json", "standard output"]),
}


@pytest.mark.parametrize("case", PLACES)
def test_places_that_cannot_be(capsys, place, models, case):
    words, out, say = PLACES[case]
    words = ["--model", models["own"], *words, "--seconds", 0.3, "--out", out]
    refused_and_clean(capsys, place, *words, say=say)


def test_a_folder_where_a_file_of_several_goes(capsys, place, models):
    (place / "a" / "1.wav").mkdir(parents=True)
    words = ["--model", models["own"], *TWO, "--out", "@a"]
    refused_and_clean(capsys, place, *words, say=("1.wav is a folder",))


NOT_AUDIO = [
    ("gone.wav", "not there"),
    ("folder.wav", "not there"),
    ("empty.wav", "cannot be read"),
    ("none.wav", "no samples"),
    ("text.wav", "cannot be read"),
    ("nan.wav", "NaN"),
    ("six.wav", "6 channels to 2"),
]


@pytest.mark.parametrize(("name", "say"), NOT_AUDIO)
@pytest.mark.parametrize("flag", ["--melody", "--continue"])
def test_audio_that_is_none(capsys, place, models, flag, name, say):
    """Of a melody all channels are mixed, whatever their number."""
    kind = "melody" if flag == "--melody" else "stereo"
    if (name, kind) == ("six.wav", "melody"):
        return
    words = ["--model", models[kind], *ONE, "--seconds", 0.3, "--out", "@a.wav", flag, f"@{name}"]
    refused_and_clean(capsys, place, *words, say=(name, say))


FITS = {
    "a melody for a model of none": (
        "text",
        ["--melody", "@good.wav"],
        ["follows no melody", "--melody"],
    ),
    "double guidance for one": ("own", ["--text-guidance-scale", "2"], ["--text-guidance-scale"]),
    "no frame to continue": ("text", ["--continue", "@short.wav"], ["short.wav", "10 samples"]),
    "nothing left to draw": (
        "text",
        ["--continue", "@good.wav"],
        ["good.wav lasts 0.40 s", "--seconds"],
    ),
    "beyond the window": ("text", ["--seconds", "0.5"], ["window of 0.4 s", "stride"]),
    "a stride beyond the window": (
        "text",
        ["--seconds", "0.5", "--stride", "0.45"],
        ["stride", "0.4"],
    ),
    "a stride of no frame": ("text", ["--seconds", "0.5", "--stride", "1e-4"], ["stride", "0.4"]),
    "a stream beyond the window": (
        "text",
        ["--seconds", "2.5", "--stream"],
        ["window of 0.4 s", "stride"],
    ),
}


@pytest.mark.parametrize("case", FITS)
def test_what_does_not_fit_the_model(capsys, place, models, case):
    kind, words, say = FITS[case]
    words = ["--model", models[kind], *ONE, "--out", "@a.wav", "--seconds", "0.3", *words]
    refused_and_clean(capsys, place, *words, say=say)


def copied(folder: Path, to: Path) -> Path:
    for path in folder.rglob("*"):
        if path.is_file():
            goal = to / path.relative_to(folder)
            goal.parent.mkdir(parents=True, exist_ok=True)
            goal.write_bytes(path.read_bytes())
    return to


def edited(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def spoiled(folder: Path) -> None:
    arrays = dict(np.load(folder / "weights.npz"))
    name = next(name for name in arrays if name.startswith("blocks"))
    arrays[name][...] = np.nan
    np.savez(folder / "weights.npz", **arrays)


def drop(prefix: str):
    """Takes the tensors of a part out of a folder."""

    def damage(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        kept = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
        save_file(kept, folder / "model.safetensors")

    return damage


DAMAGE = {
    "gone": ("own", lambda f: (f / "config.json").unlink(), ["not a model folder"]),
    "an unknown pattern": (
        "own",
        lambda f: edited(f / "config.json", pattern="delayed"),
        ["unknown pattern 'delayed'", "'delay'"],
    ),
    "NaN": ("own", spoiled, ["not finite", "blocks"]),
    "no codec": ("own", lambda f: (f / "codec" / "config.json").unlink(), ["codec"]),
    "no text encoder": ("text", drop("text_encoder."), ["no tensors text_encoder."]),
    "no text encoder in the config": (
        "text",
        lambda f: edited(f / "config.json", text_encoder=None),
        ["lacks the part 'text_encoder'"],
    ),
    "no tokenizer": ("text", lambda f: (f / "tokenizer.json").unlink(), ["no tokenizer"]),
    "a codec": ("own", lambda f: (f / "codec").rename(f.parent / "m"), ["holds a codec"]),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_model_that_is_damaged(capsys, place, models, case):
    kind, damage, say = DAMAGE[case]
    folder = copied(models[kind], place / "model")
    damage(folder)
    folder = place / "m" if case == "a codec" else folder
    refused_and_clean(capsys, place, "--model", folder, *ONE, "--out", "@a.wav", say=say)


def test_a_token_model_alone(capsys, place):
    pytest.importorskip("safetensors", reason="the package is not installed")
    config = dataclasses.replace(CONFIGS["text"], text_dim=CONFIGS["text"].dim)
    params = filled(forms.abstract(config))
    rj.MusicGen(config, "delay", params, None).save(place / "alone")
    words = ["--model", place / "alone", *ONE, "--out", "@a.wav"]
    refused_and_clean(capsys, place, *words, say=("token model alone", "no codec"))


def test_a_codec_of_segments_does_not_stream(capsys, place, models, monkeypatch):
    model = rj.MusicGen.load(models["own"])
    config = dataclasses.replace(model.codec.config, segment=0.1)
    model = dataclasses.replace(model, codec=dataclasses.replace(model.codec, config=config))
    monkeypatch.setattr(rj.MusicGen, "load", lambda path, **options: model)
    words = ["--model", models["own"], *ONE, "--out", "@a.wav", "--stream"]
    refused_and_clean(capsys, place, *words, say=("cannot --stream",))


def test_too_little_memory_is_told(capsys, place, models, monkeypatch):
    """And an error of the library's own is not hidden."""

    def fails(text):
        def generate(*args, **options):
            raise jax.errors.JaxRuntimeError(text)

        return generate

    words = ["--model", models["own"], *ONE, "--out", "@a.wav"]
    full = fails("RESOURCE_EXHAUSTED: out of memory")
    monkeypatch.setattr(generate, "generate_files", full)
    refused_and_clean(capsys, place, *words, say=("out of memory", "--batch"))
    monkeypatch.setattr(generate, "generate_files", fails("INTERNAL: a bug"))
    with pytest.raises(jax.errors.JaxRuntimeError):
        refused_and_clean(capsys, place, *words, say=())
