"""Where the result of a command goes is looked at before the work, for every command."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import RATE, good, refuses, run, tone
from test_cli import CONFIG

from rvq_jax import cli, files
from rvq_jax.data import records
from rvq_jax.data.codes import CodeSet
from rvq_jax.evaluate import codecs, compare
from rvq_jax.offline import encode_file, encode_folder
from rvq_jax.systems import published_codecs
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.train import runs

FIXTURES = Path(__file__).parents[1] / "fixtures"
CODEC = FIXTURES / "codecs" / "dac"
OTHERS = "of others"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Inputs of every command."""
    place = tmp_path_factory.mktemp("made")
    good(place / "audio")
    soundfile.write(place / "a.wav", tone(), RATE)
    (place / "config.py").write_text(CONFIG)
    rows = [np.random.default_rng(0).integers(0, 7, (2, 9)).astype(np.int32)] * 3
    CodeSet(rows, ["a", "b", "c"], [""] * 3, [""] * 3, 50.0, 7).save(place / "codes.npz")
    codec = Codec.load(CODEC)
    encode_file.encode_file(codec, place / "a.wav", place / "a.rvq")
    (place / "run").mkdir()
    (place / "run" / "metrics.jsonl").write_text('{"step": 1, "seconds": 1.0, "loss": 2.0}\n')
    (place / "run" / "config.json").write_text("{}")
    (place / "codes").mkdir()
    shutil.copy(place / "a.rvq", place / "codes" / "a.rvq")
    return place


# A command with OUT for where its result goes, of the place `made`; what that is; and the work.
COMMANDS = {
    "encode": ("encode @a.wav OUT --codec CODEC", ".rvq", (encode_file, "encode")),
    "encode a folder": ("encode @audio OUT --codec CODEC", "files", (encode_folder, "_encode")),
    "decode": ("decode @a.rvq OUT --codec CODEC", ".wav", (encode_file, "decode")),
    "decode a folder": ("decode @codes OUT --codec CODEC", "files", (encode_folder, "_decode")),
    "import": ("import @a.wav --out OUT", "model", (published_codecs, "read")),
    "export": ("export CODEC --out OUT", "model", (Codec, "load")),
    "export to stablehlo": (
        "export CODEC --out OUT --format stablehlo", "model", (Codec, "load"),
    ),
    "generate": ("generate --model MODEL --prompt x --out OUT", ".wav", (MusicGen, "load")),
    "generate many": ("generate --model MODEL --prompt x y --out OUT", "files", (MusicGen, "load")),
    "speak": ("speak --model MODEL --text x --out OUT", ".wav", (MusicGen, "load")),
    "speak many": ("speak --model MODEL --text x y --out OUT", "files", (MusicGen, "load")),
    "data build": ("data build @audio --out OUT", "run", (records, "prepare")),
    "evaluate": ("evaluate CODEC --data @audio --out OUT", "files", (codecs, "measure")),
    "train": ("train @config.py --data @codes.npz --out OUT", "run", (runs.LMRun, "train")),
    "sweep": ("sweep @config.py --data @codes.npz --out OUT", "files", (runs.LMRun, "train")),
    "compare": ("compare @run --out OUT", ".html", (compare, "write")),
    "quickstart": ("quickstart --train-codec --data @audio --out OUT", "run",
                   (records, "prepare")),
}  # fmt: skip


def words(command: str, made: Path, out: Path) -> list[str]:
    named = {"OUT": out, "CODEC": CODEC, "MODEL": FIXTURES / "musicgen" / "text"}
    line = COMMANDS[command][0].replace("@", f"{made}/").split()
    return [str(named.get(word, word)) for word in line]


def test_every_command_that_writes_is_here():
    writes = {
        name
        for name in cli.COMMANDS
        if {"out", "target"} & {field.name for field in dataclasses.fields(cli.load(name))}
    }
    here = {name for name in cli.COMMANDS for command in COMMANDS if command.startswith(name)}
    assert writes == here


def under_a_file(place: Path, name: str) -> Path:
    (place / "file").write_text(OTHERS)
    return place / "file" / name


def too_long(place: Path, name: str) -> Path:
    return place / f"{'x' * 253}{name}"


def no_file_is_made_there(place: Path, name: str) -> Path:
    return Path("/proc/self/fdinfo") / name


def a_file(place: Path, name: str) -> Path:
    (place / name).write_text(OTHERS)
    return place / name


def a_link_to_nothing(place: Path, name: str) -> Path:
    (place / name).symlink_to("nowhere")
    return place / name


def results_are_folders(place: Path, name: str) -> Path:
    """All that the commands write, one level down."""
    for inside in ("a.rvq", "ok0.rvq", "ok1.rvq", "ok2.rvq", "a.wav", "0.wav", "1.wav", "model",
                   "results.json", "report.html", "records", "x"):  # fmt: skip
        (place / name / inside / "inside").mkdir(parents=True)
    return place / name


def the_report_is_a_folder(place: Path, name: str) -> Path:
    (place / name / "report.html").mkdir(parents=True)
    return place / name


def the_config_is_a_folder(place: Path, name: str) -> Path:
    (place / name / "config.json").mkdir(parents=True)
    return place / name


def others_are_there(place: Path, name: str) -> Path:
    (place / name / "codec" / "model").mkdir(parents=True)
    (place / name / "model").mkdir()
    for inside in ("thesis.txt", "codec/model/thesis.txt", "model/thesis.txt"):
        (place / name / inside).write_text(OTHERS)
    return place / name


PLACES = (under_a_file, too_long, no_file_is_made_there, results_are_folders)
FOLDERS = (a_file, a_link_to_nothing)
TABLE = [(name, place) for name in COMMANDS for place in PLACES]
TABLE += [(name, place) for name in COMMANDS for place in FOLDERS if "." not in COMMANDS[name][1]]
TABLE += [("quickstart", the_report_is_a_folder), ("quickstart", the_config_is_a_folder)]
TABLE += [("export", the_config_is_a_folder), ("data build", the_config_is_a_folder)]
TABLE += [(name, others_are_there) for name in COMMANDS if COMMANDS[name][1] in ("model", "run")]


@pytest.mark.parametrize(("command", "place"), TABLE, ids=lambda x: getattr(x, "__name__", x))
def test_a_place_that_cannot_be_is_told_before_the_work(
    capsys, made, tmp_path, monkeypatch, command, place
):
    _, kind, (module, name) = COMMANDS[command]

    def work(*args, **options):
        pytest.fail("the work was begun")

    monkeypatch.setattr(module, name, work)
    out = place(tmp_path, f"out{kind}" if "." in kind else "out")
    before = sorted(path for path in tmp_path.rglob("*"))
    refuses(capsys, *words(command, made, out), say=())
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["link", "x" * 250, "\udcff", "existing"])
@pytest.mark.parametrize("command", ["encode", "decode a folder", "export"])
def test_a_place_that_can_be_is_written_to(capsys, made, tmp_path, command, name):
    """A link to a folder stays one; a name as long as names may be; one that is no text."""
    kind = COMMANDS[command][1]
    out = tmp_path / (name[: 255 - len(kind)] + kind if "." in kind else name)
    if name in ("link", "existing"):
        (tmp_path / "real").mkdir()
        if "." in kind:
            (tmp_path / "real" / "other").write_text(OTHERS)
            out.symlink_to("real/other")
        elif name == "link":
            out.symlink_to("real")
        else:
            out.mkdir()
    code, _, lines = run(capsys, *words(command, made, out))
    assert code == 0, lines
    assert out.is_file() if "." in kind else len([*out.iterdir()]) > 0
    assert out.is_symlink() == (name == "link" and "." not in kind)
    assert not [path for path in tmp_path.rglob(f"{files.TEMPORARY}*")]
    assert (
        not (tmp_path / "real" / "other").exists()
        or (tmp_path / "real" / "other").read_text() == OTHERS
    )
