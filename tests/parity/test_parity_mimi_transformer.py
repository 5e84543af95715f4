"""The transformer computes what transformers' MimiTransformerModel computes, whole and streamed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rvq_jax.codec.transformer import Transformer, TransformerConfig

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)
mimi = pytest.importorskip("transformers.models.mimi.modeling_mimi", reason=REASON)

TINY = TransformerConfig(
    dim=32, layers=3, heads=4, kv_heads=2, head_dim=16, mlp_dim=48, context=7, rope_theta=500.0
)

VECTORS = {
    "attention_norm_scale": "input_layernorm.weight",
    "attention_norm_bias": "input_layernorm.bias",
    "attention_scale": "self_attn_layer_scale.scale",
    "mlp_norm_scale": "post_attention_layernorm.weight",
    "mlp_norm_bias": "post_attention_layernorm.bias",
    "mlp_scale": "mlp_layer_scale.scale",
}
# Theirs are [out, in], ours [in, out], those of one product side by side.
MATRICES = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "up": ("mlp.fc1",),
    "down": ("mlp.fc2",),
}


def peer_of(config):
    """Theirs with random weights, every vector away from where training starts it."""
    torch.manual_seed(0)
    peer = mimi.MimiTransformerModel(
        mimi.MimiConfig(
            hidden_size=config.dim,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.mlp_dim,
            sliding_window=config.context,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            norm_eps=config.eps,
            attn_implementation="eager",
        )
    )
    with torch.no_grad():
        for name, tensor in peer.named_parameters():
            if name.endswith("norm.weight"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                tensor.normal_(std=0.1)
            elif name.endswith("scale"):
                tensor.uniform_(0.1, 0.5)
    return peer.eval()


def copy(peer, config):
    """Ours with their weights."""
    ours = Transformer(config, nnx.Rngs(0))
    tensors = {name: tensor.numpy() for name, tensor in peer.state_dict().items()}

    def stack(name):
        return np.stack([tensors[f"layers.{i}.{name}"] for i in range(config.layers)])

    values = {name: stack(theirs) for name, theirs in VECTORS.items()}
    for name, parts in MATRICES.items():
        matrices = [stack(f"{part}.weight").swapaxes(1, 2) for part in parts]
        values[name] = np.concatenate(matrices, axis=2)
    assert set(values) == set(nnx.to_pure_dict(nnx.state(ours)))
    for name, value in values.items():
        param = getattr(ours, name)
        assert param.shape == value.shape
        param[...] = jnp.asarray(value)
    return ours


@pytest.mark.parametrize(
    "config, frames, block",
    [(TINY, 5, 1), (TINY, 12, 3), (TINY, 40, 1), (TransformerConfig(), 260, 130)],
    ids=["below the window", "square", "blocks", "published size"],
)
def test_outputs_equal(config, frames, block):
    """Within 1e-5 of the peak, for lengths on either side of the window."""
    peer = peer_of(config)
    ours = copy(peer, config)
    latents = np.random.default_rng(0).standard_normal((2, frames, config.dim)).astype(np.float32)
    with torch.no_grad():
        expected = peer(torch.from_numpy(latents)).last_hidden_state.numpy()
    close = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(jax.jit(ours.__call__)(latents), expected, rtol=0, atol=close)
    step, state = jax.jit(ours.step), ours.state(2)
    for begin in range(0, frames - block + 1, block):
        part = slice(begin, begin + block)
        got, state = step(latents[:, part], state)
        np.testing.assert_allclose(got, expected[:, part], rtol=0, atol=close)
