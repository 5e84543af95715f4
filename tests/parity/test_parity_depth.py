"""Depth decoders of Moshi and CSM are ours by name, and CSM's layers are Llama blocks: within 1e-4,
all at once and step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rvq_jax import files
from rvq_jax.lm import forms, transformer
from rvq_jax.lm.depth import DepthConfig, DepthHeads
from rvq_jax.lm.llama import LlamaBlock
from rvq_jax.lm.sampling import Sampling
from rvq_jax.lm.transformer import KVCache
from rvq_jax.systems import rq_transformer

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)
moshi = pytest.importorskip("transformers.models.moshi.modeling_moshi", reason=REASON)
csm = pytest.importorskip("transformers.models.csm.modeling_csm", reason=REASON)

K, N, D, R = 5, 11, 24, 6  # levels, codes, the temporal model's features, rows
SIZES = {"dim": 32, "layers": 2, "heads": 4, "mlp_dim": 40}
MOSHI = DepthConfig(
    **SIZES, shared=False, positions="none", state="added", norm=False, eps=1e-8
)  # fmt: skip
CSM = DepthConfig(**SIZES, kv_heads=2, state="first", rope_theta=500.0)


def moshi_peer():
    config = moshi.MoshiDepthConfig(
        vocab_size=N,
        hidden_size=MOSHI.dim,
        input_size=D,
        num_hidden_layers=MOSHI.layers,
        num_attention_heads=MOSHI.heads,
        audio_vocab_size=N,
        ffn_dim=2 * MOSHI.mlp_dim,
        rms_norm_eps=MOSHI.eps,
        num_codebooks=K,
        attn_implementation="eager",
    )
    return drawn(moshi.MoshiDepthDecoder(config))


def csm_peer():
    config = csm.CsmDepthDecoderConfig(
        num_codebooks=K,
        backbone_hidden_size=D,
        vocab_size=N,
        hidden_size=CSM.dim,
        intermediate_size=CSM.mlp_dim,
        num_hidden_layers=CSM.layers,
        num_attention_heads=CSM.heads,
        num_key_value_heads=CSM.kv_heads,
        rms_norm_eps=CSM.eps,
        rope_parameters={"rope_type": "default", "rope_theta": CSM.rope_theta},
        attn_implementation="eager",
    )
    return drawn(csm.CsmDepthDecoderForCausalLM(config))


def drawn(peer):
    """Theirs with random weights, every vector away from where training starts it."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in peer.named_parameters():
            if name.endswith("norm.weight"):
                tensor.uniform_(0.5, 1.5)
            else:
                tensor.normal_(std=tensor.shape[-1] ** -0.5 if "embed" not in name else 1.0)
    return peer.eval()


def tensors_of(peer) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in peer.state_dict().items()}


def matrices(theirs: dict, prefix: str, middle: str, heads: int, kv: int, each=()) -> dict:
    """The attention and the norms of a layer: names and axes are all that differs."""
    query, key, value, out = (
        theirs[f"{prefix}.self_attn.{part}_proj.{middle}weight"] for part in "qkvo"
    )
    width = query.shape[-2] // heads
    keys = [x.reshape(*each, kv, width, -1) for x in (key, value)]
    return {
        "attend_self/query": query.reshape(*each, heads, width, -1),
        "attend_self/key_value": np.stack(keys, axis=len(each)),
        "attend_self/out": out.reshape(*each, -1, heads, width),
        "norm_self/scale": theirs[f"{prefix}.input_layernorm.weight"],
        "norm_mlp/scale": theirs[f"{prefix}.post_attention_layernorm.weight"],
    }


def with_values(module, values: dict):
    """The module with these values, by the names of its parameters; it has no others."""
    graphdef, state = nnx.split(module)
    named = {n.removesuffix("/value"): leaf for n, leaf in files.named(state).items()}
    assert {n: x.shape for n, x in named.items()} == {n: x.shape for n, x in values.items()}
    leaves = [jnp.asarray(values[name]) for name in named]
    return nnx.merge(graphdef, jax.tree.unflatten(jax.tree.structure(state), leaves))


def moshi_values(theirs: dict) -> dict:
    values = {
        "project": theirs["input_projections.weight"],
        "embed": np.stack([theirs[f"embed_tokens.{k}.weight"] for k in range(K - 1)]),
        "first": theirs["lm_heads.weight"][0],
        "weight": theirs["lm_heads.weight"][1:],
    }
    for i in range(MOSHI.layers):
        layer = f"layers.{i}"
        found = matrices(theirs, layer, "linear.", MOSHI.heads, MOSHI.heads, (K,))
        found["gate"], found["up"] = np.split(theirs[f"{layer}.mlp.fc1.weight"], 2, axis=1)
        found["down"] = theirs[f"{layer}.mlp.fc2.weight"]
        values |= {f"blocks/{i}/each/{name}": value for name, value in found.items()}
    return values


def llama_values(theirs: dict, config, prefix: str) -> dict:
    found = matrices(theirs, prefix, "", config.heads, config.kv_heads)
    return found | {n: theirs[f"{prefix}.mlp.{n}_proj.weight"] for n in ("gate", "up", "down")}


def csm_values(theirs: dict, first: np.ndarray) -> dict:
    """first: the head of the first level, which is their backbone's."""
    tables = theirs["model.embed_tokens.weight"].reshape(K, N, D)
    values = {
        "project": theirs["model.inputs_embeds_projector.weight"],
        # Theirs has empty places among its N, ours one more.
        "embed": np.pad(tables[:-1], ((0, 0), (0, 1), (0, 0))),
        "first": first,
        "weight": theirs["codebooks_head.weight"].swapaxes(1, 2),
        "norm/scale": theirs["model.norm.weight"],
    }
    for i in range(CSM.layers):
        found = llama_values(theirs, CSM, f"model.layers.{i}")
        values |= {f"blocks/{i}/{name}": value for name, value in found.items()}
    return values


def assert_close(found, expected):
    close = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=close)


def check(heads: DepthHeads, hidden: np.ndarray, codes_RK: np.ndarray, expected: np.ndarray):
    """Logits `[R, K, N]` all at once, and the bits of decoding level by level."""
    first, others = heads.logits(hidden, codes_RK)
    assert_close(np.concatenate([first[:, None], others], axis=1), expected)
    keys = jax.random.split(jax.random.key(0), R)
    stepwise = heads.sample(
        keys, hidden[None], codes_RK, np.ones((R, K), bool), Sampling(), None
    )  # fmt: skip
    wanted = np.log2(np.exp(expected).sum(-1))
    wanted -= np.take_along_axis(expected, codes_RK[..., None], 2)[..., 0] / np.log(2)
    assert (np.asarray(stepwise[0]) == codes_RK).all()
    assert_close(stepwise[1], wanted)


def inputs():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, N, (R, K)).astype(np.int32)
    return rng.normal(size=(R, D)).astype(np.float32), codes


def test_moshis_depth_decoder_is_ours_with_matrices_for_each_level():
    peer = moshi_peer()
    hidden, codes = inputs()
    with torch.no_grad():
        # Their first place reads a token of text: one that adds nothing.
        peer.text_embed_tokens.weight[0] = 0
        ids = np.concatenate([np.zeros((R, 1), np.int64), codes[:, :-1]], axis=1)
        states = torch.from_numpy(np.repeat(hidden[:, None], K, axis=1))
        mask = torch.ones((R, K), dtype=torch.bool)
        expected = peer(torch.from_numpy(ids), states, attention_mask=mask).logits.numpy()
    ours = DepthHeads(MOSHI, K, N, D, nnx.Rngs(0))
    check(with_values(ours, moshi_values(tensors_of(peer))), hidden, codes, expected)


def test_csms_depth_decoder_is_ours_with_the_state_first():
    peer = csm_peer()
    hidden, codes = inputs()
    head = np.random.default_rng(1).normal(size=(N, D)).astype(np.float32)
    with torch.no_grad():
        ids = torch.from_numpy(np.concatenate([np.zeros((R, 1), np.int64), codes[:, :-1]], 1))
        others = peer(ids, backbone_last_hidden_state=torch.from_numpy(hidden)).logits.numpy()
    expected = np.concatenate([(hidden @ head.T)[:, None], others], axis=1)
    ours = DepthHeads(CSM, K, N, D, nnx.Rngs(0))
    check(with_values(ours, csm_values(tensors_of(peer), head)), hidden, codes, expected)


def test_csms_backbone_layer_is_a_llama_block():
    """Whole, and step by step with a cache."""
    peer, T = csm_peer().model, 7
    x = np.random.default_rng(2).normal(size=(2, T, CSM.dim)).astype(np.float32)
    angles = jnp.asarray(transformer.rope_angles(T, CSM.dim // CSM.heads, CSM.rope_theta))[None]
    places = torch.arange(T)[None]
    with torch.no_grad():
        mask = torch.full((1, 1, T, T), -torch.inf).triu(1)
        rotary = peer.rotary_emb(torch.from_numpy(x), places)
        expected = peer.layers[0](
            torch.from_numpy(x), attention_mask=mask, position_embeddings=rotary
        ).numpy()
    values = llama_values(tensors_of(peer), CSM, "layers.0")
    block = LlamaBlock(CSM.dim, CSM.heads, CSM.mlp_dim, nnx.Rngs(0), kv_heads=CSM.kv_heads)
    block = with_values(block, values)
    assert_close(block(x, None, angles, causal=True), expected)
    zeros = jnp.zeros((2, CSM.kv_heads, T, CSM.dim // CSM.heads))
    cache = KVCache(zeros.swapaxes(2, 3), zeros)
    for t in range(T):
        past = (jnp.arange(T) <= t)[None]
        y_DB, cache = block.step(x[:, t].T, cache, t, past, None, angles[:, t : t + 1])
        assert_close(y_DB.T, expected[:, t])


@pytest.mark.parametrize("name", ["csm_1b", "moshi_7b"])
def test_published_layers_have_as_many_parameters(name):
    """Theirs by their own defaults, in shapes."""
    ours = files.named(forms.abstract(getattr(rq_transformer, name)()))
    with torch.device("meta"):
        if name == "csm_1b":
            frames = csm.CsmBackboneModel(csm.CsmConfig())
            levels = csm.CsmDepthDecoderModel(csm.CsmDepthDecoderConfig())
        else:
            frames = moshi.MoshiModel(moshi.MoshiConfig())
            levels = moshi.MoshiDepthDecoder(moshi.MoshiDepthConfig())
    for theirs, prefix in ((frames, "blocks/"), (levels, "heads/blocks/")):
        found = sum(x.numel() for x in theirs.layers.parameters())
        assert found == sum(x.size for n, x in ours.items() if n.startswith(prefix))
