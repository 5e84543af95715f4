"""How far work is: a bar that is repainted on a terminal, lines elsewhere; what a wait is for."""

import io
import sys
import threading
import time

import pytest
from command import BAR
from small_runs import RUN, code_set

from rvq_jax import progress
from rvq_jax.study import models


class Stream(io.StringIO):
    """Standard error, a terminal or not."""

    def __init__(self, terminal: bool):
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def stderr(monkeypatch):
    def become(terminal: bool) -> Stream:
        stream = Stream(terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return become


def test_on_a_terminal_one_line_is_repainted(stderr):
    stream = stderr(True)
    assert list(progress.bar(range(5), desc="work", mininterval=0)) == [*range(5)]
    assert stream.getvalue().count("\r") >= 5 and "|" in stream.getvalue()


@pytest.mark.parametrize("every", [0.0, 1e6])
def test_elsewhere_there_are_whole_lines_now_and_then(stderr, monkeypatch, every):
    """Each is told from others by `BAR`; the last says that all is done."""
    stream = stderr(False)
    monkeypatch.setattr(progress, "EVERY", every)
    assert list(progress.bar(range(200), desc="some work", unit="clip")) == [*range(200)]
    text = stream.getvalue()
    lines = text.splitlines()
    assert text.endswith("\n") and "\r" not in text and "" not in lines
    assert all(BAR.match(line) for line in lines) and lines[-1].startswith(
        "some work: 100% 200/200"
    )
    assert len(lines) == len(set(lines)) and (len(lines) > 50 if every == 0 else len(lines) == 2)


def test_a_form_of_ones_own_loses_its_bar(stderr):
    stream = stderr(False)
    with progress.bar(total=4.6, desc="x", bar_format="{desc}:|{bar}| {n:.1f}/{total:.1f}") as bar:
        bar.update(4.6)
    assert stream.getvalue().splitlines() == ["x: 0.0/4.6", "x: 4.6/4.6"]


def test_a_warning_is_a_line_between_them(stderr):
    stream = stderr(False)
    for i in progress.bar(range(3), desc="x"):
        if i == 1:
            progress.say("look\nhere")
    assert "rvq-jax: look here" in stream.getvalue().splitlines()


@pytest.mark.parametrize("lost", [None, "closed"])
def test_nobody_who_looks_stops_no_work(monkeypatch, lost):
    stream = Stream(False)
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream if lost else None)
    assert list(progress.bar(range(3))) == [0, 1, 2]
    progress.say("x")


def test_a_long_first_step_says_what_it_compiles_once(stderr, monkeypatch):
    stream = stderr(False)
    monkeypatch.setattr(progress, "PATIENCE", 0.02)
    monkeypatch.setattr(progress, "_begun", set())
    for _ in range(2):
        with progress.compiling("the first update", "delay, 3 M parameters"):
            time.sleep(0.2)
    lines = stream.getvalue().splitlines()
    assert lines == ["rvq-jax: compiling for the first update on cpu: delay, 3 M parameters"]


def test_a_short_one_says_nothing(stderr, monkeypatch):
    """Nor does one that fails; no thread is left."""
    stream = stderr(False)
    monkeypatch.setattr(progress, "PATIENCE", 0.3)
    monkeypatch.setattr(progress, "_begun", set())
    before = threading.active_count()
    with progress.compiling("a", "b"):
        pass
    with pytest.raises(KeyError), progress.compiling("c", "d"):
        raise KeyError
    time.sleep(0.4)
    assert stream.getvalue() == "" and threading.active_count() == before


def test_a_sweep_counts_its_models(monkeypatch, tmp_path):
    """Before anything is trained: the labels of the bars."""
    labels = []

    def train(*args, label, **options):
        labels.append(label)
        raise InterruptedError

    monkeypatch.setattr(models, "train_lm", train)
    with pytest.raises(InterruptedError):
        names = ("delay", "flatten")
        models.train_and_score(tmp_path, None, code_set(), code_set(), RUN, names, (3, 4))
    assert labels == ["model 1 of 4 delay seed 3"] and BAR.match(f"{labels[0]}:   0% 0/6")
