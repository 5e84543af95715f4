"""serve: a process that answers over HTTP with the audio of a real model."""

import base64
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small_folders
from command import refuses, run
from serving import WAIT, Place
from small_musicgen import RATE

import rvq_jax as rj
from rvq_jax import cli, serve
from rvq_jax.cli.terminal import flags


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    return small_folders.folders(tmp_path_factory)


def test_a_process_serves_clips_of_its_model(models):
    """The address is its first line; Ctrl-C ends it with exit code 0."""
    pytest.importorskip("uvicorn", reason="the package is not installed")
    words = ["serve", "--model", models["own"], "--port", "0", "--json"]
    command = [sys.executable, "-m", "rvq_jax", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            address = json.loads(process.stdout.readline())["address"]
            assert address.startswith("http://127.0.0.1:")
            place = Place(None, int(address.rstrip("/").rpartition(":")[2]))
            assert place.health()["rate"] == RATE
            events = list(place.generate("slow", 0.5, seed=3, guidance_scale=2.0, top_k=5))
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=WAIT)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "", "")
    assert [events[0]["event"], events[-1]["event"]] == ["start", "done"]
    pcm = b"".join(base64.b64decode(e["pcm"]) for e in events if e["event"] == "audio")
    model, options = rj.MusicGen.load(models["own"]), {"guidance_scale": 2.0, "top_k": 5}
    audio = model.generate(["slow"], 0.5, jax.random.key(3), **options)[0, :, 0]
    expected = np.clip(audio, -1, 1) * 32767
    np.testing.assert_allclose(np.frombuffer(pcm, "<i2"), expected, atol=4)


def test_it_is_for_this_machine_only_and_never_beyond_the_window(capsys, models, monkeypatch):
    given = []

    def stand_in(model, host, port, limits, announce, name):
        given.append((host, port, limits))
        assert name in ("text", "own")
        announce("http://127.0.0.1:8000/")

    monkeypatch.setattr(serve, "serve", stand_in)
    code, out, lines = run(capsys, "serve", "--model", models["text"])
    assert (code, lines) == (0, []) and "http://127.0.0.1:8000/" in out
    words = ["--host", "0.0.0.0", "--port", 81, "--limits.seconds", 12, "--limits.waiting", 0]
    assert run(capsys, "serve", "--model", models["own"], *words)[0] == 0
    seconds = small_folders.WINDOW / 100
    assert given[0] == ("127.0.0.1", 8000, serve.Limits(seconds=seconds))
    assert given[1] == ("0.0.0.0", 81, serve.Limits(seconds=12.0, waiting=0))


def test_a_generation_that_runs_on_does_not_keep_the_process(capsys, models, monkeypatch):
    """Python's own end waits for a program of XLA, or breaks it off with a crash."""
    codes = []
    monkeypatch.setattr(serve, "serve", lambda *words, **names: True)
    monkeypatch.setattr("rvq_jax.cli.serve.os._exit", codes.append)
    run(capsys, "serve", "--model", models["own"])
    assert codes == [0]


def test_help_says_who_can_reach_it(capsys):
    code, out, lines = run(capsys, "serve", "--help")
    assert (code, lines) == (0, []) and "this machine" in out and "passwords" in out
    assert [flag for flag in flags(cli.load("serve")) if flag not in out] == []


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["--limits.seconds", "0"], ["limit of seconds", "0.0"]),
        (["--limits.prompts", "5"], ["'--limits.prompt'"]),
        (["--port", "many"], ["--port", "many"]),
        (["--port", "99999"], ["--port", "65535"]),
        (["--host", "192.0.2.1", "--port", "0"], ["cannot listen", "--host"]),
    ],
    ids=lambda words: " ".join(words),
)
def test_mistakes_are_told_in_one_line(capsys, models, words, say):
    pytest.importorskip("uvicorn", reason="the package is not installed")
    refuses(capsys, "serve", "--model", models["own"], *words, say=say)


def test_a_place_or_a_model_that_is_not_there(capsys, tmp_path, models):
    pytest.importorskip("uvicorn", reason="the package is not installed")
    refuses(capsys, "serve", say=("--model",))
    refuses(capsys, "serve", "--model", tmp_path / "gone", say=("gone", "not a model folder"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["--model", models["own"], "--port", taken.getsockname()[1]]
        refuses(capsys, "serve", *words, say=("cannot listen", "--port"))
