"""T5's encoder against its equations in numpy; its folders; prompts to tokens and states."""

import dataclasses
import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from refusals import refused
from small_pieces import write_pieces
from small_t5 import REASON, TINY, encoder, tensors_of, write_tokenizer

from rvq_jax.convert import layout, t5
from rvq_jax.convert.tensors import save_folder
from rvq_jax.lm.t5 import T5Config, T5Encoder, relative_buckets
from rvq_jax.systems import text_encoder
from rvq_jax.systems.text_encoder import TextEncoder, Tokenizer, leaf_shapes, load_tokenizer

GATED = dataclasses.replace(TINY, gated=True, activation="gelu_new")
BOTH = pytest.mark.parametrize("config", [TINY, GATED], ids=["plain", "gated"])


def range_of(ahead: int, buckets: int, distance: int) -> int:
    """The law of T5's ranges for one distance, in plain words."""
    side, exact = buckets // 2, buckets // 4
    start = side if ahead > 0 else 0
    if abs(ahead) < exact:
        return start + abs(ahead)
    share = math.log(abs(ahead) / exact) / math.log(distance / exact)
    return start + min(side - 1, exact + math.floor(share * (side - exact)))


def oracle(tensors: dict, config: T5Config, ids: list[int]) -> np.ndarray:
    """States `[L, D]` of one sequence without padding, head by head in float64."""
    w = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.eps) * w[f"{name}.weight"]

    def activate(x):
        if config.activation == "relu":
            return np.maximum(x, 0)
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    positions = range(len(ids))
    near = [
        [range_of(k - q, config.buckets, config.distance) for k in positions] for q in positions
    ]
    bias = w["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"][np.array(near)]
    x = w["shared.weight"][np.array(ids)]
    for i in range(config.layers):
        name = f"encoder.block.{i}.layer"
        y, heads = norm(x, f"{name}.0.layer_norm"), []
        q, k, v = (y @ w[f"{name}.0.SelfAttention.{part}.weight"].T for part in "qkv")
        for h in range(config.heads):
            part = slice(h * config.head_dim, (h + 1) * config.head_dim)
            share = np.exp(q[:, part] @ k[:, part].T + bias[..., h])
            heads.append(share / share.sum(-1, keepdims=True) @ v[:, part])
        x = x + np.concatenate(heads, axis=-1) @ w[f"{name}.0.SelfAttention.o.weight"].T
        y, feed = norm(x, f"{name}.1.layer_norm"), f"{name}.1.DenseReluDense"
        if config.gated:
            y = activate(y @ w[f"{feed}.wi_0.weight"].T) * (y @ w[f"{feed}.wi_1.weight"].T)
        else:
            y = activate(y @ w[f"{feed}.wi.weight"].T)
        x = x + y @ w[f"{feed}.wo.weight"].T
    return norm(x, "encoder.final_layer_norm")


def rows(*lengths: int, width: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens with a mask of the first few of each row; tokens stand behind it too."""
    ids = np.random.default_rng(1).integers(0, TINY.vocab, (len(lengths), width), np.int32)
    return ids, np.arange(width)[None] < np.array(lengths)[:, None]


def write_folder(folder, config, tensors=None, **fields) -> None:
    """A T5 with its tokenizer, as transformers keeps it."""
    tensors = tensors_of(config) if tensors is None else tensors
    save_folder(folder, t5.to_fields(config) | fields, tensors)
    write_tokenizer(folder)


@pytest.fixture
def words(tmp_path) -> Tokenizer:
    write_tokenizer(tmp_path / "words")
    return load_tokenizer(tmp_path / "words")


@BOTH
def test_states_are_those_of_the_equations(config):
    """Rows of several lengths in one batch, beyond the last range of distances."""
    lengths = 1, 7, 32
    ids, mask = rows(*lengths)
    found = np.asarray(encoder(config).encode_tokens(ids, mask))
    assert found.dtype == np.float32 and found.shape == (3, 32, config.dim)
    for row, row_ids, length in zip(found, ids, lengths, strict=True):
        expected = oracle(tensors_of(config), config, row_ids[:length])
        np.testing.assert_allclose(row[:length], expected, rtol=0, atol=2e-5)


@BOTH
def test_padding_changes_nothing(config):
    """Neither how much there is nor what stands there; states of it are zero."""
    model, (ids, mask) = encoder(config), rows(3, 16)
    states = np.asarray(model.encode_tokens(ids, mask))
    other = np.where(mask, ids, (ids + 1) % config.vocab)
    np.testing.assert_array_equal(model.encode_tokens(other, mask), states)
    assert (states[~mask] == 0).all() and (states[mask] != 0).any(axis=-1).all()
    short = model.encode_tokens(ids[:, :16], mask[:, :16])
    np.testing.assert_allclose(short, states[:, :16], rtol=0, atol=2e-5)


def test_every_token_of_a_prompt_is_seen():
    """Both ways: the gradient of every state at every token is not zero."""
    graphdef, params = nnx.split(T5Encoder(TINY, nnx.Rngs(0)))
    ids = jnp.arange(6)[None]

    @jax.jit
    @jax.grad
    def moved(params, at):
        return jnp.sum(nnx.merge(graphdef, params)(ids, ids < 5)[0, at] ** 3)

    for at in range(5):
        by_token = np.abs(moved(params, at)["embed"][...]).sum(-1)
        assert (by_token[:5] > 0).all() and (by_token[5:] == 0).all()


@pytest.mark.parametrize("buckets, distance", [(32, 128), (8, 10), (12, 40), (4, 2)])
def test_ranges_follow_their_law(buckets, distance):
    found = relative_buckets(300, buckets, distance)
    assert found.dtype == np.int32
    expected = [[range_of(k - q, buckets, distance) for k in range(300)] for q in (0, 150, 299)]
    np.testing.assert_array_equal(found[[0, 150, 299]], expected)
    # Distances alone decide.
    np.testing.assert_array_equal(found[1:, 1:], found[:-1, :-1])
    assert set(np.unique(found)) <= set(range(buckets))


@pytest.mark.parametrize(
    "wrong", [{"layers": 0}, {"dim": -1}, {"activation": "tanh"}, {"buckets": 2}, {"distance": 2}]
)
def test_configs_without_meaning_raise(wrong):
    with pytest.raises(ValueError, match=r"must be|do not reach"):
        leaf_shapes(dataclasses.replace(TINY, **wrong))


@BOTH
@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_tensors_survive_both_ways(config, dtype):
    """To the bit and in their own type; float16 computes like the float32 of the same values."""
    tensors = tensors_of(config, dtype)
    leaves = layout.read(t5.layout(config), tensors)
    assert {name: leaf.shape for name, leaf in leaves.items()} == {
        name: leaf.shape for name, leaf in leaf_shapes(config).items()
    }
    back = layout.write(t5.layout(config), leaves)
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor, strict=True)
    wide = {name: leaf.astype(np.float32) for name, leaf in leaves.items()}
    states = [
        TextEncoder.of_leaves(config, some, None).encode_tokens(*rows(9, 20))
        for some in (leaves, wide)
    ]
    np.testing.assert_allclose(*states, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "config",
    [TINY, GATED, dataclasses.replace(TINY, gated=True), dataclasses.replace(GATED, gated=False)],
)
def test_configs_survive_both_ways(config):
    assert t5.from_fields(t5.to_fields(config), "config.json") == config


def test_published_fields_are_read():
    """As t5-base's file has them, and flan's."""
    base = {
        "architectures": ["T5WithLMHeadModel"],
        "d_ff": 3072,
        "d_kv": 64,
        "d_model": 768,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.1,
        "eos_token_id": 1,
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "layer_norm_epsilon": 1e-06,
        "model_type": "t5",
        "n_positions": 512,
        "num_heads": 12,
        "num_layers": 12,
        "output_past": True,
        "pad_token_id": 0,
        "relative_attention_num_buckets": 32,
        "task_specific_params": {"summarization": {"prefix": "summarize: "}},
        "vocab_size": 32128,
    }
    assert t5.from_fields(base, "config.json") == T5Config()
    flan = base | {
        "d_ff": 2048,
        "feed_forward_proj": "gated-gelu",
        "dense_act_fn": "gelu_new",
        "is_gated_act": True,
        "num_decoder_layers": 12,
        "relative_attention_max_distance": 128,
        "tie_word_embeddings": False,
        "use_cache": True,
    }
    expected = T5Config(mlp_dim=2048, gated=True, activation="gelu_new")
    assert t5.from_fields(flan, "config.json") == expected


@pytest.mark.parametrize(
    "fields, parts",
    [
        ({"d_modell": 3}, ["unknown field 'd_modell'", "'d_model'"]),
        ({"quantization_config": {}}, ["unknown field 'quantization_config'"]),
        ({"d_model": "768"}, ["d_model must be a whole number in 1..131072, got '768'"]),
        ({"feed_forward_proj": "gated-silu"}, ["feed_forward_proj 'gated-silu' is not supported"]),
        ({"feed_forward_proj": "gelu"}, ["feed_forward_proj 'gelu' is not supported"]),
        ({"dense_act_fn": "silu"}, ["dense_act_fn 'silu' is not supported"]),
        ({"is_gated_act": True}, ["is_gated_act True is not supported"]),
        ({"model_type": "umt5"}, ["'umt5', not a t5"]),
        ({"num_layers": 0}, ["num_layers must be a whole number in 1..128, got 0"]),
        ({"relative_attention_max_distance": 2}, ["describes no model", "8 buckets"]),
        ({"vocab_size": 41}, ["of another shape (shared.weight is (40, 12), not (41, 12))"]),
        ({"num_layers": 2}, ["unknown (encoder.block.2."]),
    ],
)
def test_a_folder_that_is_not_ours_to_read_is_refused(tmp_path, fields, parts):
    write_folder(tmp_path / "m", TINY, **fields)
    refused(lambda: TextEncoder.load(tmp_path / "m"), *parts)


@BOTH
def test_the_embedding_goes_by_either_name_or_both(tmp_path, config):
    """And a whole T5 is read for its encoder."""
    one = tensors_of(config)
    tied = {t5.TIED: one["shared.weight"]}
    two = {name: tensor for name, tensor in one.items() if name != "shared.weight"} | tied
    rest = {"decoder.block.0.layer.0.layer_norm.weight": np.ones(3), "lm_head.weight": np.ones(3)}
    expected = encoder(config).encode_tokens(*rows(9))
    for i, tensors in enumerate((one, two, one | tied, one | tied | rest)):
        write_folder(tmp_path / f"{i}", config, tensors)
        loaded = TextEncoder.load(tmp_path / f"{i}")
        assert loaded.config == config
        np.testing.assert_array_equal(loaded.encode_tokens(*rows(9)), expected)
    assert t5.canonical(one | tied | rest).keys() == one.keys()


def test_prompts_become_tokens(words):
    """Closed, padded with 0 to a multiple of 16; a prompt of spaces is not empty."""
    ids, mask = encoder(TINY, words).tokens(["a slow piano", "", " ", "drum what"])
    assert ids.dtype == np.int32 and ids.shape == mask.shape == (4, 16)
    expected = [[3, 4, 5, 1], [], [1], [7, 2, 1]]
    for row, row_mask, tokens in zip(ids, mask, expected, strict=True):
        np.testing.assert_array_equal(row[: len(tokens)], tokens)
        assert (row[len(tokens) :] == 0).all()
        np.testing.assert_array_equal(row_mask, np.arange(16) < len(tokens))
    for count, length in ((15, 16), (16, 32), (40, 48)):
        assert encoder(TINY, words).tokens([" ".join(["a"] * count)])[0].shape == (1, length)
    for prompts in ([], [""]):
        assert encoder(TINY, words).tokens(prompts)[1].tolist() == [[False] * 16] * len(prompts)


def test_long_prompts_are_cut_and_say_so(words):
    model = dataclasses.replace(encoder(TINY, words), limit=5)
    with pytest.warns(UserWarning, match=r"prompt 1 \('a slow piano in the night'.* 7 .* 5"):
        ids, mask = model.tokens(["a slow loud drum", "a slow piano in the night"])
    np.testing.assert_array_equal(ids[:, :5], [[3, 4, 6, 7, 1], [3, 4, 5, 8, 1]])
    assert mask.sum() == 10


def test_prompts_become_states_one_program_per_length(words):
    """An empty prompt has zeros; prompts beside another do not change it."""
    model = encoder(GATED, words)
    prompts = ["a slow piano", "", "in the night a loud drum"]
    states, mask = model.encode(prompts)
    compiled = text_encoder.states._cache_size()
    assert states.shape == (3, 16, GATED.dim) and mask.sum(axis=1).tolist() == [4, 0, 7]
    assert (np.asarray(states)[1] == 0).all()
    again, _ = model.encode(["piano", "drum", "a " * 14])
    assert again.shape == states.shape and text_encoder.states._cache_size() == compiled
    for i, prompt in enumerate(prompts):
        alone, _ = model.encode([prompt])
        np.testing.assert_allclose(alone[0], states[i], rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match=r"0\.\.39, got 0\.\.40"):
        model.encode_tokens(np.array([[0, 40]], np.int32), np.array([[True, True]]))


def test_a_tokenizer_is_written_back_as_it_was(tmp_path, words):
    """Byte for byte, into a folder that is there or not, and no file beside."""
    encoder(TINY, words).save_tokenizer(tmp_path / "new" / "deep")
    (tmp_path / "old").mkdir()
    encoder(TINY, words).save_tokenizer(tmp_path / "old")
    before = {file.name: file.read_bytes() for file in (tmp_path / "words").iterdir()}
    assert set(before) == {"tokenizer.json", "tokenizer_config.json"}
    for folder in (tmp_path / "new" / "deep", tmp_path / "old"):
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
        assert load_tokenizer(folder).encode("slow drum") == [4, 7, 1]


def test_a_tokenizer_of_sentencepiece_is_read(tmp_path):
    """Where there is no tokenizer.json; its file is kept too."""
    sentencepiece = pytest.importorskip("sentencepiece", reason=REASON)
    lines = [f"a {x} {y} in the night" for x in ("slow", "loud") for y in ("piano", "drum")]
    written = write_pieces(tmp_path, lines, 30)
    found = load_tokenizer(tmp_path)
    assert found.files == {"spiece.model": written}
    processor = sentencepiece.SentencePieceProcessor(model_proto=written)
    ids = found.encode("a loud piano")
    assert ids[-1] == 1 and 2 not in ids and processor.decode(ids) == "a loud piano"
    assert found.encode(" ") == [1]
    (tmp_path / "spiece.model").write_bytes(b"no model")
    refused(lambda: load_tokenizer(tmp_path), "spiece.model cannot be read", "get it again")


def test_tokenizers_that_cannot_be_read_say_so(tmp_path, monkeypatch):
    without = load_tokenizer(tmp_path)
    refused(lambda: without.encode("a"), "neither tokenizer.json nor spiece.model")
    for name, package in (("spiece.model", "sentencepiece"), ("tokenizer.json", "tokenizers")):
        (tmp_path / name).write_text(json.dumps({"version": "1.0"}))
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            refused(
                lambda: load_tokenizer(tmp_path), name, package, "pip install 'rvq_jax[convert]'"
            )
    pytest.importorskip("tokenizers", reason=REASON)
    refused(lambda: load_tokenizer(tmp_path), "tokenizer.json cannot be read", "get it again")
