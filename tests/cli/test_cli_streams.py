"""Standard streams that are closed, full, endless or narrow, and errors that no command foresaw."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import soundfile
from command import RATE, run, tone

from rvq_jax import cli, files
from rvq_jax.cli import terminal
from rvq_jax.errors import UserError
from rvq_jax.offline import encode_file
from rvq_jax.screen import Screen

CODEC = Path(__file__).parents[1] / "fixtures" / "codecs" / "dac"
INFO = ["info", str(CODEC)]


def said_once(capsys) -> str:
    """The one line of standard error, which is short and can be seen."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rvq-jax: ") and len(line) < 300 and line.isprintable()
    return line


# Errors that no command foresaw.


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left"),
        (OSError(errno.EIO, "Input/output error", "a\x1b[31m\nb"), r"a\x1b[31m b: Input/output"),
        (OSError("x" * 5000), "xxx"),
        (PermissionError(errno.EACCES, "Permission denied", "a.wav"), "a.wav: Permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "gone"), "gone: No such"),
        (MemoryError(), "out of memory"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 3 GB\nof"), "out of memory"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (UserError("a\nb" * 500), "a b"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Exception) else "",
)
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_last_line_of_every_command(capsys, monkeypatch, name, error, words):
    def fails(*args, **options):
        raise error

    monkeypatch.setattr(cli, "parse", fails)
    assert cli.main(name.split()) == 2
    assert words in said_once(capsys)


def test_a_pipe_that_nobody_reads_is_nothing_to_speak_of(capsys, monkeypatch):
    def fails(*args, **options):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(cli, "parse", fails)
    assert cli.main(INFO) == 2 and capsys.readouterr().err == ""


def test_a_mistake_of_this_program_is_not_hidden(monkeypatch):
    def fails(*args, **options):
        raise KeyError("x")

    monkeypatch.setattr(cli, "parse", fails)
    with pytest.raises(KeyError):
        cli.main(INFO)


# Standard output.


@pytest.mark.parametrize("words", [INFO, [*INFO, "--json"], ["--help"], [], ["info", "--help"]])
@pytest.mark.parametrize("buffering", [1, -1])
def test_a_full_output_is_told_once(capsys, monkeypatch, words, buffering):
    """Whether it is found when a line is printed, or at the end."""
    full = open("/dev/full", "w", buffering=buffering)
    monkeypatch.setattr(sys, "stdout", full)
    assert cli.main(words) == 2
    assert "No space left on device" in said_once(capsys)
    monkeypatch.undo()
    full.close()  # `flush` put something else behind it, or this would fail


@pytest.mark.parametrize("words", [INFO, [*INFO, "--json"], []])
def test_a_closed_output_is_no_error(capsys, monkeypatch, words):
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(words) == 0 and capsys.readouterr().err == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_letters_that_an_output_lacks_are_escapes(monkeypatch, tmp_path, encoding):
    """Of help, and of names that are no text or hold control codes."""
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", output)
    out = tmp_path / "\udcff\x1b[31m\u2026"
    assert cli.main(["--help"]) == 0
    assert cli.main(["info", "--help"]) == 0
    assert cli.main(["export", str(CODEC), "--out", str(out)]) == 0
    said = output.buffer.getvalue().decode(encoding)
    assert "teaches more" in said and r"\udcff\x1b[31m" in said and "\x1b[31m" not in said
    monkeypatch.undo()


@pytest.mark.parametrize("columns", ["0", "1", "5", "39", "x"])
def test_help_ends_however_narrow_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert run(capsys, "info", "--help")[0] == 0
    assert cli.main(["info", "--paht", "x"]) == 2


# Standard input.


@pytest.fixture
def wav(tmp_path) -> Path:
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    return tmp_path / "a.wav"


ENCODE = ["encode", "-", "OUT.rvq", "--codec", str(CODEC)]
DECODE = ["decode", "-", "OUT.wav", "--codec", str(CODEC)]
PROMPTS = ["generate", "--model", "M", "--prompts", "-", "--out", "OUT.wav"]


class Endless(io.RawIOBase):
    """A pipe that goes on as it began."""

    def __init__(self, begin: bytes, most: int):
        self.begin, self.left = begin, most

    def readable(self):
        return True

    def readinto(self, buffer) -> int:
        self.left -= len(buffer)
        if self.left < 0:
            pytest.fail("read without end")
        part = self.begin[: len(buffer)].ljust(len(buffer), b"\0")
        buffer[:], self.begin = part, self.begin[len(buffer) :]
        return len(buffer)


def piped(monkeypatch, stream) -> None:
    monkeypatch.setattr(sys, "stdin", stream and io.TextIOWrapper(io.BufferedReader(stream)))


@pytest.mark.parametrize("words", [ENCODE, DECODE, PROMPTS], ids=lambda words: words[0])
@pytest.mark.parametrize("kind", ["closed", "zeros", "noise", "folder", "text"])
def test_an_input_that_is_none_is_one_line(capsys, monkeypatch, tmp_path, words, kind):
    """In bounded time and memory, with nothing left; captions are text, which a model reads."""
    stream = {
        "closed": None,
        "zeros": Endless(b"", 64 << 20),
        "noise": Endless(b"\xfe\xff" * (32 << 20), 64 << 20),
        "folder": Endless(b"", 64 << 20),
        "text": Endless(b"words " * (8 << 20), 64 << 20),
    }[kind]
    if kind == "folder":
        stream.readinto = lambda buffer: os.read(os.open(tmp_path, os.O_RDONLY), 1)
    piped(monkeypatch, stream)
    monkeypatch.setattr(files, "temporary", lambda: Folder(tmp_path / "temporary"))
    words = [word.replace("OUT", str(tmp_path / "out")) for word in words]
    assert cli.main(words) == 2
    assert "standard input" in said_once(capsys) or words[0] == "decode"
    assert list(tmp_path.iterdir()) == []


class Folder:
    """A temporary folder in a place that a test looks at."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> Path:
        self.path.mkdir()
        return self.path

    def __exit__(self, *exception) -> None:
        for path in self.path.iterdir():
            path.unlink()
        self.path.rmdir()


def test_audio_without_end_is_bounded(capsys, monkeypatch, tmp_path, wav):
    """A wav whose header is good; a good one of any header goes through."""
    monkeypatch.setattr(encode_file, "LONGEST", 4 << 20)
    piped(monkeypatch, Endless(wav.read_bytes(), 64 << 20))
    words = [word.replace("OUT", str(tmp_path / "out")) for word in ENCODE]
    assert cli.main(words) == 2
    assert "standard input is longer than 4194304 bytes" in said_once(capsys)
    piped(monkeypatch, io.BytesIO(wav.read_bytes()))
    assert cli.main(words) == 0


@pytest.mark.parametrize("length", [100, 3 << 20])
def test_tags_before_an_mp3_are_waited_for(length):
    """They may be longer than what tells audio from none."""
    encode_file._check_begins((b"ID3\x04\0\0" + b"\x7f" * 4).ljust(length, b"\0")[: 1 << 20])
    with pytest.raises(UserError, match="cannot be read as audio"):
        encode_file._check_begins(b"\0" * length)


def test_a_full_folder_for_temporary_files_is_told(capsys, monkeypatch, tmp_path, wav):
    monkeypatch.setattr("tempfile.tempdir", "/proc/self/fdinfo")
    piped(monkeypatch, io.BytesIO(wav.read_bytes()))
    words = [word.replace("OUT", str(tmp_path / "out")) for word in ENCODE]
    assert cli.main(words) == 2 and "TMPDIR" in said_once(capsys)


# Standard error.


class Bad(io.StringIO):
    def __init__(self, problem):
        super().__init__()
        self.problem = problem

    def write(self, text=""):
        raise self.problem

    flush = write


@pytest.mark.parametrize(
    "problem", [None, BrokenPipeError(), OSError(errno.ENOSPC, ""), ValueError("I/O on closed")]
)
def test_what_becomes_of_standard_error_stops_no_work(monkeypatch, tmp_path, wav, problem):
    """Progress bars and lines are lost; the file is there."""
    bad = None if problem is None else Bad(problem)
    monkeypatch.setattr(sys, "stderr", bad)
    (tmp_path / "in").mkdir()
    wav.rename(tmp_path / "in" / "a.wav")
    out = tmp_path / "out"
    assert cli.main(["encode", str(tmp_path / "in"), str(out), "--codec", str(CODEC)]) == 0
    assert (out / "a.rvq").exists()
    assert cli.main(["encode", str(tmp_path / "gone"), str(out), "--codec", str(CODEC)]) == 2
    assert Screen(lambda: bad).write("x") == 0
    monkeypatch.undo()


def test_no_file_gets_the_number_of_a_closed_stream():
    kept = os.dup(0)
    os.close(0)
    try:
        terminal.hold_streams()
        os.fstat(0)
    finally:
        os.dup2(kept, 0)
        os.close(kept)


# Its twin: no file gets the number of a closed stream.
@pytest.mark.slow
def test_streams_that_the_shell_closed(tmp_path, wav):
    """No file gets the number of one, where libraries would write into it."""
    words = [sys.executable, "-m", "rvq_jax", "encode", str(wav), str(tmp_path / "out.rvq")]
    line = f'exec "$@" --codec {CODEC} <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", line, "sh", *words]).returncode == 0
    assert cli.main(["encode", str(wav), str(tmp_path / "same.rvq"), "--codec", str(CODEC)]) == 0
    assert (tmp_path / "out.rvq").read_bytes() == (tmp_path / "same.rvq").read_bytes()
