"""Small hostile files that are kept beside the project, on machines that have them.

What they are instances of is held by laws that make their own files.
"""

import gzip
import shutil
from pathlib import Path

import pytest
import soundfile
from command import RATE, good, refuses, run, tone

from rvq_jax.audio import io

ROOT = Path(__file__).parents[2]
CASES = ROOT.parent / "shared/cases"
CODEC = ROOT / "tests/fixtures/codecs/dac"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not here")

IMPORTED = ["pickles/key.pt", "pickles/kind.pt", "pickles/deep_key_zip.pt"]
NAMES = "code0 empty inf levels many70 neg negdim rates_str zero"
IMPORTED += [f"dac_metadata/{name}.pth" for name in NAMES.split()]
DECODED = ["inf_db", "no_frames", "no_levels", "rate_1e9"]
# Table, and the line that its message must name.
LINES = {"open_quote": "line 3", "surplus_field": "line 2", "line_number": "line 7"}


@pytest.mark.parametrize("name", IMPORTED)
def test_an_import_is_refused(capsys, tmp_path, name):
    path = CASES / name
    if not path.exists():
        path = tmp_path / path.name
        path.write_bytes(gzip.decompress((CASES / f"{name}.gz").read_bytes()))
    refuses(capsys, "import", path, "--out", tmp_path / "out", say=(path.name,))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", DECODED)
def test_a_dac_file_is_refused(capsys, tmp_path, name):
    words = ["decode", CASES / f"dac_files/{name}.dac", tmp_path / "o.wav", "--codec", CODEC]
    refuses(capsys, *words, say=(f"{name}.dac",))
    assert not (tmp_path / "o.wav").exists()


@pytest.mark.parametrize("name", ["pickles/global.dac", "names/key.safetensors", "names/name.rvq"])
def test_nothing_but_text_reaches_the_terminal(capsys, name):
    code, out, lines = run(capsys, "info", CASES / name)
    assert code in (0, 2) and all(line.isprintable() for line in [*out.splitlines(), *lines])


@pytest.mark.parametrize("name", ["w64_claim", "claim_4g", "ch0"])
def test_audio_that_claims_what_is_not_there_is_refused(capsys, tmp_path, name):
    words = ["encode", CASES / f"audio/{name}.wav", tmp_path / "o.rvq", "--codec", CODEC]
    refuses(capsys, *words, say=(f"{name}.wav",))


def test_the_good_files_of_a_folder_are_coded(capsys, tmp_path):
    good(tmp_path / "in")
    bad = ["flac_2e36.flac", "rate1.wav", "other_XI.wav"]
    for name in bad:
        shutil.copy(CASES / "audio" / name, tmp_path / "in")
    words = ["encode", tmp_path / "in", tmp_path / "out", "--codec", CODEC]
    refuses(capsys, *words, say=("3 of 6", *bad))
    assert sorted(path.name for path in (tmp_path / "out").glob("ok*")) == [
        f"ok{i}.rvq" for i in range(3)
    ]


def test_audio_is_read_to_its_real_end():
    """As many samples as `flac -d` and ffmpeg give."""
    assert len(io.read(CASES / "audio/unknown_length.flac")[0]) == 1149
    assert len(io.read(CASES / "mp3/joined.mp3")[0]) == 444_719


@pytest.mark.parametrize("name", LINES)
def test_a_table_is_refused_at_its_line(capsys, tmp_path, name):
    (tmp_path / "in").mkdir()
    for i in range(1, 5):
        soundfile.write(tmp_path / f"in/s{i}.wav", tone(seed=i), RATE)
    shutil.copy(CASES / f"metadata/{name}.csv", tmp_path / "in/metadata.csv")
    words = ["data", "build", tmp_path / "in", "--out", tmp_path / "out"]
    refuses(capsys, *words, say=(LINES[name],))


@pytest.mark.parametrize(
    "name", ["codeset-ESC_AttributeError_codes_py_89", "codeset-ESC_IndexError_codes_py_89"]
)
def test_a_code_cache_is_refused(capsys, tmp_path, name):
    config = ROOT / "configs/lm_delay.py"
    words = ["train", config, "--out", tmp_path / "run", "--data", CASES / f"weights/{name}.npz"]
    refuses(capsys, *words, say=(f"{name}.npz",))


def test_damaged_weights_are_refused(capsys, tmp_path):
    folder = shutil.copytree(ROOT / "tests/fixtures/v0_1/musicgen/codec", tmp_path / "codec")
    shutil.copy(CASES / "weights/damaged_weights.npz", folder / "weights.npz")
    refuses(capsys, "info", folder, say=("weights.npz",))
