"""Names out of files: no command writes them to a terminal as they are."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from command import run
from rvq_files import draw, make, written

from rvq_jax.cli import terminal

CASES = Path(__file__).parents[3] / "shared" / "cases" / "names"
EVIL = [
    "\x1b]0;owned\x07\x1b[2J\x1b[31mAll is well\x1b[0m\rrvq-jax: done",
    "a\nhash          0123",
    "a\u2028hash",
    "\u202eexe.rvq",
    "\x9b2J",
    "x" * 60_000,
    "a\tb\x00c\x7f",
]


@pytest.mark.parametrize("name", EVIL)
def test_info_shows_a_name_on_its_line(capsys, tmp_path, name):
    head = make(codec=name, samples=60)
    (tmp_path / "a.rvq").write_bytes(written(head, draw(np.random.default_rng(0), head, 10)))
    code, out, lines = run(capsys, "info", tmp_path / "a.rvq")
    assert (code, lines) == (0, [])
    shown = out.split("\n")
    fields = [line.split("  ")[0] for line in shown[:-1]]
    assert fields.count("codec") == fields.count("hash") == 1 and len(fields) == len(set(fields))
    assert all(line.isprintable() and len(line) < 250 for line in shown)
    code, out, lines = run(capsys, "info", tmp_path / "a.rvq", "--json")
    assert json.loads(out)["codec"] == name and out[:-1].isprintable() and out.isascii()


@pytest.mark.parametrize("name", [*EVIL, "\udcff.wav"])
def test_whatever_is_said_is_lines_of_characters_that_can_be_seen(name):
    """Lines of a table stay lines; names of folders and files may be anything."""
    place = io.StringIO()
    terminal.say(False, f"run: {name}\nsecond", place)
    lines = place.getvalue().split("\n")
    assert lines[-2:] == ["second", ""] and all(line.isprintable() for line in lines)
    place.getvalue().encode()


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not here")
@pytest.mark.parametrize("name", ["name.rvq", "key.safetensors"])
def test_the_cases(capsys, name):
    code, out, lines = run(capsys, "info", CASES / name)
    assert (code == 0) == name.endswith(".rvq")
    assert all(line.isprintable() for line in [*out.split("\n"), *lines])
