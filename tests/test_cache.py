"""Programs that are compiled once: where they are kept, when not, and that they are read again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from command import run

from rvq_jax import cache, cli

CODEC = Path(__file__).parent / "fixtures" / "codecs" / "dac"


def test_the_folder_is_the_users_own(monkeypatch, tmp_path):
    """As the platform has it; a relative XDG_CACHE_HOME counts for nothing."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.setenv("HOME", f"{tmp_path}")
    for xdg, base in ((None, ".cache"), ("", ".cache"), ("x", ".cache"), (tmp_path / "y", "y")):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if xdg is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", f"{xdg}")
        assert cache.place() == tmp_path / base / "rvq_jax" / f"jax-{cache.key()}"


def test_the_variable_says_where_or_that_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.VARIABLE, f"{tmp_path}")
    assert cache.place() == tmp_path / f"jax-{cache.key()}"
    monkeypatch.setenv(cache.VARIABLE, "0")
    assert cache.place() is None and cache.keep_programs() is None


@pytest.fixture
def asked(monkeypatch) -> list:
    """How often a command has asked to keep its programs."""
    calls = []
    monkeypatch.setattr(cache, "keep_programs", lambda: calls.append(True))
    return calls


INFO = ["info", f"{CODEC}"]


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (INFO, 1),
        ([*INFO, "--no-cache"], 0),
        (["--no-cache", *INFO], 0),
        (["info", "--help"], 0),
        (["--help"], 0),
        (["train", "no.py", "--data", "d", "--out", "o"], 1),
        (["train", "no.py", "--data", "d", "--out", "o", "--hosts.coordinator", "auto"], 0),
        (["plan", "no.py", "--topology", "cpu:8"], 0),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_command_keeps_programs_unless_they_would_do_harm(
    capsys, monkeypatch, asked, words, count
):
    """A plan reads what the compiler says; many hosts have many disks."""
    monkeypatch.setattr("rvq_jax.train.joining.join", lambda hosts: None)
    monkeypatch.setattr("rvq_jax.cli.train.join", lambda hosts: None)
    run(capsys, *words)
    assert len(asked) == count


def test_a_cache_of_ones_own_is_respected(monkeypatch, tmp_path):
    """This suite's, of JAX_COMPILATION_CACHE_DIR."""
    monkeypatch.setenv(cache.VARIABLE, f"{tmp_path}")
    before = jax.config.jax_compilation_cache_dir
    assert before and cache.keep_programs() is None
    assert jax.config.jax_compilation_cache_dir == before and [*tmp_path.iterdir()] == []


PROGRAM = """
import json, sys
from rvq_jax import cache
cache.LEAST = 0.0
place = cache.keep_programs()
import jax, jax.numpy as jnp
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
value = jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((3, 4)))
hit = hits.count("/jax/compilation_cache/cache_hits")
print(json.dumps([place and str(place), hit, value.tolist()]))
"""


def python(folder: Path) -> list:
    mine = {name: x for name, x in os.environ.items() if not name.startswith("JAX_")}
    mine |= {cache.VARIABLE: f"{folder}", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, env=mine)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_the_second_process_reads_what_the_first_has_compiled(tmp_path):
    """Bounded in size; the same value, and no program is added."""
    place, hits, value = python(tmp_path / "cache")
    assert hits == 0
    files = sorted(path.name for path in Path(place).iterdir())
    assert any(name.startswith("jit_") and name.endswith("-cache") for name in files)
    assert Path(place).stat().st_mode & 0o077 == 0
    again, hits, same = python(tmp_path / "cache")
    assert (again, same) == (place, value) and hits > 0
    assert sorted(path.name for path in Path(place).iterdir()) == files


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("kept")
    place, hits, value = python(tmp_path / "file")
    assert (place, hits) == (None, 0) and value
    assert (tmp_path / "file").read_text() == "kept"


def test_help_says_where_they_are(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv(cache.VARIABLE, f"{tmp_path}")
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert f"{cache.place()}" in out and "--no-cache" in out and f"{cache.VARIABLE}=0" in out
