"""The field's own terms: identifiers that were retired do not come back, file by file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALL = ("rvq_jax", "configs", "benchmarks", "experiments")
# Where (files and folders of the library, or all of it), the words retired, and what says it now.
RETIRED = [
    (
        ("lm", "systems", "train"),
        "told tell Told",
        "conditions, encode_conditions, Conditions, warn",
    ),
    (("serve", "data", "plan", "study"), "told Told", "conditions, send, refusal"),
    (
        ("lm/decode.py", "lm/model.py", "systems"),
        "advance finish Job Drawing known how",
        "prefill, decode_until, gather_codes; DecodeRequest, DecodeState; prefill_steps, sampling",
    ),
    (("lm/decode.py", "lm/model.py", "systems/decoding/programs.py"), "begin", "prefill"),
    (("systems",), "drawing draw drawn", "windows, sample"),
    (
        ("lm/transformer.py", "lm/model.py"),
        "turn remember keep Memory Cache fold memory memories stream",
        "angles, cross_kv, update, CrossKV, KVCache, scan_layers",
    ),
    (("lm/transformer.py",), "fill", "prefill"),
    (("codec",), "fold folded", "fold_weight_norm"),
    (("codec/config.py", "codec/dac.py", "codec/mimi.py", "systems"), "plain", "prepared"),
    (("train",), "given tuning", "init_params, optimizer"),
    (
        ("train/runs", "train/state.py", "train/loop.py", "train/tasks/lm.py"),
        "start",
        "init_codebooks, init_from, init_params",
    ),
    (("systems/decoding", "train", "study", "plan/programs.py"), "layout", "padded_pattern"),
    (ALL, "tuning guidance_text two_pass", "optimizer, text_guidance_scale, sequential_guidance"),
    (("lm/t5.py", "lm/transformer.py", "systems", "configs"), "hidden", "mlp_dim"),
    (("systems/musicgen", "cli", "serve", "offline"), "guidance", "guidance_scale"),
    (("train/state.py",), "rest look born own _look _born _own", "aux, loss_and_grads, init_state"),
    (("train/tasks/codec.py",), "warm", "autoencoder_warmup"),
    (ALL, "code_files coded_files coded_folders artefact originals", "read_write, encode_file"),
]


def identifiers(path: Path) -> dict[str, int]:
    """Every name that a file binds or uses, with a line where it does."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        names = {
            ast.Name: lambda n: [n.id],
            ast.Attribute: lambda n: [n.attr],
            ast.arg: lambda n: [n.arg],
            ast.keyword: lambda n: [n.arg],
            ast.FunctionDef: lambda n: [n.name],
            ast.ClassDef: lambda n: [n.name],
            ast.alias: lambda n: [*n.name.split("."), n.asname],
        }.get(type(node))
        for name in names(node) if names else ():
            found.setdefault(name, getattr(node, "lineno", 0))
    return found


def files(place: str) -> list[Path]:
    path = ROOT / place if place in ALL else ROOT / "rvq_jax" / place
    assert path.exists(), f"{place} is not there: the table is of another layout"
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


@pytest.mark.parametrize(("places", "words", "now"), RETIRED, ids=[row[1] for row in RETIRED])
def test_retired_words_stay_away(places, words, now):
    retired = set(words.split())
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name} is now one of {now}"
        for place in places
        for path in files(place)
        for name, line in identifiers(path).items()
        if name in retired
    ]
    assert found == []


def test_the_mesh_has_the_axes_that_its_flags_name():
    from rvq_jax.axes import MESH

    assert MESH == ("data", "fsdp", "tensor")
