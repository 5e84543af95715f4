"""`rvq-jax evaluate` on folders: what it leaves, what it adds to, what it refuses."""

import json

import numpy as np
import pytest
import small_codecs
import small_folders
import soundfile
from command import refuses, run

import rvq_jax as rj
from rvq_jax.data.codes import CodeSet

RATE = small_codecs.RATE


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return small_codecs.folders(tmp_path_factory)


def audio(folder, names=("a.wav", "b.flac"), seconds=1.0, channels=1, gain=0.1):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        x = gain * np.random.default_rng(i).normal(size=(round(seconds * RATE), channels))
        soundfile.write(folder / name, x, RATE)
    return folder


def results(out):
    return json.loads((out / "results.json").read_text())


def small(*words):
    return ("evaluate", *words, "--piece", 1, "--batch", 2, "--levels", 2)


def test_points_are_measured_side_by_side_and_others_added(tmp_path, capsys, folders):
    """What was measured before is not measured again: its audio and rows stay as they are."""
    data, out = audio(tmp_path / "data"), tmp_path / "out"
    code, said, lines = run(capsys, *small(folders["mono"], "--data", data, "--out", out))
    assert (code, lines) == (0, []), lines
    assert "mono, 2 levels" in said and "SI-SDR" in said and "report.html" in said
    first = results(out)
    (system,) = first["systems"]
    assert system["scores"]["si_sdr"]["count"] == 2 and system["kbps"] == pytest.approx(0.8)
    heard = {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    assert len(heard) == 4 and len(first["players"]) == 2
    rows = (out / "rows.jsonl").read_bytes()
    both = *small(folders["mono"], "--data", data, "--out", out), 1
    assert run(capsys, *both)[0] == 0
    assert (out / "rows.jsonl").read_bytes().startswith(rows)
    assert {p: p.stat().st_mtime_ns for p in heard} == heard
    second = results(out)
    assert second["systems"][1] == system and second["systems"][0]["levels"] == 1
    assert {"command", "commit", "machine", "versions"} <= second.keys()
    assert len(second["pairs"]) >= 1


def test_a_file_that_cannot_be_read_is_left_out_and_named(tmp_path, capsys, folders):
    data, out = audio(tmp_path / "data"), tmp_path / "out"
    (data / "c.wav").write_bytes(b"none")
    code, _, lines = run(capsys, *small(folders["mono"], "--data", data, "--out", out))
    assert code == 2 and len(lines) == 1
    assert "1 of 3" in lines[0] and "c.wav" in lines[0]
    assert results(out)["systems"][0]["scores"]["si_sdr"]["count"] == 2
    again = small(folders["mono"], "--data", data, "--out", out, "--json")
    code, said, _ = run(capsys, *again)
    assert code == 2 and json.loads(said)["systems"] == results(out)["systems"]


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_without_a_report_the_numbers_are_kept_and_it_is_said(tmp_path, capsys, folders, words):
    data, out = audio(tmp_path / "data"), tmp_path / "out"
    (out / "abx.html").mkdir(parents=True)
    code, _, lines = run(capsys, *small(folders["mono"], "--data", data, "--out", out, *words))
    assert code == 2 and len(lines) == 1 and "abx.html is a folder" in lines[0]
    assert "results.json is there" in lines[0] and results(out)["systems"]


def test_silence_and_stereo_have_results_without_nan(tmp_path, capsys, folders):
    """A metric that silence has no value of says so; stereo is mixed for a codec of one channel."""
    data, out = audio(tmp_path / "data", ("a.wav",), channels=2), tmp_path / "out"
    audio(data, ("silent.wav",), gain=0.0)
    code, _, lines = run(capsys, *small(folders["mono"], "--data", data, "--out", out))
    assert (code, lines) == (0, []), lines
    scores = results(out)["systems"][0]["scores"]["si_sdr"]
    assert (scores["count"], scores["undefined"]) == (1, 1)
    assert results(out)["data"]["channels"] == 1


@pytest.fixture(scope="module")
def token_model(tmp_path_factory):
    return small_folders.folders(tmp_path_factory)["own"]


def test_a_token_model_is_measured_on_a_folder_of_audio(tmp_path, capsys, token_model):
    """Its codec encodes them; bits are those of `score`, what it generates can be heard."""
    data, out = audio(tmp_path / "data", [f"{i}.wav" for i in range(4)], 0.5), tmp_path / "out"
    words = "--generate.clips", 2, "--generate.seconds", 0.2, "--generate.top-k", 4
    code, said, lines = run(capsys, "evaluate", token_model, "--data", data, "--out", out, *words)
    assert (code, lines) == (0, []), lines
    assert "own" in said and "report.html" in said
    done = results(out)
    (row,) = done["models"]
    codes = CodeSet.load(out / "heldout.npz")
    model = rj.MusicGen.load(token_model)
    bits = [
        np.asarray(model.score(codes.codes[i][None], [codes.captions[i]])).sum() for i in range(4)
    ]
    frames = sum(x.shape[1] for x in codes.codes)
    assert row["bits_per_frame"]["mean"] == pytest.approx(sum(bits) / frames, rel=1e-5)
    assert row["real_time_factor"] > 0 and len(row["frechet"]) == 2
    for player in done["players"]:
        assert (out / player["original"]).is_file()
        assert all((out / path).is_file() for path in player["systems"].values())


def test_codecs_and_token_models_are_measured_apart(tmp_path, capsys, folders, token_model):
    data, out = audio(tmp_path / "data"), ("--out", tmp_path / "out")
    both = "evaluate", folders["mono"], token_model, "--data", data, *out
    refuses(capsys, *both, say=("apart",))
    beside = "evaluate", token_model, "--data", data, *out, "--against", "opus:6"
    refuses(capsys, *beside, say=("--against", "token models"))
    strange = "evaluate", folders["mono"], "--data", data, *out, "--embeddings", data
    refuses(capsys, *strange, say=("--embeddings", "codecs"))


def no_such(tmp_path, folders):
    return (folders["mono"], "--data", tmp_path / "none"), ("not there", "--data")


def without_audio(tmp_path, folders):
    (tmp_path / "empty").mkdir()
    return (folders["mono"], "--data", tmp_path / "empty"), ("no audio", ".wav")


def unreadable_only(tmp_path, folders):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.wav").write_bytes(b"RIFF")
    return (folders["mono"], "--data", tmp_path / "data"), ("none of 1", "a.wav")


def nothing(tmp_path, folders):
    return ("--data", audio(tmp_path / "data")), ("nothing to evaluate", "--against")


def no_model(tmp_path, folders):
    return (tmp_path, "--data", audio(tmp_path / "data")), ("config.json",)


def other_levels(tmp_path, folders):
    where = "--data", audio(tmp_path / "data")
    return (folders["mono"], *where, "--levels", 99), ("mono", "3 levels", "--levels")


def no_level(tmp_path, folders):
    return (folders["mono"], "--data", audio(tmp_path / "data"), "--levels", 0), ("--levels",)


def twice(tmp_path, folders):
    where = "--data", audio(tmp_path / "data")
    return (folders["mono"], folders["mono"], *where), ("twice",)


def unknown_coder(tmp_path, folders):
    return ("--data", audio(tmp_path / "data"), "--against", "oggs:6"), ("oggs", "opus")


def no_bitrate(tmp_path, folders):
    return ("--data", audio(tmp_path / "data"), "--against", "opus:six"), ("opus:six",)


def unknown_metric(tmp_path, folders):
    where = "--data", audio(tmp_path / "data")
    return (folders["mono"], *where, "--metrics", "sisdr"), ("sisdr", "si_sdr")


def metric_of_speech(tmp_path, folders):
    where = "--data", audio(tmp_path / "data")
    return (folders["mono"], *where, "--metrics", "pesq"), ("pesq", "music")


def no_split(tmp_path, folders):
    return (folders["mono"], "--data", audio(tmp_path / "data"), "--split", "test"), ("metadata",)


def out_is_a_file(tmp_path, folders):
    (tmp_path / "out").write_text("mine")
    where = "--data", audio(tmp_path / "data")
    return (folders["mono"], *where, "--out", tmp_path / "out"), ("out",)


def out_in_data(tmp_path, folders):
    data = audio(tmp_path / "data")
    return (folders["mono"], "--data", data, "--out", data / "out"), ("next time", "--out")


def out_is_data(tmp_path, folders):
    data = audio(tmp_path / "data")
    return (folders["mono"], "--data", data, "--out", data), ("next time", "--out")


MISTAKES = [no_such, without_audio, unreadable_only, nothing, no_model, other_levels, no_level]
MISTAKES += [
    out_in_data,
    out_is_data,
    twice,
    unknown_metric,
    metric_of_speech,
    unknown_coder,
    no_bitrate,
    no_split,
    out_is_a_file,
]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(tmp_path, capsys, folders, mistake):
    words, say = mistake(tmp_path, folders)
    out = () if "--out" in words else ("--out", tmp_path / "results")
    refuses(capsys, "evaluate", *words, *out, say=say)
    assert not (tmp_path / "results" / "results.json").exists()
    if (tmp_path / "out").is_file():
        assert (tmp_path / "out").read_text() == "mine"
