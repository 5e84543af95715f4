"""How processes find each other, in one: what each reads, and mistakes said in a line.

What two of them do together is in tests/faults.
"""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from command import refuses
from small_runs import CONFIG_FILE, RUN, code_set, one_device

from rvq_jax.errors import UserError
from rvq_jax.train import hosts, joining, sharding
from rvq_jax.train.joining import Hosts


def test_one_process_feeds_every_row():
    """Also where no device has all of them, or all have the same."""
    meshes = [one_device(), *(sharding.make_mesh(*x) for x in ((8, 1, 1), (2, 2, 2), (1, 1, 8)))]
    for mesh in meshes:
        np.testing.assert_array_equal(hosts.rows(mesh, 16), np.arange(16))


def test_alone_nothing_is_exchanged():
    value = {"a": [1, None, "x"]}
    assert hosts.broadcast(value) == value and hosts.first()
    x = jax.device_put(np.arange(16.0), sharding.replicated(sharding.make_mesh()))
    np.testing.assert_array_equal(hosts.fetch({"x": x})["x"], np.arange(16.0))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Hosts("localhost"), "'localhost'; it must be HOST:PORT"),
        (Hosts("localhost:http", 2, 0), "it must be HOST:PORT"),
        (Hosts("localhost:1234"), "number the processes from 0 on"),
        (Hosts("localhost:1234", 2, 2), "2 of --hosts.processes 2"),
        (Hosts("localhost:1", 2, 1, wait=1), "no process answers at localhost:1 in 1 s"),
        (Hosts("no.such.host.invalid:1", 2, 1, wait=1), "no process answers at no.such.host"),
    ],
)
def test_mistakes_are_told_and_the_wait_is_bounded(asked, words):
    with pytest.raises(UserError, match=words.replace(".", r"\.")) as caught:
        joining.join(asked)
    assert "\n" not in str(caught.value)


def test_a_coordinator_that_never_answers_is_a_line_of_the_command(capsys, tmp_path):
    """Nothing is written."""
    (tmp_path / "config.py").write_text(CONFIG_FILE.format(run=RUN))
    code_set().save(tmp_path / "codes.npz")
    words = ["train", tmp_path / "config.py", "--data", tmp_path / "codes.npz"]
    words += ["--out", tmp_path / "out", "--hosts.coordinator", "localhost:1"]
    words += ["--hosts.processes", "2", "--hosts.process", "1", "--hosts.wait", "1"]
    refuses(capsys, *words, say=("localhost:1", "start process 0 there"))
    assert not (tmp_path / "out").exists()


def test_no_cluster_around_is_told():
    """In a process of its own: JAX must not have started yet."""
    program = "from rvq_jax.train import joining; joining.join(joining.Hosts('auto', wait=2))"
    clean = {name: x for name, x in os.environ.items() if not name.startswith(("SLURM", "OMPI"))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean, capture_output=True, text=True
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "UserError: cannot join the other processes" in last and "HOST:PORT" in last, done.stderr
