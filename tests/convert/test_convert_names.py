"""Names of weights: three spellings of weight norm are one, and what is unknown is left to see."""

import numpy as np
import pytest

from rvq_jax.convert import names

RANDOM = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


def test_three_spellings_of_weight_norm_are_one():
    g, v, bias = array(3, 1, 1), array(3, 2, 5), array(3)
    new = {
        "a.conv.parametrizations.weight.original0": g,
        "a.conv.parametrizations.weight.original1": v,
        "a.conv.bias": bias,
    }
    old = {"a.conv.weight_g": g, "a.conv.weight_v": v, "a.conv.bias": bias}
    assert names.canonical(new) == old and names.canonical(old) == old
    plain = {"a.conv.weight": v, "a.conv.bias": bias}
    assert names.canonical(plain) == plain and names.folded(plain) == plain


def test_folding_keeps_the_direction_and_takes_the_norm():
    """Every row of the first dimension gets the length that g says."""
    g, v = array(3, 1, 1), array(3, 2, 5)
    found = names.folded({"a.weight_g": g, "a.weight_v": v, "a.bias": g})
    assert set(found) == {"a.weight", "a.bias"} and found["a.weight"].dtype == np.float32
    weight = found["a.weight"]
    np.testing.assert_allclose(np.sqrt((weight**2).sum((1, 2))), np.abs(g[:, 0, 0]), rtol=1e-6)
    cosine = (weight * v).sum((1, 2)) / np.sqrt((weight**2).sum((1, 2)) * (v**2).sum((1, 2)))
    np.testing.assert_allclose(cosine, np.sign(g[:, 0, 0]), rtol=1e-6)


def test_a_projection_of_mimi_is_split_and_its_pairs_become_halves():
    """With 2 heads of 4 dimensions the rows 0 1 2 3 of a head become 0 2 1 3, the values stay."""
    rows = np.arange(24)
    fused = np.repeat(rows[:, None], 8, 1)
    name = "encoder_transformer.transformer.layers.0.self_attn.in_proj_weight"
    found = names.mimi({name: fused}, head=4)
    stem = "encoder_transformer.layers.0.self_attn"
    assert list(found) == [f"{stem}.{part}_proj.weight" for part in "qkv"]
    order = [0, 2, 1, 3, 4, 6, 5, 7]
    np.testing.assert_array_equal(found[f"{stem}.q_proj.weight"][:, 0], order)
    np.testing.assert_array_equal(found[f"{stem}.k_proj.weight"][:, 0], np.add(order, 8))
    np.testing.assert_array_equal(found[f"{stem}.v_proj.weight"][:, 0], rows[16:])


def test_a_dac_of_two_blocks_ends_where_it_ends():
    """The last modules' numbers follow from how many blocks there are."""
    old = {
        "encoder.block.0.bias": "encoder.conv1.bias",
        "encoder.block.1.block.2.block.3.bias": "encoder.block.0.res_unit3.conv2.bias",
        "encoder.block.2.block.4.bias": "encoder.block.1.conv1.bias",
        "encoder.block.3.alpha": "encoder.snake1.alpha",
        "encoder.block.4.bias": "encoder.conv2.bias",
        "decoder.model.1.block.2.block.0.alpha": "decoder.block.0.res_unit1.snake1.alpha",
        "decoder.model.2.block.1.bias": "decoder.block.1.conv_t1.bias",
        "decoder.model.3.alpha": "decoder.snake1.alpha",
        "decoder.model.4.bias": "decoder.conv2.bias",
        "quantizer.quantizers.0.codebook.weight": "quantizer.quantizers.0.codebook.weight",
    }
    assert list(names.dac({name: array(1) for name in old})) == list(old.values())


@pytest.mark.parametrize("rename", [names.encodec, names.dac, names.mimi])
def test_unknown_and_misshapen_tensors_keep_their_names(rename):
    """Whoever asks for the known ones reports them; nothing is lost or stumbled over."""
    odd = {
        "discriminator.weight": array(2),
        "a.self_attn.in_proj.weight": array(7, 2),
        "b.self_attn.in_proj.weight": array(3),
        "c.weight_v": array(3, 2),
        "c.weight_g": array(2, 1, 1),
        "d.weight_g": array(2),
        "e.weight_v": np.float32(1),
        "e.weight_g": np.float32(1),
    }
    assert set(rename(odd)) == set(odd)
