"""Fields of config.json of every model: whatever one is set to, a model comes of it or one line."""

import contextlib
import copy
import functools
import json
import math
import shutil
import time
from pathlib import Path

import pytest
import small_folders
from refusals import refused
from tiers import slow

import rvq_jax as rj
from rvq_jax import config as configs
from rvq_jax import limits
from rvq_jax.codec.config import CodecConfig
from rvq_jax.convert import folder as folders
from rvq_jax.convert import musicgen, t5
from rvq_jax.convert.fields import GENERAL
from rvq_jax.errors import UserError
from rvq_jax.lm.model import LMConfig
from rvq_jax.systems import published_codecs
from rvq_jax.systems.codec import OWN, Codec
from rvq_jax.systems.musicgen import folder as musicgen_folder
from rvq_jax.systems.text_encoder import TextEncoder

ROOT = Path(__file__).parents[2]
FIXTURES, SHARED = ROOT / "tests/fixtures", ROOT / "../shared/cases"
HOSTILE = [0, -1, 1e12, 10**12, 2**63, math.inf, math.nan, None, True, "", "x", "\x1b[2J", [], [0]]
HOSTILE += [[-1], [[1]], [1] * 1000, {}, {"a": 1}, "a" * 10**6, {"a": {"b": [None]}}, 10**400]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Path]:
    """A folder of each kind, by the names that the shared cases have."""
    base = tmp_path_factory.mktemp("made")
    small_folders.own().save(base / "own")
    small_folders.text_encoder(base / "words").save(base / "t5")
    return {
        "codec-dac": FIXTURES / "codecs/dac",
        "codec-mimi": FIXTURES / "codecs/mimi",
        "codec-mono": FIXTURES / "codecs/encodec_24khz",
        "codec-own": base / "own" / "codec",
        "musicgen-own": base / "own",
        "musicgen-text": FIXTURES / "musicgen/text",
        "musicgen-melody": FIXTURES / "musicgen/melody",
        "t5": base / "t5",
    }


LOADS = {"codec": Codec.load, "musicgen": rj.MusicGen.load, "t5": TextEncoder.load}


def described(kind: str, data: dict):
    """What a config.json says, without the weights beside it."""
    data = copy.deepcopy(data)
    if kind == "t5":
        return t5.from_fields(data, "F")
    if kind == "musicgen-own":
        data.pop("pattern", None)
        data.pop("model", None)
        return configs.from_dict(LMConfig, data, "F")
    if kind == "codec-own":
        return configs.from_dict(OWN[data.pop("model", "codec")], data, "F")
    if kind.startswith("codec"):
        return folders.config_of(data, "F", lambda config: {})
    parts = musicgen.from_fields(data, "F")
    return folders.config_of(parts.codec, "F", lambda config: {})


def fields_of(data, path=()) -> list[tuple]:
    """Every field of a config, at any depth."""
    found = []
    for name, value in data.items():
        found.append((*path, name))
        if isinstance(value, dict):
            found += fields_of(value, (*path, name))
    return found


def with_field(data: dict, path: tuple, value) -> dict:
    made = copy.deepcopy(data)
    at = functools.reduce(dict.__getitem__, path[:-1], made)
    at[path[-1]] = value
    return made


KINDS = ("codec-dac", "codec-mimi", "codec-mono", "codec-own", "musicgen-own", "musicgen-text")
KINDS += ("musicgen-melody", "t5")


@pytest.mark.parametrize("share", [4, slow(1)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_field_of_any_value_is_read_or_refused_in_one_line(places, kind, share):
    """Quickly, and where it is of another kind than a field can be, with the field's name."""
    data = json.loads((places[kind] / "config.json").read_text())
    paths = [path for path in fields_of(data) if path != ("model",)]
    began = time.perf_counter()
    for i, path in enumerate(paths):
        for value in HOSTILE[i % share :: share]:
            try:
                described(kind, with_field(data, path, value))
            except UserError as error:
                said = f"{error}"
                assert len(said) < 300 and said.isprintable(), said
                if isinstance(value, dict | list) and path[-1] in _known(kind):
                    assert path[-1] in said, said
        left_out = copy.deepcopy(data)
        del functools.reduce(dict.__getitem__, path[:-1], left_out)[path[-1]]
        with contextlib.suppress(UserError):
            described(kind, left_out)
    assert time.perf_counter() - began < 0.02 * len(paths) * len(HOSTILE)


def _known(kind: str) -> set[str]:
    """Fields that are of the model, whose names the line must have."""
    classes = {
        "codec-dac": folders.dac.Fields,
        "codec-mimi": folders.mimi.Fields,
        "codec-mono": folders.encodec.Fields,
        "codec-own": CodecConfig,
        "musicgen-own": LMConfig,
        "t5": t5.Fields,
    }
    return set(limits.kinds(classes[kind])) - GENERAL if kind in classes else set()


WHOLE = {
    "codec-dac": [("n_codebooks", 10**6), ("model_type", [0]), ("decoder_hidden_size", 10**12)],
    "codec-mimi": [("num_attention_heads", 0), ("num_residual_layers", 10**6)],
    "codec-mono": [("num_lstm_layers", 10**6), ("num_filters", 1), ("chunk_length_s", [0])],
    "codec-own": [("levels", 10**12), ("model", []), ("bandwidths", {})],
    "musicgen-own": [("pattern", 1), ("caption_layers", 10**6), ("layers", 2**63)],
    "musicgen-text": [("decoder", []), ("audio_encoder", 3), ("model_type", {})],
    "musicgen-melody": [("num_chroma", -1), ("chroma_length", 10**12), ("num_chroma", None)],
    "t5": [("num_layers", 10**6), ("d_kv", 0), ("model_type", [1])],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_beside_good_weights_is_refused_in_no_time(places, kind, tmp_path):
    shutil.copytree(places[kind], tmp_path / "m")
    data = json.loads((places[kind] / "config.json").read_text())
    for name, value in WHOLE[kind]:
        (tmp_path / "m" / "config.json").write_text(json.dumps(with_field(data, (name,), value)))
        began = time.perf_counter()
        refused(lambda: LOADS[kind.split("-")[0]](tmp_path / "m"), str(tmp_path))
        assert time.perf_counter() - began < 5


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**4, "9" * 5000, '{"a": 1e999', "\xff"])
def test_a_config_that_is_no_json_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    for load in LOADS.values():
        refused(lambda load=load: load(tmp_path), f"{tmp_path} is not a model folder")


def test_a_name_of_the_hub_is_told_that_nothing_is_downloaded(tmp_path):
    for load in LOADS.values():
        refused(lambda load=load: load(tmp_path / "facebook/x"), "not there", "downloaded")


def test_a_config_of_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(10**11)
    refused(lambda: Codec.load(tmp_path), "is not a model folder", "longer than")


@pytest.mark.parametrize("value", [0, -5, math.inf, math.nan, None, [1], "x", 10**400, True])
def test_a_window_that_is_none_is_the_usual_one(tmp_path, value):
    (tmp_path / "generation_config.json").write_text(json.dumps({"max_length": value}))
    assert musicgen_folder._window(tmp_path) == 1500


METADATA = [
    ("encoder_rates", []), ("encoder_rates", [0, 4]), ("encoder_rates", "24"),
    ("encoder_rates", [2] * 70), ("encoder_rates", [2, -4]), ("encoder_rates", None),
    ("encoder_dim", -64), ("encoder_dim", math.inf), ("n_codebooks", 10**12),
    ("codebook_dim", 0), ("codebook_dim", [8, 8]), ("sample_rate", 0), ("latent_dim", 10**9),
    ("decoder_dim", 0), ("decoder_rates", [4]), ("codebook_size", True), ("decoder_rates", {}),
]  # fmt: skip


@pytest.mark.parametrize("name, value", METADATA)
def test_metadata_of_descript_out_of_bounds_are_refused_by_name(name, value):
    said = {"encoder_rates": [2, 4], "encoder_dim": 4, "decoder_dim": 16, name: value}
    refused(lambda: published_codecs.of_file({}, {"metadata": {"kwargs": said}}, "F"), "F: ", name)


def test_the_shared_cases(places, tmp_path):
    """Inputs that failed once, where they are kept."""
    if not SHARED.is_dir():
        pytest.skip("the shared cases are not here")
    for i, line in enumerate((SHARED / "configs/fields.jsonl").read_text().splitlines()):
        case = json.loads(line)
        words, value = case["value"], [1] * 1000
        if not words.startswith("[1, 1, 1"):
            value = eval(words, {"nan": math.nan, "inf": math.inf})  # of Python, as it was printed
        kind, path = case["folder"], tuple(case["field"].split("."))
        place = tmp_path / f"{i}"
        place.mkdir()
        for file in places[kind].iterdir():
            (place / file.name).symlink_to(file)
        (place / "config.json").unlink()
        data = json.loads((places[kind] / "config.json").read_text())
        for old, new in {"size": "codebook_size", "melody": "melody_bins"}.items():
            if path == (old,):
                del data[new]  # The name of version 0.1 in its place.
        (place / "config.json").write_text(json.dumps(with_field(data, path, value)))
        began = time.perf_counter()
        refused(lambda k=kind, p=place: LOADS[k.split("-")[0]](p), str(place))
        assert time.perf_counter() - began < 5
    for file in sorted((SHARED / "dac_metadata").iterdir()):
        refused(lambda f=file: published_codecs.load(f), file.name, "metadata: ")
