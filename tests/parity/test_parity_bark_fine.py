"""Bark's fine model is a masked model of ours: within 1e-4 level by level, and what it decodes.

Its learned positions are what ours reads as semantic tokens that count frames. It adds nothing for
levels above the one that it predicts, where ours adds their masks: mask rows that are differences
of neighbours sum to the one row that it adds.
"""

import jax
import numpy as np
import pytest

from rvq_jax import files
from rvq_jax.lm import forms, masked_lm, transformer
from rvq_jax.lm.conditions import condition
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.schedule import timetable

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)
bark = pytest.importorskip("transformers.models.bark.modeling_bark", reason=REASON)

# Levels, codes, frames, rows; the ids from N on are of empty places, and some are never used.
K, N, F, R = 4, 11, 9, 2
IDS, GIVEN, DIM = N + 3, 2, 16
CONFIG = MaskedLMConfig(
    levels=K,
    codebook_size=N,
    dim=DIM,
    layers=2,
    heads=2,
    mlp_dim=4 * DIM,
    block="transformer",
    positions="sinusoidal",
    semantic_size=F,
    semantic_ratio=1,
)


@pytest.fixture(scope="module")
def peer():
    config = bark.BarkFineConfig(
        block_size=F,
        input_vocab_size=IDS,
        output_vocab_size=IDS,
        hidden_size=DIM,
        num_layers=CONFIG.layers,
        num_heads=CONFIG.heads,
        n_codes_total=K,
        n_codes_given=1,
        bias=False,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    made = bark.BarkFineModel(config).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(0.4 * torch.randn_like(weight))
    return made


@pytest.fixture(scope="module")
def params(peer):
    """Ours, of the peer's tensors."""
    t = {name: value.detach().numpy() for name, value in peer.state_dict().items()}
    embed = np.stack([t[f"input_embeds_layers.{k}.weight"][: N + 1] for k in range(K)])
    embed[:-1, N] -= embed[1:, N]
    # The first level is always given, and has no head there.
    heads = np.stack([np.zeros((N, DIM))] + [t[f"lm_heads.{k}.weight"][:N] for k in range(K - 1)])
    places = t["position_embeds_layer.weight"] - transformer.sinusoids(F, DIM)
    found = {"embed": embed, "heads/weight": heads, "readers/semantic/embed": places}
    norms = {"norm": "layernorm_final"}
    for i in range(CONFIG.layers):
        ours, theirs = f"blocks/{i}", f"layers.{i}"
        norms |= {f"{ours}/norm_self": f"{theirs}.layernorm_1"}
        norms |= {f"{ours}/norm_mlp": f"{theirs}.layernorm_2"}
        parts = t[f"{theirs}.attn.att_proj.weight"].reshape(3, CONFIG.heads, -1, DIM)
        found |= {f"{ours}/attend_self/query": parts[0], f"{ours}/attend_self/key_value": parts[1:]}
        found[f"{ours}/attend_self/out"] = t[f"{theirs}.attn.out_proj.weight"]
        found[f"{ours}/up"] = t[f"{theirs}.mlp.in_proj.weight"]
        found[f"{ours}/down"] = t[f"{theirs}.mlp.out_proj.weight"]
    for ours, theirs in norms.items():
        found |= {f"{ours}/scale": t[f"{theirs}.weight"], f"{ours}/bias": t[f"{theirs}.bias"]}
    shapes = forms.abstract(CONFIG)
    named = {name.removesuffix("/value"): leaf for name, leaf in files.named(shapes).items()}
    assert found.keys() == named.keys()
    leaves = [found[name].reshape(leaf.shape).astype("float32") for name, leaf in named.items()]
    return jax.tree.structure(shapes).unflatten(leaves)


def scores(peer, codes_BKF: np.ndarray, level: int) -> np.ndarray:
    """The peer's logits `[B, F, N]` of a level, all of which is empty."""
    tokens = np.where(np.arange(K)[:, None] < level, codes_BKF, N)
    with torch.no_grad():
        return peer(level, torch.tensor(tokens.swapaxes(1, 2))).logits[..., :N].numpy()


def test_each_level_is_predicted_as_by_bark(peer, params):
    codes = np.random.default_rng(0).integers(0, N, (R, K, F))
    model = forms.model(CONFIG, params)
    features = model.read({"semantic": condition(np.tile(np.arange(F), (R, 1)))})
    logits = jax.jit(lambda tokens, level: model.logits(tokens, level, features))
    for level in range(1, K):
        tokens = np.where(np.arange(K)[:, None] < level, codes, N)
        want = scores(peer, codes, level)
        np.testing.assert_allclose(logits(tokens, level), want, rtol=0, atol=1e-4)


def test_the_finer_levels_of_given_ones_are_those_of_bark(peer, params):
    """One iteration each, the likeliest codes, in one program."""
    codes = np.random.default_rng(1).integers(0, N, (R, K, F))
    codes[:, GIVEN:] = -1
    made = masked_lm.generate(
        forms.model(CONFIG, params),
        timetable((1,) * (K - GIVEN), first=GIVEN),
        {"semantic": condition(np.tile(np.arange(F), (R, 1)))},
        jax.random.key(0),
        codes,
        np.full(R, F),
    )
    for level in range(GIVEN, K):
        codes[:, level] = scores(peer, codes, level).argmax(axis=2)
    np.testing.assert_array_equal(made.codes, codes)
