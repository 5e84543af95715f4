"""Checkpoints: damage is found before it does harm, and what cannot be written is told."""

import errno
import json
import random
import shutil
from pathlib import Path

import jax
import pytest
from orbax.checkpoint import v1 as ocp
from small_runs import RUN, TUNING, bits_of, code_set, lm_parts, log_of, one_device
from tiers import slow, wide

from rvq_jax.errors import UserError
from rvq_jax.train import runs, sharding
from rvq_jax.train.checkpoint import Checkpoints
from rvq_jax.train.loop import LoopConfig, fit
from rvq_jax.train.state import abstract_state, make_program


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with two checkpoints: its folder, what to restore into, and the bits of each."""
    task, batches = lm_parts()
    config = LoopConfig(steps=4, checkpoint_every=2)
    folder = tmp_path_factory.mktemp("run")
    fit(folder, task, batches(), config, TUNING)
    like = abstract_state(task, TUNING, config.steps, one_device())
    bits = {}
    for step in (4, 2):
        with Checkpoints(folder / "checkpoints") as checkpoints:
            state, note = checkpoints.restore(like)
        assert note.step == step and note.data == {"next_index": step}
        bits[step] = bits_of(state)
        copy = folder / f"with {step}"
        shutil.copytree(folder / "checkpoints", copy)
        (folder / "checkpoints" / f"{step}.json").unlink()
    assert bits[2] != bits[4]
    return folder / "with 4", like, bits


def damage(rng: random.Random, folder: Path, step: int) -> tuple[Path, str]:
    """One file of a checkpoint, its note among them, with bytes flipped, cut short or removed."""
    files = [path for path in (folder / str(step)).rglob("*") if path.is_file()]
    path = rng.choice([*sorted(files), folder / f"{step}.json"])
    how, data = rng.choice(["flip", "cut", "remove"]), bytearray(path.read_bytes())
    if how == "remove" or not data:
        path.unlink()
        return path, "remove"
    if how == "cut":
        del data[rng.randrange(len(data)) :]
    else:
        for _ in range(rng.choice([1, 1, 8])):
            data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    path.write_bytes(data)
    return path, how


@pytest.mark.parametrize("count", [6, slow(25), wide(200)])
def test_damaged_checkpoints_are_found_or_harmless(run, tmp_path, capsys, count):
    """Whatever is done to the newest, the state restored is its own, to the bit, or that of the one
    before, and then the damaged file is named; a checkpoint without its note was never finished."""
    source, like, bits = run
    rng, found = random.Random(0), {2: 0, 4: 0}
    for i in range(count):
        place = tmp_path / str(i)
        shutil.copytree(source, place)
        path, how = damage(rng, place, 4)
        with Checkpoints(place) as checkpoints:
            state, note = checkpoints.restore(like)
        assert bits_of(state) == bits[note.step], (path, how)
        said = capsys.readouterr().err
        if note.step == 2 and (path.name, how) != ("4.json", "remove"):
            assert str(path) in said and said.count("\n") == 1
        found[note.step] += 1
        shutil.rmtree(place)
    assert found[2] > 0.9 * count, found


def test_with_all_damaged_nothing_is_restored(run, tmp_path):
    """To begin anew would throw the work away: that is for a person to say."""
    source, like, _ = run
    shutil.copytree(source, tmp_path / "all")
    for step in (2, 4):
        next((tmp_path / "all" / str(step)).rglob("manifest.ocdbt")).write_bytes(b"")
    with (
        Checkpoints(tmp_path / "all") as checkpoints,
        pytest.raises(UserError, match=r"no checkpoint in .* is whole .*delete the folder"),
    ):
        checkpoints.restore(like)


def test_what_was_never_finished_is_cleared(run, tmp_path):
    """Folders of a save that a kill ended, with orbax's own names for them."""
    source, like, bits = run
    place = tmp_path / "checkpoints"
    shutil.copytree(source, place)
    (place / "6.orbax-checkpoint-tmp-17").mkdir()
    (place / "6").mkdir()
    with Checkpoints(place) as checkpoints:
        state, _ = checkpoints.restore(like)
    assert bits_of(state) == bits[4]
    assert sorted(path.name for path in place.iterdir()) == ["2", "2.json", "4", "4.json"]


def test_a_folder_that_cannot_be_written_to_is_told_before_training(tmp_path):
    """Where the kernel allows no file: also root is refused."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to("/proc/self/fdinfo")
    with pytest.raises(UserError, match=r"cannot write .*checkpoints"):
        runs.train_lm(tmp_path / "run", code_set(), RUN)
    with pytest.raises(UserError, match="cannot write"):
        runs.train_lm("/proc/self/fdinfo/run", code_set(), RUN)


@pytest.fixture(scope="module")
def program():
    return make_program(lm_parts()[0], TUNING, 6, one_device())


@pytest.mark.parametrize("failing", [slow([1]), slow([2]), [1, 2]])
def test_a_full_disk_costs_a_checkpoint_alone(program, tmp_path, monkeypatch, capsys, failing):
    """The run goes on, tells, and saves again; what was saved before stays. Only a last checkpoint
    that cannot be written ends it, as a mistake."""
    task, batches = lm_parts()
    config = LoopConfig(steps=6, log_every=1, checkpoint_every=2)
    save, saves = ocp.save_async, []

    def full(place, state, **options):
        saves.append(place)
        if len(saves) in failing:
            # Some of it is there, as of a disk that fills up on the way.
            place.with_name(place.name + ".orbax-checkpoint-tmp-0").mkdir()
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(place, state, **options)

    monkeypatch.setattr(ocp, "save_async", full)
    state = fit(tmp_path, task, batches(), config, TUNING, program=program)
    said = capsys.readouterr().err
    assert said.count("No space left on device; the run goes on without it") == len(failing)
    assert int(state.step) == 6 and [line["step"] for line in log_of(tmp_path)] == [*range(1, 7)]
    want = [step for i, step in enumerate((2, 4, 6), 1) if i not in failing][-config.keep :]
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps() == want
        again, _ = checkpoints.restore(state)
    assert bits_of(again) == bits_of(state)
    # A fourth save, of a longer run, that fails: it is the last.
    failing.append(4)
    longer = LoopConfig(steps=7, log_every=1, checkpoint_every=100)
    with pytest.raises(UserError, match=r"cannot write .*/7: No space left on device"):
        fit(tmp_path, task, batches(), longer, TUNING, program=program)
    assert Checkpoints(tmp_path / "checkpoints").latest() == 6


def test_a_note_says_what_the_files_are(run):
    """Every file of a checkpoint is in its note: none can change unseen."""
    source, _, _ = run
    fields = json.loads((source / "4.json").read_text())
    files = [path for path in (source / "4").rglob("*") if path.is_file()]
    there = {path.relative_to(source / "4").as_posix() for path in files}
    assert fields["files"].keys() == there and len(there) > 3


def test_a_checkpoint_is_of_any_mesh(run):
    """Restored in pieces onto eight devices it holds the same bits."""
    source, _, bits = run
    task, _ = lm_parts()
    like = abstract_state(task, TUNING, 4, sharding.make_mesh(2, 2, 2))
    with Checkpoints(source) as checkpoints:
        state, _ = checkpoints.restore(like)
    assert bits_of(state) == bits[4]
    for got, want in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True):
        assert got.sharding == want.sharding
