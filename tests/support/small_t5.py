"""A T5 small enough for its equations in numpy, with a tokenizer of whole words."""

import json

import numpy as np
import pytest

from rvq_jax.convert import layout, t5
from rvq_jax.lm.t5 import T5Config
from rvq_jax.systems.text_encoder import TextEncoder, leaf_shapes

REASON = "the package is not installed"


TINY = T5Config(vocab=40, dim=12, layers=3, heads=2, head_dim=5, mlp_dim=20, buckets=8, distance=10)


WORDS = ["<pad>", "</s>", "<unk>", "a", "slow", "piano", "loud", "drum", "in", "the", "night"]


def tensors_of(config, dtype="f4") -> dict[str, np.ndarray]:
    """Random tensors under transformers' names; norms scale by about one."""
    random, found = np.random.default_rng(0), {}
    for name, shape in layout.shapes(t5.layout(config), leaf_shapes(config)).items():
        near, spread = (1, 0.2) if "norm" in name else (0, 0.3)
        found[name] = (near + spread * random.standard_normal(shape)).astype(dtype)
    return found


def encoder(config, tokenizer=None) -> TextEncoder:
    leaves = layout.read(t5.layout(config), tensors_of(config))
    return TextEncoder.of_leaves(config, leaves, tokenizer)


def write_tokenizer(folder) -> None:
    """A tokenizer.json of whole words that closes with </s>."""
    tokenizers = pytest.importorskip("tokenizers", reason=REASON)
    words = {word: i for i, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    # Someone's lengths, which are not ours.
    made.enable_truncation(4)
    made.enable_padding(length=7)
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_bytes(b'{"extra_ids":   0}\r\n')


def tokenizer_json(normalizer: dict | None = None, **parts) -> bytes:
    """A tokenizer.json as transformers writes a T5's, of a few pieces; parts: others than its."""
    pieces = ["<pad>", "</s>", "<unk>", "▁a", "▁slow", "▁", "s", "l", "o", "w"]
    closing = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    spaces = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    flags = {n: False for n in ("single_word", "lstrip", "rstrip", "normalized")}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {"id": i, "content": x, **flags, "special": True} for i, x in enumerate(pieces[:3])
            ],
            "normalizer": normalizer,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "WhitespaceSplit"}, spaces],
            },
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "A", "type_id": 0}}, closing],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, closing],
                "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
            },
            "decoder": spaces,
            "model": {
                "type": "Unigram",
                "unk_id": 2,
                "vocab": [[piece, -float(i)] for i, piece in enumerate(pieces)],
                "byte_fallback": False,
            },
            **parts,
        }
    ).encode()
