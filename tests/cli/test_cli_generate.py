"""generate: every option, in files, folders and pipes, with models of both kinds of folder."""

import io
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small_folders
import soundfile
from command import BAR, run
from small_musicgen import HOP, RATE
from tiers import slow

import rvq_jax as rj
from rvq_jax import cli, progress
from rvq_jax.audio import resample
from rvq_jax.cli.texts import read_texts
from rvq_jax.offline import generate

PROMPTS = ["slow piano", "a loud drum", "né"]
FLOAT = {"subtype": "FLOAT"}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    return small_folders.folders(tmp_path_factory)


def said(capsys, model: Path, *words) -> dict:
    """The JSON of a command that did what was asked."""
    code, out, lines = run(capsys, "generate", "--model", model, *words, "--json")
    assert (code, lines) == (0, [])
    return json.loads(out)


def heard(path) -> np.ndarray:
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == RATE
    return audio


def expected(model: Path, prompts, seconds: float, seed: int = 0, **options) -> np.ndarray:
    """What the library gives, as 16 bits keep it."""
    audio = rj.MusicGen.load(model).generate(prompts, seconds, jax.random.key(seed), **options)
    return np.clip(audio, -1, 1)


def same(ours, theirs) -> None:
    """To 16 bits."""
    np.testing.assert_allclose(ours, theirs, atol=2**-14)


def write_noise(path: Path, samples: int, rate: int = RATE, channels: int = 1) -> Path:
    audio = 0.2 * np.random.default_rng(0).standard_normal((samples, channels))
    soundfile.write(path, audio.astype("f4"), rate, **FLOAT)
    return path


# One file.


@pytest.mark.parametrize("kind", ["own", "text"])
def test_a_caption_becomes_the_audio_of_the_library(capsys, tmp_path, models, kind):
    """With the default options, and with each given."""
    words = ["--prompt", "slow piano", "--seconds", 0.3, "--out", tmp_path / "a.wav"]
    conditions = said(capsys, models[kind], *words)
    assert conditions == {
        "files": [str(tmp_path / "a.wav")],
        "prompts": ["slow piano"],
        "seconds": 0.3,
        "samples": 300,
        "rate": RATE,
        "channels": 1,
    }
    whole = expected(models[kind], ["slow piano"], 0.3)
    assert whole.std() > 1e-3
    same(heard(tmp_path / "a.wav"), whole[0])
    how = {"guidance_scale": 1.5, "temperature": 0.7, "top_k": 4, "top_p": 0.9}
    flags = [word for n, x in how.items() for word in (f"--{n.replace('_', '-')}", x)]
    said(capsys, models[kind], *words, *flags, "--seed", 9)
    other = expected(models[kind], ["slow piano"], 0.3, 9, **how)
    same(heard(tmp_path / "a.wav"), other[0])
    assert np.abs(other - whole).max() > 1e-3
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_a_line_says_what_was_written(capsys, tmp_path, models):
    words = ["--prompt", "x", "--seconds", 0.3, "--out", tmp_path / "a.flac"]
    code, out, lines = run(capsys, "generate", "--model", models["own"], *words)
    assert (code, lines) == (0, [])
    assert out == f"{tmp_path / 'a.flac'}: 0.30 s at {RATE} Hz\n"


def test_without_a_length_it_is_ten_seconds_or_the_window(capsys, tmp_path, models, monkeypatch):
    conditions = said(capsys, models["text"], "--prompt", "slow", "--out", tmp_path / "a.wav")
    assert conditions["samples"] == small_folders.WINDOW * HOP
    given = []
    monkeypatch.setattr(generate, "generate_files", lambda *args, **_: given.append(args[3]))
    with pytest.raises(TypeError):
        run(capsys, "generate", "--model", models["own"], "--prompt", "x", "--out", "a.wav")
    assert given == [10.0]


def test_a_stereo_model_of_a_mono_codec(capsys, tmp_path, models):
    words = ["--prompt", "slow", "--seconds", 0.3, "--out", tmp_path / "a.wav"]
    assert said(capsys, models["stereo"], *words)["channels"] == 2
    audio = heard(tmp_path / "a.wav")
    assert audio.shape == (300, 2)
    same(audio, expected(models["stereo"], ["slow"], 0.3)[0])


# Captions.


def test_several_captions_make_a_folder(capsys, tmp_path, models):
    """Whatever their batch, each as if alone at its place; the last batch is not full."""
    words = ["--seconds", 0.3, "--format", "flac", "--prompt", *PROMPTS]
    conditions = said(capsys, models["text"], *words, "--batch", 2, "--out", tmp_path / "a")
    assert conditions["files"] == [str(tmp_path / "a" / f"{i}.flac") for i in range(3)]
    whole = expected(models["text"], PROMPTS, 0.3)
    for path, row in zip(conditions["files"], whole, strict=True):
        same(heard(path), row)
    # Again over the same folder.
    said(capsys, models["text"], *words, "--batch", 1, "--out", tmp_path / "a")
    for path, row in zip(conditions["files"], whole, strict=True):
        same(heard(path), row)


@pytest.mark.parametrize("place", ["file", "pipe"])
def test_captions_of_a_text(capsys, tmp_path, models, monkeypatch, place):
    """One on each line, with or without empty ones, of any system; one line makes a folder too."""
    text = "\ufeffslow piano\r\n\r\n  a loud drum \nné".encode()
    (tmp_path / "prompts.txt").write_bytes(text)
    source = tmp_path / "prompts.txt"
    if place == "pipe":
        source = "-"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    words = ["--seconds", 0.3, "--prompts", source, "--out", tmp_path / "a"]
    conditions = said(capsys, models["text"], *words)
    assert conditions["prompts"] == PROMPTS
    assert [Path(path).name for path in conditions["files"]] == ["0.wav", "1.wav", "2.wav"]
    same(heard(conditions["files"][2]), expected(models["text"], PROMPTS, 0.3)[2])


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1c", "\x1e"])
def test_newlines_alone_part_captions(tmp_path, inside):
    """What other programs call line breaks can be in a caption."""
    (tmp_path / "prompts.txt").write_bytes(f"slow{inside}piano\r\na drum\n\nx".encode())
    found = read_texts((), tmp_path / "prompts.txt", "prompt", "caption")
    assert found == [f"slow{inside}piano", "a drum", "x"]


def test_one_caption_of_a_text_is_in_a_folder(capsys, tmp_path, models):
    (tmp_path / "prompts.txt").write_text("slow piano")
    words = ["--seconds", 0.3, "--prompts", tmp_path / "prompts.txt", "--out", tmp_path / "a"]
    code, out, lines = run(capsys, "generate", "--model", models["own"], *words)
    assert (code, lines) == (0, []) and out.endswith(f"{RATE} Hz, each of 1\n")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["0.wav"]


@pytest.mark.parametrize(
    ("kind", "limit"), [("own", "18 bytes and is cut to 16"), ("text", "601 tokens")]
)
def test_a_caption_that_is_cut_is_told(capsys, tmp_path, models, kind, limit):
    prompt = "a " * 600 if kind == "text" else "slow, slow, slow, "[:18]
    words = ["--prompt", "x", prompt.rstrip() + "." * (kind == "own"), "--seconds", 0.3]
    words = ["generate", "--model", models[kind], *words, "--out", tmp_path / "a"]
    code, _, lines = run(capsys, *words)
    assert code == 0 and len(lines) == 1
    assert lines[0].startswith("rvq-jax: note: prompt 1 (") and limit in lines[0]
    assert len(list((tmp_path / "a").iterdir())) == 2


def test_no_caption_at_all(capsys, tmp_path, models):
    """An empty one is not a mistake: audio can be continued without words."""
    words = ["--prompt", "", "--seconds", 0.3, "--out", tmp_path / "a.wav"]
    assert said(capsys, models["text"], *words)["prompts"] == [""]
    same(heard(tmp_path / "a.wav"), expected(models["text"], [""], 0.3)[0])


# Audio that is followed or continued.


def test_a_melody_of_any_rate_and_channels(capsys, tmp_path, models):
    path = write_noise(tmp_path / "m.wav", 30_000, 800, 2)
    words = ["--prompt", *PROMPTS[:2], "--seconds", 0.3, "--out", tmp_path / "a"]
    how = ["--text-guidance-scale", 2.0]
    conditions = said(capsys, models["melody"], *words, "--melody", path, *how)
    audio, _ = soundfile.read(path, dtype="float32")
    melody = resample.to_rate(audio.mean(1, keepdims=True), 800, RATE)[None]
    options = {"melody": melody, "text_guidance_scale": 2.0}
    whole = expected(models["melody"], PROMPTS[:2], 0.3, **options)
    for file, row in zip(conditions["files"], whole, strict=True):
        same(heard(file), row)
    drop = expected(models["melody"], PROMPTS[:2], 0.3, text_guidance_scale=2.0)
    assert np.abs(drop - whole).max() > 1e-3


@pytest.mark.parametrize("kind", ["text", "stereo"])
def test_what_is_continued_is_kept(capsys, tmp_path, models, kind):
    """As the codec keeps it, in whole frames: 125 samples are 12 of them."""
    channels = 2 if kind == "stereo" else 1
    path = write_noise(tmp_path / "c.wav", 250, 2 * RATE, channels)
    words = ["--prompt", "slow", "--seconds", 0.3, "--out", tmp_path / "a.wav"]
    assert said(capsys, models[kind], *words, "--continue", path)["samples"] == 300
    audio, _ = soundfile.read(path, dtype="float32", always_2d=True)
    prompt = resample.to_rate(audio, 2 * RATE, RATE)[None, :120]
    same(heard(tmp_path / "a.wav"), expected(models[kind], ["slow"], 0.3, prompt=prompt)[0])
    codec = rj.MusicGen.load(models[kind]).codec
    for channel in range(channels):
        mono = prompt[:, :, channel : channel + 1]
        kept = codec.decode(codec.encode(mono))[0, :, 0]
        # Frames near the end hear the first that are new.
        same(heard(tmp_path / "a.wav")[:60, channel], np.clip(kept, -1, 1)[:60])


def test_audio_beyond_the_window(capsys, tmp_path, models):
    words = ["--prompt", "slow", "--seconds", 0.7, "--out", tmp_path / "a.wav", "--stride", 0.25]
    assert said(capsys, models["text"], *words)["samples"] == 700
    same(heard(tmp_path / "a.wav"), expected(models["text"], ["slow"], 0.7, stride=0.25)[0])


# While it is drawn.


def test_a_stream_makes_the_same_files(capsys, tmp_path, models):
    """Of several captions, in windows too."""
    words = ["--prompt", *PROMPTS, "--seconds", 2.3, "--stride", 0.3, "--batch", 2]
    for name, flags in (("plain", []), ("stream", ["--stream"])):
        said(capsys, models["stereo"], *words, *flags, "--out", tmp_path / name)
    for i in range(3):
        same(heard(tmp_path / "plain" / f"{i}.wav"), heard(tmp_path / "stream" / f"{i}.wav"))
    whole = expected(models["stereo"], PROMPTS, 2.3, stride=0.3)
    same(heard(tmp_path / "stream" / "1.wav"), whole[1])


class Pipe:
    """Standard output that counts its writes; it breaks after `most` of them."""

    def __init__(self, most: int = 100):
        self.buffer, self.written, self.most = self, [], most

    def write(self, data) -> None:
        if len(self.written) == self.most:
            raise BrokenPipeError(32, "Broken pipe")
        self.written.append(data)

    def flush(self) -> None:
        pass


def piped(monkeypatch, *words, most: int = 100) -> tuple[int, list[bytes]]:
    pipe = Pipe(most)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        code = cli.main([str(word) for word in words])
    return code, pipe.written


@pytest.mark.parametrize("kind", ["own", slow("stereo")])
def test_a_pipe_gets_the_bytes_of_the_file(capsys, tmp_path, models, monkeypatch, kind):
    """At once, or a second at a time after a header that tells the length."""
    words = ["generate", "--model", models[kind], "--prompt", "slow", "--seconds", 2.3]
    words += ["--stride", 0.3]
    assert run(capsys, *words, "--out", tmp_path / "a.wav")[0] == 0
    code, whole = piped(monkeypatch, *words, "--out", "-")
    assert code == 0 and len(whole) == 1
    assert whole[0] == (tmp_path / "a.wav").read_bytes()
    code, parts = piped(monkeypatch, *words, "--out", "-", "--stream")
    assert code == 0 and len(parts) >= 4
    same(heard(io.BytesIO(b"".join(parts))), heard(tmp_path / "a.wav"))
    assert len(b"".join(parts)) == len(whole[0]) and parts[0][:44] == whole[0][:44]
    _, lines = capsys.readouterr()
    assert "standard output: 2.30 s" in lines


def test_a_pipe_that_breaks_is_told_in_one_line(capsys, models, monkeypatch):
    words = ["generate", "--model", models["own"], "--prompt", "slow", "--seconds", 2.3]
    code, _ = piped(monkeypatch, *words, "--out", "-", "--stream", most=2)
    _, err = capsys.readouterr()
    assert code == 2 and "cannot write standard output: Broken pipe" in err


@pytest.mark.parametrize("flags", [[], ["--stream"]])
def test_nothing_is_left_of_a_run_that_fails(capsys, tmp_path, models, monkeypatch, flags):
    """Midway, when part of the audio is written."""
    whole = rj.MusicGen.stream

    def stream(*args, **options):
        yield next(whole(*args, **options))
        raise ValueError("no\nmore")

    monkeypatch.setattr(rj.MusicGen, "stream", stream)
    words = ["generate", "--model", models["own"], "--prompt", "a", "b", "--seconds", 2.3, *flags]
    code, out, lines = run(capsys, *words, "--out", tmp_path / "a")
    assert (code, out) == (2, "") and lines == [f"rvq-jax: {models['own']}: no more"]
    assert list(tmp_path.iterdir()) == []


def test_long_work_shows_how_far_it_is(capsys, tmp_path, models, monkeypatch):
    """A bar of seconds of audio, which `BAR` tells from other lines."""
    seen, made = [], progress.bar

    def watched(*work, **options):
        bar = made(*work, **options)
        update = bar.update
        bar.update = lambda n=1: (seen.append(n), update(n))
        return bar

    monkeypatch.setattr(progress, "bar", watched)
    words = ["--prompt", "a", "b", "--seconds", 2.3, "--batch", 1, "--out", tmp_path / "a"]
    said(capsys, models["own"], *words)
    assert sum(seen) == pytest.approx(4.6) and len(seen) >= 6
    assert BAR.match("generate:  42%|████      | 1.0/2.3 s [00:01<00:02]")
