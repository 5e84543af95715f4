"""Places that are written to: refused before the work, and nothing of others goes."""

import errno
import os
import socket
import subprocess
from pathlib import Path

import pytest
from refusals import refused

from rvq_jax import files, opening
from rvq_jax.errors import UserError

OTHERS = "of others"


def under_a_file(place: Path) -> Path:
    (place / "file").write_text(OTHERS)
    return place / "file" / "out.wav"


def long_name(place: Path) -> Path:
    return place / f"{'x' * 252}.wav"


def name_with_a_nul(place: Path) -> Path:
    return place / "a\0b.wav"


def pipe(place: Path) -> Path:
    os.mkfifo(place / "out.wav")
    return place / "out.wav"


def unix_socket(place: Path) -> Path:
    here = os.getcwd()
    os.chdir(place)  # its names are short
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("out.wav")
    os.chdir(here)
    return place / "out.wav"


def device(place: Path) -> Path:
    return Path("/dev/full")


def folder(place: Path) -> Path:
    (place / "out.wav" / "inside").mkdir(parents=True)
    return place / "out.wav"


def link_to_folder(place: Path) -> Path:
    (place / "real").mkdir()
    (place / "out.wav").symlink_to("real")
    return place / "out.wav"


def loop(place: Path) -> Path:
    (place / "loop").symlink_to("loop")
    return place / "loop" / "out.wav"


def no_proc(place: Path) -> Path:
    return Path("/proc/self/fdinfo/out.wav")


def file(place: Path) -> Path:
    (place / "out").write_text(OTHERS)
    return place / "out"


def link_to_nothing(place: Path) -> Path:
    (place / "out").symlink_to("nowhere")
    return place / "out"


def held(place: Path, name: str) -> Path:
    """A folder with a file of that name."""
    (place / "out" / name).parent.mkdir(parents=True)
    (place / "out" / name).write_text(OTHERS)
    return place / "out"


NO_FILE = (under_a_file, long_name, pipe, unix_socket, device, folder, link_to_folder, loop)
NO_FILE += (no_proc, name_with_a_nul)
NO_FOLDER = (
    under_a_file,
    long_name,
    name_with_a_nul,
    pipe,
    device,
    loop,
    no_proc,
    file,
    link_to_nothing,
)
STRANGERS = ("thesis.txt", ".hidden", "codec/thesis.txt", "config.json/inside", "x.safetensors")


def entries(place: Path) -> list[str]:
    return sorted(f"{path.relative_to(place)}" for path in place.rglob("*"))


def refuses(check, writing, path: Path, place: Path) -> None:
    """Both do, before the block, and leave nothing."""
    before = entries(place)
    refused(lambda: check(path), str(path)[:40])
    with pytest.raises(UserError), writing(path):
        pytest.fail("the work was begun")
    assert entries(place) == before


@pytest.mark.parametrize("make", NO_FILE, ids=lambda make: make.__name__)
def test_where_no_file_can_be_is_told_before_the_work(tmp_path, make):
    refuses(files.check_file, files.writing, make(tmp_path), tmp_path)


@pytest.mark.parametrize("make", NO_FOLDER, ids=lambda make: make.__name__)
def test_where_no_folder_can_be_is_told_before_the_work(tmp_path, make):
    refuses(files.check_folder, files.writing_folder, make(tmp_path), tmp_path)


@pytest.mark.parametrize("name", STRANGERS)
def test_a_folder_of_others_is_no_place_for_a_model(tmp_path, name):
    refuses(files.check_folder, files.writing_folder, held(tmp_path, name), tmp_path)


def write_model(path: Path, name: str = "weights.npz") -> None:
    with files.writing_folder(path) as place:
        (place / name).write_text("new")
        (place / "config.json").write_text("new")
        with files.writing_folder(place / "codec") as part:
            (part / "config.json").write_text("new")


NEW = ["codec", "codec/config.json", "config.json", "weights.npz"]


@pytest.mark.parametrize("name", ["x", "x" * 255, "ünï", "a b", "\udcff"], ids=len)
def test_any_legal_name_is_a_place(tmp_path, name):
    """Also one that leaves no room for a longer name beside it; parents are made."""
    place = tmp_path / "new" / "newer"
    files.check_file(place / name)
    assert entries(tmp_path) == []
    with files.writing(place / name) as path:
        assert path.suffix == Path(name).suffix
        path.write_text("new")
    assert (place / name).read_text() == "new"
    write_model(place / "models" / name)
    assert not [x for x in entries(tmp_path) if files.TEMPORARY in x]


@pytest.mark.parametrize("target", ["other.wav", "nowhere.wav", "/dev/full"])
def test_a_link_is_replaced_and_not_followed(tmp_path, target):
    (tmp_path / "other.wav").write_text(OTHERS)
    (tmp_path / "out.wav").symlink_to(target)
    with files.writing(tmp_path / "out.wav") as path:
        path.write_text("new")
    assert (tmp_path / "out.wav").read_text() == "new"
    assert (tmp_path / "other.wav").read_text() == OTHERS
    assert entries(tmp_path) == ["other.wav", "out.wav"]


def mounted(place: Path) -> Path | None:
    """A mount point, None where none can be made."""
    (place / "mount").mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(place / "mount")]
    done = subprocess.run(words, capture_output=True) if os.getuid() == 0 else None
    return place / "mount" if done and done.returncode == 0 else None


@pytest.mark.parametrize("how", ["empty", "old", "link", "mount", "killed", "here"])
def test_a_folder_that_is_there_is_written_into(tmp_path, monkeypatch, how):
    """It stays the folder it is; what an older model left goes, a link inside is not followed."""
    out = tmp_path / "out"
    if how == "mount" and (out := mounted(tmp_path)) is None:
        pytest.skip("mounting needs rights")
    try:
        if how != "mount":
            out.mkdir()
        inode = out.stat().st_ino
        if how == "old":
            for name in ("config.json", "model.safetensors", "spiece.model"):
                (out / name).write_text("old")
            (tmp_path / "shared").mkdir()
            (tmp_path / "shared" / "config.json").write_text(OTHERS)
            (out / "codec").symlink_to("../shared")
        if how == "killed":
            (out / f"{files.TEMPORARY}12345678").mkdir()
        if how == "link":
            (tmp_path / "link").symlink_to("out")
        if how == "here":
            monkeypatch.chdir(out)
        write_model({"link": tmp_path / "link", "here": Path(".")}.get(how, out))
        assert out.stat().st_ino == inode
        assert [x for x in entries(out) if files.TEMPORARY not in x] == NEW
        if how == "old":
            assert (tmp_path / "shared" / "config.json").read_text() == OTHERS
        assert how != "link" or (tmp_path / "link").is_symlink()
    finally:
        if how == "mount":
            subprocess.run(["umount", str(out)], check=True)


@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "No space"), ValueError("no")])
def test_an_error_leaves_all_as_it_was(tmp_path, problem):
    write_model(tmp_path / "out")
    (tmp_path / "a.wav").write_text("old")
    before = entries(tmp_path)
    for writing, name in ((files.writing, "a.wav"), (files.writing, "new/b.wav")):
        with pytest.raises((UserError, ValueError)), writing(tmp_path / name) as path:
            path.write_text("half")
            raise problem
    for name in ("out", "new/out"):
        with pytest.raises((UserError, ValueError)), files.writing_folder(tmp_path / name) as place:
            (place / "config.json").write_text("half")
            raise problem
    assert entries(tmp_path) == before
    assert (tmp_path / "a.wav").read_text() == "old"
    assert (tmp_path / "out" / "config.json").read_text() == "new"


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV])
def test_a_file_that_cannot_be_replaced_takes_the_bytes(tmp_path, monkeypatch, code):
    """As of a file that a container mounts; and what came after the check is not taken away."""
    out = tmp_path / "out.wav"
    out.write_text("old and longer")

    def refuse(source, target):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    inode = out.stat().st_ino
    with files.writing(out) as path:
        path.write_text("new")
    assert out.read_text() == "new" and out.stat().st_ino == inode
    (tmp_path / "other.wav").write_text(OTHERS)
    (tmp_path / "link.wav").symlink_to("other.wav")
    with pytest.raises(UserError), files.writing(tmp_path / "link.wav") as path:
        path.write_text("new")
    assert (tmp_path / "other.wav").read_text() == OTHERS


def test_what_came_while_the_work_was_done_stays(tmp_path):
    with files.writing_folder(tmp_path / "out") as place:
        (place / "config.json").write_text("new")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text(OTHERS)
    assert entries(tmp_path / "out") == ["config.json", "thesis.txt"]


def test_set_aside_finds_a_free_name(tmp_path):
    for count in range(3):
        (tmp_path / "4").mkdir()
        (tmp_path / "4" / str(count)).touch()
        files.set_aside(tmp_path / "4")
    assert entries(tmp_path) == ["4.damaged", "4.damaged.2", "4.damaged.2/1", "4.damaged.3",
                                 "4.damaged.3/2", "4.damaged/0"]  # fmt: skip


def test_only_files_are_read_and_not_without_end(tmp_path):
    """A pipe would be waited for, a device has no end."""
    (tmp_path / "long").write_bytes(b"x" * 11)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "long", tmp_path / "pipe", "/dev/zero", tmp_path, tmp_path / "gone"):
        with pytest.raises(OSError):
            opening.read_bytes(path, 10)
    assert opening.read_bytes(tmp_path / "long", 11) == b"x" * 11
