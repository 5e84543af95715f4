"""The codec that comes with the library: its word, its files, the versions of files it makes."""

import configparser
import json
import re
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from command import refuses, run
from refusals import refused
from small_codec_runs import JUDGES
from small_codecs import CONFIGS, RATE, seanet
from tiers import slow

import rvq_jax as rj
from rvq_jax import builtin, files
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.discriminators import init_params
from rvq_jax.offline import encode_file
from rvq_jax.systems import discriminators, encodec
from rvq_jax.systems.codec import Codec, leaf_shapes

ROOT = Path(__file__).parents[2]
PLAIN = CodecConfig(RATE, seanet(lstm_layers=0), levels=3, codebook_size=16)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A small codec in place of the built-in one, whose programs take long to compile."""
    codec = rj.Codec.init(PLAIN, jax.random.key(7))
    codec.save(tmp_path / "small")
    monkeypatch.setattr(builtin, "FOLDER", tmp_path / "small")
    monkeypatch.setattr(builtin, "FINGERPRINT", codec.fingerprint().hex())
    monkeypatch.setattr(builtin, "DEFAULT", True)
    return codec


# The one that is in the package.


@pytest.fixture(scope="module")
def codec():
    return rj.Codec.load("builtin")


def test_its_weights_are_those_of_its_version(codec):
    """Other weights are another version: VERSION, FINGERPRINT and LAST (builtin/__init__.py)."""
    assert codec.fingerprint().hex() == builtin.FINGERPRINT
    assert codec.name == builtin.VERSION and builtin.VERSION not in builtin.LAST
    assert all(builtin.is_version(name) for name in [builtin.VERSION, *builtin.LAST])


def test_it_is_as_small_and_as_causal_as_it_says(codec):
    """4.5 million numbers, 10 MB; 0.5 kbps for each level."""
    config = codec.config
    assert (config.rate, config.channels, config.frame_rate, config.causal) == (16_000, 1, 50, True)
    assert (config.levels, config.codebook_size) == (8, 1024)
    assert [codec.kbps(k) for k in (1, 8)] == [0.5, 4.0]
    assert sum(np.size(leaf) for leaf in codec.coding_leaves.values()) <= 4_500_000
    sizes = [p.stat().st_size for p in builtin.FOLDER.iterdir() if p.is_file()]
    assert sum(sizes) <= 10_000_000
    assert all(np.isfinite(leaf).all() for leaf in codec.coding_leaves.values())


def test_its_files_are_in_the_package():
    """What is not python has to be named, or an installed package lacks it."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = set(setup["options.package_data"]["rvq_jax.builtin"].replace(",", " ").split())
    files_there = {path.name for path in builtin.FOLDER.iterdir() if path.is_file()}
    others = {name for name in files_there if not name.endswith((".py", ".pyc"))}
    assert len(others & {"weights.npz", "model.safetensors"}) == 1  # of one format or the other
    assert {"config.json", "CARD.md", "LICENSE-WEIGHTS"} <= others <= named


def test_all_whose_recordings_it_was_trained_on_are_credited():
    """Every source of the corpus of which not all is held out, by its package and its people."""
    corpus = (ROOT / "experiments" / "codec" / "CORPUS.md").read_text()
    card = (builtin.FOLDER / "CARD.md").read_text()
    rows = re.findall(r"^\| (\S+) \S+ \|(?:[^|]*\|){5}([^|]*)\|([^|]*)\|$", corpus, re.M)
    assert len(rows) == 9
    for name, licence, credit in rows:
        row = next((line for line in card.splitlines() if line.startswith(f"| {name},")), None)
        if name == "asterisk-core-sounds-it-g722":  # its one voice is held out
            assert row is None
            continue
        assert licence.strip() in row
        if name != "sonic-pi-samples":  # whose authors its README links
            assert credit.strip() in row


def test_its_card_is_of_these_weights_and_says_what_a_model_card_says():
    card = (builtin.FOLDER / "CARD.md").read_text()
    head, *sections = re.findall(r"^##? (.+)$", card, re.M)
    assert builtin.VERSION in card and builtin.FINGERPRINT[:16] in card and "card" in head
    wanted = ["Intended use", "Out of scope", "Training", "Evaluation", "Limits and risks"]
    assert sections == [*wanted, "Version", "Licence", "Citing it"]
    results = (ROOT / "experiments" / "codec" / "RESULTS.md").read_text()
    numbers = re.findall(r"^\| builtin, .*$", card, re.M)  # as they are in committed results
    assert len(numbers) == 8 and [row for row in numbers if row not in results] == []


def test_loading_it_needs_no_optional_package(monkeypatch):
    """As on a fresh machine."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    core = re.findall(r"^[\w-]+", setup["options"]["install_requires"], re.M)
    for name in {"safetensors", "matplotlib", "pyloudnorm", "tokenizers"} - set(core):
        monkeypatch.setitem(sys.modules, name, None)
    assert rj.Codec.load("builtin").name == builtin.VERSION


# Its twin: any codec's stream, in tests/codec.
@pytest.mark.parametrize("samples", [slow(24_321)])
def test_it_streams(codec, samples):
    audio = 0.1 * np.random.default_rng(0).normal(size=(1, samples, 1)).astype(np.float32)
    coded = codec.encode(audio)
    stream = codec.encode_stream()
    parts = [stream.push(audio[:, at : at + 5000]) for at in range(0, samples, 5000)]
    parts.append(stream.close())
    np.testing.assert_array_equal(np.concatenate(parts, axis=2), coded.codes)
    assert codec.decode(coded).shape == audio.shape


# The word.


def test_the_word_is_the_built_in_one_and_a_path_is_a_folder(small, tmp_path, monkeypatch):
    """One's own folder of that name is reached by its path, on the command line too."""
    own = rj.Codec.init(PLAIN, jax.random.key(8))
    own.save(tmp_path / "builtin")
    monkeypatch.chdir(tmp_path)
    assert rj.Codec.load("builtin").fingerprint() == small.fingerprint()
    for path in ("./builtin", Path("builtin"), tmp_path / "builtin"):
        assert rj.Codec.load(path).fingerprint() == own.fingerprint()


def test_the_command_line_knows_the_word(small, tmp_path, monkeypatch, capsys):
    """Wherever a codec folder is asked for; and `./builtin` stays a path."""
    rj.Codec.init(PLAIN, jax.random.key(8)).save(tmp_path / "builtin")
    monkeypatch.chdir(tmp_path)

    def said(*words) -> dict:
        code, out, lines = run(capsys, *words, "--json")
        assert (code, lines) == (0, [])
        return json.loads(out)

    assert said("info") == said("info", "builtin")
    assert said("info", "builtin")["codec"] == builtin.VERSION
    assert "provisional" in said("info", "builtin")["status"]
    assert said("info", "./builtin")["codec"] == "encodec_0.6khz"
    assert said("export", "builtin", "--out", "exported")["format"] == "transformers"
    (tmp_path / "in").mkdir()
    for i in range(3):
        soundfile.write(tmp_path / "in" / f"{i}.wav", np.full(RATE, 0.1), RATE)
    made = said("data", "build", "in", "--out", "data", "--codes", "builtin")
    assert made["train"]["records"] == 2
    refuses(capsys, "evaluate", "builtin", "builtin", "--data", "in", say=("given twice",))


def test_until_it_is_good_enough_it_has_to_be_named(small, tmp_path, monkeypatch, capsys):
    """To encode; a file says itself that it made it."""
    monkeypatch.setattr(builtin, "DEFAULT", False)
    soundfile.write(tmp_path / "a.wav", np.full(RATE, 0.1), RATE)
    refuses(capsys, "encode", tmp_path / "a.wav", say=("--codec", "builtin"))
    assert not (tmp_path / "a.rvq").exists()
    assert run(capsys, "encode", tmp_path / "a.wav", "--codec", "builtin")[0] == 0
    assert run(capsys, "decode", tmp_path / "a.rvq", tmp_path / "b.wav")[0] == 0


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_one_says_to_install_again(small, damage, capsys, tmp_path):
    weights = builtin.FOLDER / "weights.npz"
    data = bytearray(weights.read_bytes())
    if damage == "cut":
        weights.write_bytes(data[: len(data) // 2])
    elif damage == "changed":
        data[len(data) // 2] ^= 1
        weights.write_bytes(data)
    else:
        shutil.rmtree(builtin.FOLDER)
    refused(lambda: rj.Codec.load("builtin"), "the built-in codec is damaged", "install rvq_jax")
    soundfile.write(tmp_path / "a.wav", np.full(RATE, 0.1), RATE)
    refuses(capsys, "encode", tmp_path / "a.wav", say=("install rvq_jax again",))
    assert not (tmp_path / "a.rvq").exists()


# Where the result goes.


def test_without_a_place_the_result_is_beside_its_source(small, tmp_path, capsys):
    """And replaces nothing: decoding does not write over what was encoded."""
    source, coded = tmp_path / "song.v1.wav", tmp_path / "song.v1.rvq"
    soundfile.write(source, np.full(RATE, 0.1), RATE)
    original = source.read_bytes()
    assert run(capsys, "encode", source)[0] == 0
    assert run(capsys, "info", coded)[1].count("provisional") == 1
    refuses(capsys, "decode", coded, say=(source, "is there already", "name OUT"))
    assert source.read_bytes() == original
    assert run(capsys, "decode", coded, "--format", "flac")[0] == 0
    assert soundfile.info(source.with_suffix(".flac")).frames == RATE
    refuses(capsys, "encode", source, say=(coded, "is there already"))
    assert run(capsys, "encode", source, coded)[0] == 0  # named, it is replaced
    assert run(capsys, "decode", coded, source)[0] == 0 and source.read_bytes() != original


def test_a_folder_without_a_place_gets_the_results_into_it(small, tmp_path, capsys):
    place = tmp_path / "in"
    (place / "b").mkdir(parents=True)
    for name in ("a.wav", "b/c.flac"):
        soundfile.write(place / name, np.full(RATE, 0.1), RATE)
    assert run(capsys, "encode", place)[0] == 0
    made = {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()}
    assert made == {"a.wav", "a.rvq", "b/c.flac", "b/c.rvq"}
    before = (place / "a.wav").read_bytes()
    refuses(capsys, "decode", place, say=("a.wav", "is there already"))
    refuses(capsys, "encode", place, say=("a.rvq", "is there already"))
    assert (place / "a.wav").read_bytes() == before and not (place / "b" / "c.wav").exists()


# Versions.


@pytest.fixture
def coded(small, tmp_path):
    """A file that the built-in codec made."""
    soundfile.write(tmp_path / "a.wav", np.full(RATE, 0.1), RATE)
    encode_file.encode_file(rj.Codec.load("builtin"), tmp_path / "a.wav", tmp_path / "a.rvq")
    return tmp_path / "a.rvq"


def test_a_file_of_an_older_version_says_who_reads_it(coded, capsys, monkeypatch, tmp_path):
    newer = rj.Codec.init(CONFIGS["mono"], jax.random.key(9))
    newer.save(tmp_path / "newer")
    monkeypatch.setattr(builtin, "FOLDER", tmp_path / "newer")
    monkeypatch.setattr(builtin, "FINGERPRINT", newer.fingerprint().hex())
    monkeypatch.setattr(builtin, "VERSION", "builtin-2")
    monkeypatch.setattr(builtin, "LAST", {"builtin-1": "0.3.0"})
    say = ("a.rvq was made by the built-in codec builtin-1", "rvq_jax 0.3.0 is the last", "install")
    refuses(capsys, "decode", coded, tmp_path / "b.wav", say=say)
    assert "rvq_jax 0.3.0" in run(capsys, "info", coded)[1]
    # An older rvq_jax knows nothing of later ones.
    monkeypatch.setattr(builtin, "LAST", {})
    refuses(capsys, "decode", coded, tmp_path / "b.wav", say=("builtin-1", "install a newer one"))


def test_a_file_of_the_built_in_one_and_another_codec(coded, capsys, tmp_path):
    """Each way round it is said what to give."""
    other = rj.Codec.init(CONFIGS["mono"], jax.random.key(9))
    other.save(tmp_path / "other")
    words = ["decode", coded, tmp_path / "b.wav", "--codec", tmp_path / "other"]
    refuses(capsys, *words, say=("built-in codec builtin-1", "leave --codec away"))
    encode_file.encode_file(other, tmp_path / "a.wav", tmp_path / "o.rvq")
    words = ["decode", tmp_path / "o.rvq", tmp_path / "b.wav"]
    refuses(capsys, *words, say=("of other weights", "--codec"))


# Half precision, and what transformers cannot be without.


@pytest.mark.parametrize("name", CONFIGS)
def test_at_half_precision_a_folder_is_half_as_large(tmp_path, name):
    """And holds what float16 can: what it computes with is that, as float32."""
    codec = rj.Codec.init(CONFIGS[name], jax.random.key(3))
    codec.save(tmp_path / "whole")
    codec.save(tmp_path / "half", dtype="float16")
    found = rj.Codec.load(tmp_path / "half")
    for key, leaf in codec.coding_leaves.items():
        assert found.coding_leaves[key].dtype == np.float32
        wanted = np.asarray(leaf).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(found.coding_leaves[key], wanted)
    sizes = {x: sum(p.stat().st_size for p in (tmp_path / x).iterdir()) for x in ("whole", "half")}
    assert sizes["half"] < 0.8 * sizes["whole"]  # the names are as long
    found.save(tmp_path / "again", dtype="float16")
    assert rj.Codec.load(tmp_path / "again").fingerprint() == found.fingerprint()


def test_weights_beyond_half_precision_are_refused(tmp_path):
    codec = rj.Codec.init(PLAIN, jax.random.key(3))
    large = jax.tree.map(lambda leaf: 1e5 * leaf, codec.params)
    codec = Codec(PLAIN, large, codec.quantizer)
    refused(lambda: codec.save(tmp_path / "x", "float16"), "float16")
    assert list(tmp_path.iterdir()) == []


def test_an_lstm_that_adds_nothing_changes_nothing(tmp_path):
    """Codes and audio are the same bits, and transformers has words for the codec then."""
    codec = rj.Codec.init(PLAIN, jax.random.key(3))
    made = encodec.with_lstm(codec)
    assert made.config.seanet.lstm_layers == 1
    assert set(leaf_shapes(made.config)) > set(leaf_shapes(codec.config))
    audio = 0.1 * np.random.default_rng(0).normal(size=(1, 100, 1)).astype(np.float32)
    coded = codec.encode(audio)
    np.testing.assert_array_equal(made.encode(audio).codes, coded.codes)
    np.testing.assert_array_equal(made.decode(coded), codec.decode(coded))
    made.save(tmp_path / "x")
    assert files.load_config(tmp_path / "x")["model_type"] == "encodec"
    with pytest.raises(ValueError, match="1 layers of LSTM already"):
        encodec.with_lstm(made)


def test_discriminators_lie_beside_it(tmp_path, monkeypatch):
    """By its word, as the codec: a folder of that name in the current one is another."""
    monkeypatch.setattr(builtin, "FOLDER", tmp_path / "package")
    monkeypatch.chdir(tmp_path)
    config = JUDGES.discriminators
    params = init_params(config, jax.random.key(1))
    discriminators.save(config, params, tmp_path / "package")
    assert discriminators.load(builtin.WORD, config) is not None
    assert discriminators.load("./builtin", config) is None
