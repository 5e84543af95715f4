"""A run's folder with things of others in it: none of them goes, none is written into."""

import os
import shutil
from pathlib import Path

import pytest
from small_runs import RECORDS, TUNING, bits_of, one_device, point_task, points

from rvq_jax.errors import UserError
from rvq_jax.train import guards
from rvq_jax.train.checkpoint import METADATA, Checkpoints
from rvq_jax.train.loop import LoopConfig, fit
from rvq_jax.train.state import make_program

OTHERS = "of others"


@pytest.fixture(scope="module")
def program():
    return make_program(point_task(), TUNING, 8, one_device())


@pytest.fixture(scope="module")
def run(program, tmp_path_factory):
    """A run of four updates, and a function that goes on to more."""
    folder = tmp_path_factory.mktemp("run")

    def go(folder: Path, steps: int, **options):
        config = LoopConfig(steps=steps, log_every=1, checkpoint_every=2, **options)
        return fit(folder, point_task(), points(RECORDS), config, TUNING, program=program)

    go(folder, 4)
    whole = tmp_path_factory.mktemp("whole")
    return folder, go, bits_of(go(whole, 8))


def held(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(OTHERS)
    return path


# Files of others in a folder of checkpoints.
NAMES = ("precious/song.wav", "2024/song.wav", "007/song.wav", "4.backup/song.wav", "notes.txt")
NAMES += (".hidden/song.wav", "run.orbax-checkpoint-tmp/song.wav", "²/song.wav", "².json")
NAMES += ("2024.orbax-checkpoint-tmp.old/song.wav", "07.json", "-1.json", "x.json", "4.jsonx")
NAMES += ("4.damaged/song.wav", "4.json.damaged", "99999999999999999999/x", "old/4/x", "\udcff/x")


def test_nothing_of_others_goes(run, tmp_path):
    """While checkpoints are damaged, restored, saved and forgotten around them."""
    source, go, bits = run
    place = tmp_path / "run"
    shutil.copytree(source, place)
    kept = [held(place / "checkpoints", name) for name in NAMES]
    kept += [held(tmp_path / "elsewhere", name) for name in ("song.wav", METADATA)]
    for link in ("3", "9", "9.orbax-checkpoint-tmp", "1.orbax-checkpoint-tmp-3"):
        (place / "checkpoints" / link).symlink_to(tmp_path / "elsewhere")
    next((place / "checkpoints" / "4").rglob("manifest.ocdbt")).write_bytes(b"")
    assert bits_of(go(place, 8)) == bits
    assert [path for path in kept if path.read_text() != OTHERS] == []
    assert (place / "checkpoints" / "9").is_symlink()
    with Checkpoints(place / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [6, 8]


@pytest.mark.parametrize("kind", ["folder", "file", "link", "note"])
def test_what_stands_where_a_checkpoint_goes_is_put_aside(run, tmp_path, capsys, kind):
    """orbax would delete it, or follow it."""
    source, go, bits = run
    place = tmp_path / "run"
    shutil.copytree(source, place)
    elsewhere = held(tmp_path / "elsewhere", "song.wav")
    folder = place / "checkpoints"
    match kind:
        case "folder":
            held(folder, "6/song.wav")
        case "file":
            held(folder, "6")
        case "link":
            (folder / "6").symlink_to(tmp_path / "elsewhere")
        case "note":
            held(folder, "6.json")
    assert bits_of(go(place, 8)) == bits
    assert elsewhere.read_text() == OTHERS
    aside = folder / ("6.json.damaged" if kind == "note" else "6.damaged")
    assert (aside / "song.wav" if aside.is_dir() else aside).read_text() == OTHERS
    assert str(folder / "6") in capsys.readouterr().err


def test_checkpoints_behind_a_link_are_kept_as_few_as_elsewhere(run, tmp_path):
    """But what a killed save left, or others, is not cleared through it."""
    source, go, bits = run
    place = tmp_path / "run"
    shutil.copytree(source, place)
    (place / "checkpoints").rename(tmp_path / "disk")
    (place / "checkpoints").symlink_to(tmp_path / "disk")
    kept = [held(tmp_path / "disk", name) for name in NAMES]
    (tmp_path / "disk" / "5.orbax-checkpoint-tmp").mkdir()
    assert bits_of(go(place, 8)) == bits
    assert [path for path in kept if path.read_text() != OTHERS] == []
    assert (tmp_path / "disk" / "5.orbax-checkpoint-tmp").exists()
    assert not (tmp_path / "disk" / "2").exists() and (tmp_path / "disk" / "8").exists()


def test_a_checkpoint_is_put_aside_as_often_as_it_is_damaged(run, tmp_path, capsys):
    source, go, _ = run
    place = tmp_path / "run"
    shutil.copytree(source, place)
    for _ in range(3):
        next((place / "checkpoints" / "4").rglob("manifest.ocdbt")).write_bytes(b"damaged")
        assert bits_of(go(place, 4)) == bits_of(go(source, 4))
        assert "put aside" in capsys.readouterr().err
    found = {path.name for path in (place / "checkpoints").iterdir()}
    assert {"4.damaged", "4.damaged.2", "4.damaged.3", "4.json.damaged.3"} <= found


def test_with_all_damaged_no_start_begins_anew(run, tmp_path):
    """Not the second one either, as if there had never been any."""
    source, go, _ = run
    place = tmp_path / "run"
    shutil.copytree(source, place)
    for path in (place / "checkpoints").rglob("manifest.ocdbt"):
        path.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(UserError, match=r"no checkpoint in .* is whole"):
            go(place, 8)


def test_a_damaged_note_of_one_to_forget_stops_no_run_and_is_not_deleted(run, tmp_path):
    source, go, _ = run
    place = tmp_path / "run"
    shutil.copytree(source, place)
    held(place / "checkpoints", "2.json")
    assert int(go(place, 8, result="best").step) in (4, 6, 8)
    assert any(path.read_text() == OTHERS for path in (place / "checkpoints").glob("2.json*"))


# The lock.


def link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def hard_link(path: Path, target: Path) -> None:
    path.hardlink_to(target)


def dangling(path: Path, target: Path) -> None:
    path.symlink_to(target.with_name("nowhere"))


def folder(path: Path, target: Path) -> None:
    path.mkdir()


def pipe(path: Path, target: Path) -> None:
    os.mkfifo(path)


def own(path: Path, target: Path) -> None:
    path.write_text(OTHERS)


def device(path: Path, target: Path) -> None:
    path.symlink_to("/dev/null")


LOCKS = (link, hard_link, dangling, folder, pipe, own, device)


@pytest.mark.parametrize("make", LOCKS, ids=lambda make: make.__name__)
def test_a_lock_that_is_none_is_told_and_stays(tmp_path, make):
    target = held(tmp_path, "other")
    (tmp_path / "run").mkdir()
    make(tmp_path / "run" / "lock", target)
    with pytest.raises(UserError, match="lock"), guards.alone(tmp_path / "run"):
        pytest.fail("the run was begun")
    assert target.read_text() == OTHERS and not (tmp_path / "nowhere").exists()
    assert os.path.lexists(tmp_path / "run" / "lock")


@pytest.mark.parametrize("before", [b"", b"\0" * 40, b"process 12 on here\n", b"process 12"])
def test_what_a_lock_was_before_does_not_matter(tmp_path, before):
    (tmp_path / "lock").write_bytes(before)
    for _ in range(2):
        with guards.alone(tmp_path):
            assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
