"""Help and the version are quick: nothing is imported that they do not need."""

import json
import subprocess
import sys

import pytest

import rvq_jax
from rvq_jax import cli

HEAVY = {"jax", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "numpy", "soundfile"}
# What the help of a command needs beside tyro. A study is a codec, a model and their optimizers.
NEEDED = {name: set() for name in cli.COMMANDS} | {"quickstart": {"jax", "flax", "optax", "numpy"}}


def imported(*words: str) -> set[str]:
    """What a fresh process has imported when it has answered."""
    code = (
        "import contextlib, io, json, sys\n"
        "from rvq_jax import cli\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        f"    code = cli.main({[*words]})\n"
        "assert code == 0 and out.getvalue(), code\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {*json.loads(done.stdout)}


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"]], ids=" ".join)
def test_the_overview_imports_nothing_heavy(words):
    assert imported(*words) & {*HEAVY, "tyro"} == set()


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_of_a_command_imports_what_its_fields_need(name):
    assert imported(*name.split(), "--help") & HEAVY == NEEDED[name]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_overview_says_the_first_line_of_each_help(name):
    assert cli.load(name).__doc__.strip().splitlines()[0] == cli.COMMANDS[name][1]


def test_the_version_is_that_of_the_package(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"rvq-jax {rvq_jax.__version__}\n"
