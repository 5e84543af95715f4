"""The forms in which transformers keeps a model: in shards, at half precision, by older names."""

import json
import re
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import small_folders
from refusals import refused
from small_codecs import torch_bytes

import rvq_jax as rj
from rvq_jax.convert import names, tensors
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.text_encoder import TextEncoder

safetensors = pytest.importorskip("safetensors.numpy", reason="the package is not installed")
FIXTURES = Path(__file__).parents[1] / "fixtures"
KINDS = {
    "encodec": (Codec.load, FIXTURES / "codecs/encodec_24khz"),
    "dac": (Codec.load, FIXTURES / "codecs/dac"),
    "mimi": (Codec.load, FIXTURES / "codecs/mimi"),
    "musicgen": (rj.MusicGen.load, FIXTURES / "musicgen/text"),
    "t5": (TextEncoder.load, None),
}


@pytest.fixture(scope="module")
def t5(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("t5")
    small_folders.text_encoder(base / "words").save(base / "t5")
    return base / "t5"


def single(folder: Path, found: dict, name: str = tensors.SINGLE) -> None:
    if name.endswith(".bin"):
        (folder / name).write_bytes(torch_bytes(found))
    else:
        safetensors.save_file(found, folder / name)


def in_shards(folder: Path, found: dict, name: str = tensors.SINGLE) -> None:
    """As save_pretrained cuts a model, with its index."""
    stem, _, suffix = name.partition(".")
    places = {}
    for i in range(3):
        part = {n: x for j, (n, x) in enumerate(found.items()) if j % 3 == i}
        shard = f"{stem}-{i + 1:05d}-of-00003.{suffix}"
        single(folder, part, shard)
        places |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / f"{name}.index.json").write_text(json.dumps(index))


def of_type(kind):
    def make(found: dict) -> dict:
        return {n: x.astype(kind) if x.dtype.kind == "f" else x for n, x in found.items()}

    return make


def spelled(*rules):
    def make(found: dict) -> dict:
        for pattern, new in rules:
            found = {re.sub(pattern, new, name): x for name, x in found.items()}
        return found

    return make


NEWER = spelled(
    (r"weight_g$", "parametrizations.weight.original0"),
    (r"weight_v$", "parametrizations.weight.original1"),
)
OLDER = spelled(
    (r"parametrizations\.weight\.original0$", "weight_g"),
    (r"parametrizations\.weight\.original1$", "weight_v"),
)
# Of Mimi in a state dict of transformers 5; others have none of these.
HALVES = spelled(
    (r"^(encoder|decoder)\.layers", r"\1.\1_seanet.layers"),
    (r"^(encoder|decoder)_transformer", r"\1.\1_transformer"),
    (r"^downsample", "encoder.downsample"),
    (r"^upsample", "decoder.upsample"),
)
BIN = tensors.TORCH
FORMS = {
    "shards": (dict, in_shards, tensors.SINGLE, np.float32),
    "half": (of_type(np.float16), single, tensors.SINGLE, np.float16),
    "bfloat16": (of_type(ml_dtypes.bfloat16), single, tensors.SINGLE, ml_dtypes.bfloat16),
    "double": (of_type(np.float64), single, tensors.SINGLE, np.float32),
    "shards of bfloat16": (
        of_type(ml_dtypes.bfloat16),
        in_shards,
        tensors.SINGLE,
        ml_dtypes.bfloat16,
    ),
    "torch": (dict, single, BIN, np.float32),
    "shards of torch": (dict, in_shards, BIN, np.float32),
    "newer names": (NEWER, single, tensors.SINGLE, np.float32),
    "older names": (OLDER, single, tensors.SINGLE, np.float32),
    "halves": (lambda x: HALVES(NEWER(x)), in_shards, BIN, np.float32),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_is_the_same_model(kind, t5, tmp_path):
    """To the bit of what the form keeps, and in float32, which all is computed in."""
    load, source = KINDS[kind][0], KINDS[kind][1] or t5
    found = tensors.load_folder(source)
    whole = load(source)
    for form, (change, write, name, kept) in FORMS.items():
        if form == "halves" and kind not in ("mimi",):
            continue
        folder = tmp_path / form
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model*", "*.npz"))
        write(folder, change(dict(found)), name)
        made = load(folder)
        for ours, theirs in zip(
            jax.tree.leaves(made.params), jax.tree.leaves(whole.params), strict=True
        ):
            assert ours.dtype == np.float32
            if kept == np.float32:
                assert np.array_equal(ours, theirs), form
            elif kind != "mimi":
                assert np.array_equal(ours, np.asarray(theirs).astype(kept).astype(np.float32))


FIELDS = {"torch_dtype": "float16", "dtype": "bfloat16", "use_cache": True, "return_dict": True}
FIELDS |= {"_name_or_path": "x", "transformers_version": "4.31.0", "tie_word_embeddings": False}
FIELDS |= {"gradient_checkpointing": False, "_attn_implementation_internal": "sdpa"}


@pytest.mark.parametrize("kind", KINDS)
def test_fields_of_every_version_are_passed_over(kind, t5, tmp_path):
    load, source = KINDS[kind][0], KINDS[kind][1] or t5
    shutil.copytree(source, tmp_path / "m")
    data = json.loads((source / "config.json").read_text())
    parts = [data, *(v for v in data.values() if isinstance(v, dict) and "model_type" in v)]
    for part in parts:
        part |= FIELDS
    (tmp_path / "m" / "config.json").write_text(json.dumps(data))
    assert load(tmp_path / "m").config == load(source).config


def test_a_musicgen_without_a_tokenizer_takes_ids(tmp_path):
    """Text alone is refused; what it computes of ids is what it was."""
    source = FIXTURES / "musicgen/text"
    shutil.copytree(source, tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    made, whole = rj.MusicGen.load(tmp_path / "m"), rj.MusicGen.load(source)
    codes = np.zeros((1, made.config.levels, 4), np.int32)
    ids = {"input_ids": np.array([[3, 1]])}
    assert np.array_equal(made.score(codes, ids), whole.score(codes, ids))
    refused(lambda: made.score(codes, ["slow"]), "has no tokenizer", "ids of tokens")
    made.save(tmp_path / "again")
    assert np.array_equal(
        rj.MusicGen.load(tmp_path / "again").score(codes, ids), whole.score(codes, ids)
    )


def test_tensors_that_are_no_floats_are_refused(tmp_path):
    source = FIXTURES / "codecs/encodec_24khz"
    shutil.copytree(source, tmp_path / "m", ignore=shutil.ignore_patterns("model*"))
    found = tensors.load_folder(source)
    found["encoder.layers.0.conv.bias"] = found["encoder.layers.0.conv.bias"].astype(np.int32)
    single(tmp_path / "m", found)
    refused(
        lambda: Codec.load(tmp_path / "m"), "without floating-point numbers", "conv.bias is int32"
    )


def test_names_are_spelled_one_way():
    given = {
        "a.parametrizations.weight.original1": 1,
        "encoder.encoder_seanet.layers.0.conv.bias": 2,
    }
    given |= {"decoder.decoder_transformer.layers.0.mlp.fc1.weight": 3, "decoder.upsample.x": 4}
    given |= {"encoder.downsample.x": 5, "decoder.model.decoder.layers.0.fc1.weight": 6}
    assert names.canonical(given) == {
        "a.weight_v": 1,
        "encoder.layers.0.conv.bias": 2,
        "decoder_transformer.layers.0.mlp.fc1.weight": 3,
        "upsample.x": 4,
        "downsample.x": 5,
        "decoder.model.decoder.layers.0.fc1.weight": 6,
    }
