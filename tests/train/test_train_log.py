"""metrics.jsonl: whatever became of it a run goes on, and nothing of others is written into."""

import errno
import json
import os

import pytest
from small_runs import RECORDS, TUNING, log_of, point_task, points

from rvq_jax.errors import UserError
from rvq_jax.train import log
from rvq_jax.train.log import Log
from rvq_jax.train.loop import LoopConfig, fit


def line(step, seconds=None, **more) -> bytes:
    fields = {"step": step, "seconds": step / 2 if seconds is None else seconds, **more}
    return json.dumps(fields).encode() + b"\n"


GOOD = [line(1), line(2, loss=None), line(3)]
NUMBER = b'{"step": %s, "seconds": 1}\n'
# Lines between the second and the third, and how many of them are damaged.
DAMAGE = {
    "a bad byte": ([b'{"step": 2, "seconds": 1.0, "l\xffss": 1}\n'], 1),
    "half a line": ([line(2)[:9] + b"\n", b"\n"], 2),
    "no JSON": ([b"step 2\n"], 1),
    "not a number": ([line(2, loss=float("nan")), line(2, float("inf"))], 2),
    "too large": ([b'{"step": 2, "seconds": 1e999}\n', NUMBER % (b"1" * 5000)], 2),
    "no object": ([b"[]\n", b"2\n", b"null\n", b'"step"\n'], 4),
    "no step": ([b'{"seconds": 1}\n', line("2", 1), line(None, 1), line(2.0), line(True)], 5),
    "no seconds": ([b'{"step": 2}\n', line(2, "1"), line(2, True)], 3),
    "before the first": ([line(-1)], 1),
    "deep": ([b"[" * 100_000 + b"\n", b'{"step": ' * 9000 + b"\n"], 2),
    "long": ([b"\0" * 3_000_000 + b"\n"], 1),
    "backwards": ([line(1, 9.0), line(2, 9.5)], 0),
    "twice": ([line(2, 7.0)] * 3, 0),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_log_goes_on_without_its_damaged_lines(tmp_path, capsys, name):
    """With a word, and the file as it was beside it; good lines stay to the byte."""
    wrong, damaged = DAMAGE[name]
    path = tmp_path / "metrics.jsonl"
    data = b"".join([*GOOD[:2], *wrong, *GOOD[2:]])
    path.write_bytes(data)
    Log(path, 3).write(4, {"loss": 1.0})
    said = capsys.readouterr().err
    assert [fields["step"] for fields in log.read(path)] == [1, 2, 3, 4]
    assert path.read_bytes().splitlines(keepends=True)[2] == GOOD[2]
    assert said.count("\n") == bool(damaged)
    aside = tmp_path / "metrics.jsonl.damaged"
    assert aside.exists() == bool(damaged)
    if damaged:
        assert f"{damaged} damaged lines" in said and f"{aside}" in said
        assert aside.read_bytes() == data


@pytest.mark.parametrize("cut", range(1, len(GOOD[1]) + 1))
def test_a_log_cut_anywhere_says_nothing(tmp_path, capsys, cut):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(GOOD[0] + GOOD[1][:cut])
    Log(path, 3)
    assert [x["step"] for x in log.read(path)] == ([1, 2] if cut >= len(GOOD[1]) - 1 else [1])
    assert capsys.readouterr().err == "" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("target", ["other", "nowhere", "/dev/full"])
def test_a_log_that_is_a_link_is_never_written_through(tmp_path, target):
    path, other = tmp_path / "metrics.jsonl", tmp_path / "other"
    other.write_bytes(GOOD[0])
    path.symlink_to(target)
    try:
        written = Log(path, 3)
    except UserError as error:
        assert target == "/dev/full" and "no file" in str(error)
        return
    written.write(4, {"loss": 1.0})
    assert other.read_bytes() == GOOD[0] and not (tmp_path / "nowhere").exists()
    assert log.read(path)[-1]["step"] == 4 and not path.is_symlink()
    # Also one that comes while it runs.
    path.unlink()
    path.symlink_to("other")
    written.write(5, {"loss": 1.0})
    assert other.read_bytes() == GOOD[0]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_log_is_told_before_training(tmp_path, make):
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        Log(tmp_path / "metrics.jsonl", 0)


@pytest.mark.parametrize("how", ["nothing", "half", "gone"])
def test_a_full_disk_costs_lines_of_the_log_alone(tmp_path, capsys, monkeypatch, how):
    """The run goes on, says so once, and logs again when there is room; no half line stays."""
    path, write, calls = tmp_path / "metrics.jsonl", os.write, []

    def full(file, data):
        calls.append(data)
        if b'"step"' not in data or len(calls) not in (2, 3):
            return write(file, data)
        if how == "half":
            return write(file, data[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    config = LoopConfig(steps=6, log_every=1, checkpoint_every=100)
    state = fit(tmp_path, point_task(), points(RECORDS), config, TUNING)
    assert int(state.step) == 6
    assert [fields["step"] for fields in log_of(tmp_path)] == [1, 4, 5, 6]
    said = capsys.readouterr().err
    assert said.count("No space left on device") == said.count("the run goes on") == 1
    # A log that cannot be made shorter keeps its lines; the later ones of a step count.
    written = Log(path, 6)
    monkeypatch.setattr(log.files, "check_file", refuse)
    written.go_back(4)
    written.write(5, {"loss": 0.5})
    assert [fields["step"] for fields in log.read(path)] == [1, 4, 5]
    assert capsys.readouterr().err.count("the run goes on") == 1


def refuse(path):
    raise UserError("cannot write: No space left on device")
