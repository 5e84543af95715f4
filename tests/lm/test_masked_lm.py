"""Masked token models: SoundStorm's shape and MAGNeT's, small."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_lm import filled
from small_masked import (
    CONFIGS,
    KEY,
    PARAMS,
    SOUNDSTORM,
    F,
    K,
    N,
    conditions,
    free,
    random_codes,
)
from tiers import slow

from rvq_jax import files, patterns
from rvq_jax.lm import forms, masked_score
from rvq_jax.lm.conditions import condition, text_condition
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.masking import Masks
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.schedule import timetable
from rvq_jax.systems.decoding import masked as programs
from rvq_jax.systems.decoding.masked import Rescorer, generate_masked
from rvq_jax.train import sharding

B = K * F + 2  # rows of all batches here, so that programs are shared
LENGTHS = np.tile([6, 4, 6, 5, 1], B // 5)
TABLE = timetable((4, 2, 1), confidence_temperature=1.0, guidance=(2.0, 1.0))
each_model = pytest.mark.parametrize("name", ["soundstorm", slow("magnet"), slow("valle")])


@functools.partial(jax.jit, static_argnames=("config", "stacked"))
def logits_of(config, params, tokens, level, given, lengths, stacked=False):
    model = forms.model(config, params, stacked)
    return model.logits(tokens, level, model.read(given), lengths)


@functools.partial(jax.jit, static_argnames=("config", "samples"))
def bound(config, params, codes, given, key, samples, lengths):
    return masked_score.bound(forms.model(config, params), codes, lengths, given, key, samples)


def prompted() -> np.ndarray:
    """A prompt, codes in the middle, the first level, nothing."""
    forced, codes = free(B), random_codes(B)
    forced[0, :, :2], forced[2, :, 2:4] = codes[0, :, :2], codes[2, :, 2:4]
    forced[1, 0, :4] = codes[1, 0, :4]
    return forced


def alone(given: dict, row: int, length: int) -> dict:
    """Conditions of one row, and no longer than it."""
    own = {name: jax.tree.map(lambda x: x[row : row + 1], one) for name, one in given.items()}
    if "semantic" in own:
        cut = own["semantic"]
        own["semantic"] = condition(cut.states[:, : -(-length // 2)])
    return own


@each_model
def test_rows_of_unlike_lengths_are_single_rows(name):
    """Padding is seen by neither attention nor convolutions, whatever it holds."""
    config, params, codes = CONFIGS[name], PARAMS[name], random_codes(B)
    given, level = conditions(config, B), np.arange(B) % K
    together = logits_of(config, params, codes, level, given, LENGTHS)
    row, length = 1, LENGTHS[1]
    args = codes[row : row + 1, :, :length], level[row : row + 1], alone(given, row, length)
    single = logits_of(config, params, *args, np.array([length]))
    np.testing.assert_allclose(single[0], together[row, :length], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_given_is_kept_and_the_rest_is_sampled(name):
    """A prompt, codes in the middle, a whole level; within each row's length."""
    config, params, forced = CONFIGS[name], PARAMS[name], prompted()
    found = generate_masked(config, params, TABLE, conditions(config, B), KEY, forced, LENGTHS)
    codes, bits = np.asarray(found.codes), np.asarray(found.bits)
    whole = np.broadcast_to((np.arange(F)[None] < LENGTHS[:, None])[:, None], codes.shape)
    assert (codes == forced)[forced >= 0].all() and (codes < N).all() and (codes >= 0).all()
    assert not codes[~whole].any() and not bits[~whole | (forced >= 0)].any()
    assert (bits > 0)[whole & (forced < 0)].all()


@pytest.mark.slow
def test_an_autoregressive_model_has_a_say():
    """In what is masked again, with a weight above 0."""
    config = LMConfig(levels=K, codebook_size=N, dim=16, layers=1, heads=2, mlp_dim=32)
    pattern, text = patterns.named("delay", K, F), text_condition(np.ones((B, 4), np.int32))
    other = filled(forms.abstract(config)), pattern, {"text": text}
    args = SOUNDSTORM, PARAMS["soundstorm"], timetable((2, 1, 1))
    args += conditions(SOUNDSTORM, B), KEY, free(B), LENGTHS
    alone = generate_masked(*args)
    none, much = (generate_masked(*args, rescorer=Rescorer(config, *other, w)) for w in (0.0, 0.9))
    assert np.array_equal(alone.codes, none.codes)
    assert not np.array_equal(alone.codes[:, 0], much.codes[:, 0])
    np.testing.assert_allclose(alone.bits, none.bits, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_a_row_alone_is_sampled_as_among_others(name):
    config, params, forced = CONFIGS[name], PARAMS[name], prompted()
    given, row, length = conditions(config, B), 1, LENGTHS[1]
    found = generate_masked(config, params, TABLE, given, KEY, forced, LENGTHS)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.full(1, row))
    own = alone(given, row, length)
    single = generate_masked(config, params, TABLE, own, keys, forced[row : row + 1, :, :length])
    assert np.array_equal(single.codes[0], found.codes[row, :, :length])
    np.testing.assert_allclose(single.bits[0], found.bits[row, :, :length], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_eight_devices_sample_what_one_does(name):
    """Rows on devices of their own, and parameters split as in training."""
    config, params, forced = CONFIGS[name], PARAMS[name], prompted()
    given = conditions(config, B)
    one = generate_masked(config, params, TABLE, given, KEY, forced, LENGTHS)
    mesh = sharding.make_mesh(2, 2, 2)
    split = jax.device_put(params, sharding.of_params(params, mesh))
    placed = sharding.place_batch({"forced": forced, "lengths": LENGTHS}, mesh)
    with jax.set_mesh(mesh):
        args = split, TABLE, given, KEY, placed["forced"], placed["lengths"]
        many = generate_masked(config, *args)
    assert len(many.codes.sharding.device_set) == 8
    assert np.array_equal(one.codes, many.codes)
    np.testing.assert_allclose(one.bits, many.bits, atol=1e-4)


@each_model
def test_bits_are_of_what_was_shown_and_guidance_is_its_definition(name):
    """Of levels that take one iteration all that was shown is known afterwards: bits are those of
    null + w · (full - null), normalized again."""
    config, params = CONFIGS[name], PARAMS[name]
    codes, given = random_codes(B), conditions(config, B)
    inside = np.arange(F)[None] < LENGTHS[:, None]
    forced = np.where(inside[:, None], codes, -1)
    forced[:, K - 1] = -1
    table = timetable((7,), first=K - 1, guidance=3.0)._replace(last=np.arange(7) == 0)
    found = generate_masked(config, params, table, given, KEY, forced, LENGTHS)
    shown = np.where(np.arange(K)[None, :, None] == K - 1, N, codes)
    null = {n: one._replace(kept=np.zeros(B, bool)) for n, one in given.items()}
    level = np.full(B, K - 1)
    full, none = (logits_of(config, params, shown, level, x, LENGTHS) for x in (given, null))
    guided = np.asarray(none + 3.0 * (full - none))
    log2 = (guided - np.log(np.exp(guided).sum(-1, keepdims=True))) / math.log(2)
    bits = -np.take_along_axis(log2, np.asarray(found.codes)[:, K - 1, :, None], axis=-1)[..., 0]
    np.testing.assert_allclose(
        np.asarray(found.bits)[:, K - 1][inside], bits[inside], rtol=1e-3, atol=1e-3
    )
    assert np.abs(full - none).max() > 0.1


@pytest.mark.parametrize("name", CONFIGS)
def test_every_place_that_may_be_seen_is_seen_and_no_other(name):
    """Logits of a level move with a token of any place in the row's own frames, and of no padding;
    MAGNeT's above the first level only with those near by, of either side."""
    config, params, length = CONFIGS[name], PARAMS[name], F - 1
    for level in (0, 1):
        base = random_codes(1)[0]
        rows = np.tile(base, (B, 1, 1))
        for i, (k, f) in enumerate(np.ndindex(K, F)):
            rows[i, k, f] = (rows[i, k, f] + 1) % N
        given = jax.tree.map(lambda x: np.repeat(x[:1], B, 0), conditions(config, 1))
        levels, lengths = np.full(B, level), np.full(B, length)
        logits = np.asarray(logits_of(config, params, rows, levels, given, lengths))
        moved = np.abs(logits - logits[-1:]).max(axis=-1) > 1e-6
        for i, (_, f) in enumerate(np.ndindex(K, F)):
            there = np.arange(length)
            reach = config.layers * (config.context or F) if level else F
            want = (np.abs(there - f) <= reach) & (f < length)
            assert np.array_equal(moved[i, :length], want), (level, f)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_stacked_layers_compute_what_lists_of_them_do(name):
    """With a level of each row, as in training, and with one of all, as in decoding."""
    config, params = CONFIGS[name], PARAMS[name]
    given, codes, levels = conditions(config, B), random_codes(B), np.arange(B) % K
    rows = logits_of(config, params, codes, levels, given, LENGTHS)
    stacked = forms.stack(config, params)
    for leaf, got in files.named(forms.unstack(config, stacked)).items():
        assert np.array_equal(got, files.named(params)[leaf]), leaf
    for level in range(K):
        some = levels == level
        want = logits_of(config, stacked, codes, level, given, LENGTHS, stacked=True)
        np.testing.assert_allclose(rows[some], want[some], atol=1e-4)


def test_schedules_of_one_number_of_iterations_share_a_program():
    args = SOUNDSTORM, PARAMS["soundstorm"]
    given = conditions(SOUNDSTORM, B)
    generate_masked(*args, TABLE, given, KEY, free(B), LENGTHS)
    before = programs._generate._cache_size()
    for table in (
        timetable((1, 1, 5), "linear", guidance=1.0, temperature=0.3),
        timetable((3, 2, 2), "power", guidance=(9.0, 2.0), anneal=True, endpoint=True),
    ):
        generate_masked(*args, table, given, KEY, free(B), LENGTHS)
    assert programs._generate._cache_size() == before


TINY = dataclasses.replace(SOUNDSTORM, levels=2, codebook_size=3, semantic_size=None, layers=1)


@pytest.mark.slow
def test_the_bound_is_above_the_exact_bits_of_the_same_model():
    """Of a row of three frames: its probability is a mean over all orders of each level, by the
    bits of every mask; their mean over orders, which is above it, is what samples of the bound are
    around. A frame of padding changes nothing."""
    params, frames = filled(forms.abstract(TINY)), 3
    codes = np.array([[[0, 2, 1, 0], [1, 1, 0, 2]]])
    subsets = [s for n in (1, 2, 3) for s in itertools.combinations(range(frames), n)]
    cases = [(k, s) for k in range(2) for s in subsets]
    scored = np.array([[f in s for f in range(frames + 1)] for _, s in cases])
    level = np.array([k for k, _ in cases])
    own = (np.arange(2)[None] == level[:, None])[..., None] & scored[:, None]
    hidden = own | np.broadcast_to((np.arange(2)[None] > level[:, None])[..., None], own.shape)
    model, lengths = forms.model(TINY, params), np.full(len(cases), frames)
    rows = jnp.asarray(np.repeat(codes, len(cases), 0))
    bits = jax.jit(masked_score.masked_bits)(
        model, rows, Masks(*map(jnp.asarray, (level, hidden, scored))), model.read({}), lengths
    )
    table = {case: np.asarray(row, np.float64) for case, row in zip(cases, bits, strict=True)}
    orders = list(itertools.permutations(range(frames)))

    def of_order(k: int, order: tuple) -> float:
        left = [tuple(sorted(order[i:])) for i in range(frames)]
        return sum(table[k, s][f] for s, f in zip(left, order, strict=True))

    costs = np.array([[of_order(k, order) for order in orders] for k in range(2)])
    exact = -np.log2((2.0**-costs).mean(axis=1))
    above = costs.mean(axis=1)
    samples = 400
    found = np.asarray(bound(TINY, params, codes, {}, KEY, samples, np.array([frames])))[:, 0]
    assert found.shape == (samples, 2) and (above > exact + 0.001).all()
    error = found.std(axis=0) / math.sqrt(samples)
    assert (np.abs(found.mean(axis=0) - above) < 4 * error).all()
    assert found.sum(1).mean() + 4 * error.sum() > exact.sum()


def count(config: MaskedLMConfig, without: str = "no parameter") -> int:
    """Parameters of a model, but for those of a name; computes nothing."""
    shapes = files.named(forms.abstract(config, stacked=True))
    return sum(math.prod(leaf.shape) for name, leaf in shapes.items() if without not in name)


PUBLISHED = dict(dim=1024, heads=16, mlp_dim=4096)
MUSIC = dict(levels=4, codebook_size=2048, block="transformer", positions="sinusoidal")
MUSIC |= dict(masking="spans", span=3, context=5, text=True, text_dim=768)


def test_published_sizes():
    """SoundStorm has 350 million parameters, MAGNeT 300 million and 1.5 billion: the latter two
    are those of MusicGen, whose cross-attention (4 D^2 for each layer) is not in its names."""
    soundstorm = MaskedLMConfig(
        **PUBLISHED, levels=12, codebook_size=1024, layers=12, conv_kernel=5, semantic_size=1024
    )
    assert count(soundstorm) == pytest.approx(350e6, rel=0.1)
    small = MaskedLMConfig(**MUSIC, **PUBLISHED, layers=24)
    medium = MaskedLMConfig(**MUSIC, dim=1536, heads=24, mlp_dim=6144, layers=48)
    for config, named, whole in ((small, 300e6, 419.6e6), (medium, 1.5e9, 1837.6e6)):
        assert count(config, "readers") == pytest.approx(whole, rel=1e-3)
        cross = count(config) - count(config, "attend_cross")
        assert cross == 4 * config.dim**2 * config.layers
        assert count(config) - cross == pytest.approx(named, rel=0.1)


@pytest.mark.parametrize(
    "change, say",
    [
        (dict(first=1), "level 0 is neither given whole nor in the timetable"),
        (dict(iterations=(1,) * (K + 1)), f"the model has levels 0..{K - 1}"),
        (dict(place=(1, 0, 5, 2)), "a prompt is longer than what is to be generated"),
        (dict(place=(0, 0, 0, N)), f"codes lie in 0..{N - 1}; got {N}"),
        (dict(lengths=np.full(B, F + 1)), "rows have 0..6 frames"),
        (dict(semantic=np.full((B, 3), 9)), "semantic tokens lie in 0..3; got 9"),
        (dict(semantic=np.zeros((B, 6), int)), "6 frames need 3 semantic tokens, one of every 2"),
    ],
)
def test_what_cannot_be_generated_is_said(change, say):
    forced, given = free(B), conditions(SOUNDSTORM, B)
    if "place" in change:
        *place, value = change["place"]
        forced[tuple(place)] = value
    if "semantic" in change:
        given = {"semantic": condition(change["semantic"])}
    first = change.get("first", 0)
    table = timetable(change.get("iterations", (1,) * (K - first)), first=first)
    with pytest.raises(ValueError, match=say):
        lengths = change.get("lengths", LENGTHS)
        generate_masked(SOUNDSTORM, PARAMS["soundstorm"], table, given, KEY, forced, lengths)


@pytest.mark.parametrize(
    "fields, say",
    [
        (dict(span=3), "go with masking spans"),
        (dict(span=0, masking="spans"), "span must be at least 1"),
        (dict(context=0), "context must be at least 1"),
        (dict(text_dim=8), "goes with text True"),
        (dict(heads=3), "cannot be cut into 3 heads"),
        (dict(dim=6, heads=2), "must be even"),
    ],
)
def test_a_config_that_is_no_model_is_refused(fields, say):
    with pytest.raises(ValueError, match=say):
        dataclasses.replace(SOUNDSTORM, **fields)
