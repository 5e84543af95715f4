"""Batches by processes: the same ones whatever their number, and none of them outlives its run."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from refusals import refused

from rvq_jax.data import builder, loader, workers
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError

RATE, SAMPLES, BATCH = 1000, 300, 3


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    place = tmp_path_factory.mktemp("workers")
    (place / "audio").mkdir()
    for i, length in enumerate([900, 200, 1500, 700, 310]):
        audio = np.random.default_rng(i).normal(0, 0.1, length)
        soundfile.write(place / f"audio/{i}.wav", audio, RATE)
    return builder.open_split(builder.build(place / "audio", place / "d", RATE), "train")


@pytest.fixture
def kinds(records):
    """Sources and cuts: of audio as of codes."""
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 9, (2, length)).astype(np.int32) for length in (30, 9, 40)]
    code_set = CodeSet(codes, ["a", "b", "c"], ["slow", "", "né"], [""] * 3, 50.0, 9)
    return {
        "audio": (records, loader.cut_audio(SAMPLES)),
        "codes": (code_set, loader.cut_codes(12, 6)),
    }


def some(count: int, iterator) -> list[dict]:
    return list(itertools.islice(iterator, count))


def same(left: list[dict], right: list[dict]) -> None:
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name])


def pids(batches) -> list[int]:
    return [worker.process.pid for worker, slot in batches.asked if slot == 0]


def gone(pid: int, seconds: float = 20.0) -> bool:
    """Whether a process ends in that time, a zombie that nobody waits for counted as one."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("kind", ["audio", "codes"])
def test_batches_and_states_are_those_of_one_process(kinds, kind):
    source, cut = kinds[kind]
    plain = loader.batches(source, cut, BATCH, 5)
    want = some(9, plain)
    for count in (1, 4):
        batches = loader.batches(source, cut, BATCH, 5, workers=count)
        assert batches.get_state() == loader.batches(source, cut, BATCH, 5).get_state()
        same(some(9, batches), want)
        assert batches.get_state() == plain.get_state()
        batches.close()


def test_a_run_goes_on_with_another_number(kinds):
    """From any number to any other, of the same rows; also back to where it has been."""
    source, cut = kinds["audio"]
    rows = np.array([0, 2])
    want = some(8, loader.batches(source, cut, BATCH, 1, rows))
    made = {n: loader.batches(source, cut, BATCH, 1, rows, n) for n in (0, 1, 2)}
    for before, after in ((0, 2), (2, 0), (2, 1)):
        made[before].set_state({"next_index": 2})
        same(some(2, made[before]), want[2:4])
        made[after].set_state(made[before].get_state())
        same(some(2, made[after]), want[4:6])


def test_a_batch_stays_as_it_was_taken(kinds):
    """What a process writes next is another batch."""
    source, cut = kinds["audio"]
    batches = loader.batches(source, cut, BATCH, 0, workers=1)
    taken = some(6, batches)
    kept = [{name: value.copy() for name, value in batch.items()} for batch in taken]
    some(6, batches)
    same(taken, kept)


def test_processes_read_no_jax(kinds):
    """It takes a second and 150 MB of each."""
    for source, cut in kinds.values():

        def told(record, rng, cut=cut):
            import sys

            return cut(record, rng) | {"jax": np.array("jax" in sys.modules)}

        batches = loader.batches(source, told, BATCH, 0, workers=1)
        assert next(batches)["jax"].all() and not next(batches)["jax"].any()


def test_arrays_of_other_shapes_come_too():
    """Not by shared memory, which has room for those of the first batch."""

    def cut(record, rng):
        return {"x": np.full(record + 1, record), "y": np.array(record)}

    want = some(6, loader.batches(range(4), cut, 1, 0))
    same(some(6, loader.batches(range(4), cut, 1, 0, workers=2)), want)


def test_batches_of_other_names_are_refused():
    """Else what was there before would stand for what is missing."""

    def cut(record, rng):
        return {"x": np.array(record)} | ({} if record else {"y": np.array(0)})

    batches = loader.batches(range(2), cut, 1, 1, workers=1)
    with pytest.raises(ValueError, match="where the first was of"):
        some(4, batches)


def test_an_error_of_a_record_is_raised_as_it_is():
    def cut(record, rng):
        if record == 3:
            raise UserError("record 3 is damaged")
        return {"x": np.array(record)}

    batches = loader.batches(range(5), cut, 1, 0, workers=2)
    for _ in range(2):  # and again where it is asked for again
        refused(lambda: some(5, batches), "record 3 is damaged")
        assert batches.get_state() == {"next_index": batches.at}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_asks_a_run_to_save_does_not_end_its_processes(kinds, number):
    source, cut = kinds["audio"]
    batches = loader.batches(source, cut, BATCH, 0, workers=2)
    got = some(4, batches)
    for pid in pids(batches):
        os.kill(pid, number)
    same(got + some(4, batches), some(8, loader.batches(source, cut, BATCH, 0)))


def test_a_process_that_is_killed_is_one_line(kinds):
    source, cut = kinds["audio"]
    batches = loader.batches(source, cut, BATCH, 0, workers=2)
    some(2, batches)
    first, other = sorted(pids(batches))
    os.kill(first, signal.SIGKILL)
    refused(lambda: some(9, batches), "SIGKILL", "--workers")
    assert gone(other)
    state = batches.get_state()["next_index"]  # and the next go on
    same(some(2, batches), some(state + 2, loader.batches(source, cut, BATCH, 0))[state:])


def test_processes_end_with_their_iterator(kinds):
    source, cut = kinds["audio"]
    batches = loader.batches(source, cut, BATCH, 0, workers=2)
    next(batches)
    ended = pids(batches)
    assert len(ended) == 2
    del batches
    assert all(gone(pid, 1) for pid in ended)


SCRIPT = """
import numpy as np, os, sys, time
from rvq_jax.data import loader
batches = loader.batches(range(9), lambda record, rng: {"x": np.array(record)}, 2, 0, workers=2)
next(batches), next(batches)
print(*{worker.process.pid for worker, _ in batches.asked}, flush=True)
{END}
"""


@pytest.mark.parametrize("end", ["time.sleep(60)", "os._exit(1)", "sys.exit()", "raise OSError"])
def test_no_process_outlives_its_run(end):
    """Killed, left at once, at its end, in an error: as a script, all of it at its top level."""
    script = SCRIPT.replace("{END}", end)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        started = [int(word) for word in run.stdout.readline().split()]
        if "sleep" in end:
            run.kill()
        said = run.communicate()[1]
    assert len(started) == 2
    assert all(gone(pid) for pid in started)
    assert "OSError" in said if "raise" in end else not said


def test_memory_holds_a_batch_of_nothing():
    spec = {"a": ((0, 3), np.dtype("f4")), "b": ((2,), np.dtype(bool)), "c": ((), np.dtype("i8"))}
    with workers.memory(workers.DEPTH * sum(map(workers.room, spec.values()))) as shared:
        made = workers.slots(shared, spec)
    for slot in made:
        assert {name: (x.shape, x.dtype) for name, x in slot.items()} == spec
    made[0]["b"][:] = True
    assert not made[1]["b"].any() and not made[0]["c"]
