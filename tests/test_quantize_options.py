"""Options of the quantizer: which clash, what each does, and what callers can get wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvq_jax import quantize as q

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 12, 6))


def books(levels=3, size=16, dim=6):
    return q.init(KEY, levels, size, dim)


@pytest.mark.parametrize(
    ("state", "options", "both"),
    [
        (q.FSQ.init(2, (3,) * 6), {"learning": q.EMA()}, ("EMA", "FSQ")),
        (q.LFQ.init(2, 6), {"learning": q.EMA()}, ("EMA", "LFQ")),
        (q.SimVQ.init(KEY, 2, 8, 6), {"learning": q.EMA()}, ("EMA", "SimVQ")),
        (q.QINCo.init(KEY, 2, 8, 6), {"learning": q.EMA()}, ("EMA", "QINCo")),
        (
            q.SimVQ.init(KEY, 2, 8, 6),
            {"learning": q.Gradient(expiry=0.1)},
            ("Gradient(expiry=0.1)", "SimVQ"),
        ),
        (q.Projected.init(KEY, 2, 8, 6, 3), {}, ("Projected", "per_level=False")),
        (
            q.Projected.around(KEY, 6, q.FSQ.init(2, (3, 3))),
            {"learning": q.EMA(), "per_level": True},
            ("EMA", "FSQ"),
        ),
        (q.FSQ.init(2, (3,) * 6), {"temperature": 0.5}, ("temperature=0.5", "FSQ")),
        (q.LFQ.init(2, 6), {"temperature": 0.5}, ("temperature=0.5", "LFQ")),
        (q.QINCo.init(KEY, 2, 8, 6), {"temperature": 0.5}, ("temperature=0.5", "QINCo")),
    ],
)
def test_options_that_clash_in_training(state, options, both):
    with pytest.raises(ValueError, match="clash") as error:
        q.quantize(state, X, key=KEY, train=True, **options)
    assert all(name in str(error.value) for name in both)


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (q.Cosine.init(KEY, 2, 8, 6), "Cosine"),
        (q.Projected.init(KEY, 2, 8, 6, 3), "Projected"),
        (q.FSQ.init(2, (3,) * 6), "FSQ"),
        (q.LFQ.init(2, 6), "LFQ"),
        (q.QINCo.init(KEY, 2, 8, 6), "QINCo"),
        (q.Strided(q.init(KEY, 2, 8, 6), (2, 1)), "Strided"),
        (q.Split(q.init(KEY, 1, 8, 6), q.Cosine.init(KEY, 1, 8, 6)), "Cosine"),
    ],
)
def test_a_beam_and_the_kernel_need_tables_in_the_latent_space(state, name):
    with pytest.raises(ValueError, match=f"beam=4 and {name} clash"):
        q.encode(state, X, beam=4)
    with pytest.raises(ValueError, match=f"beam tables and {name} clash"):
        q.beam_tables(state)
    with pytest.raises(ValueError, match=f"kernel and {name} clash"):
        q.encode(state, X, kernel=True)


LATENT_TABLES = [
    q.init(KEY, 3, 16, 6),
    q.init(KEY, 3, (16, 5, 9), 6),
    q.SimVQ.init(KEY, 3, 16, 6),
    q.Shared.init(KEY, 3, 16, 6),
    q.Grouped.of([q.init(KEY, 2, (16, 7), 3), q.init(jax.random.key(9), 2, (16, 7), 3)]),
    q.Split(q.init(KEY, 1, 16, 6), q.init(KEY, 3, 8, 6)),
    q.Bottleneck.init(KEY, 6, q.init(KEY, 3, 16, 4)),
]


@pytest.mark.parametrize("state", LATENT_TABLES, ids=lambda state: type(state).__name__)
def test_tables_find_what_residuals_find(state):
    """For all levels or a prefix. Two orders of a shared codebook's codes are equally good: so the
    decoded latents are compared."""
    tables = q.beam_tables(state)
    for levels in (None, 2):
        codes = [q.encode(state, X, levels, beam=3, tables=t) for t in (None, tables)]
        np.testing.assert_allclose(*(q.decode(state, c) for c in codes), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("state", LATENT_TABLES, ids=lambda state: type(state).__name__)
def test_the_kernel_is_for_tpus_and_changes_nothing_elsewhere(state):
    assert (q.encode(state, X, kernel=True) == q.encode(state, X)).all()
    encode = jax.jit(q.encode, static_argnames="kernel").trace(state, X, kernel=True)
    assert "tpu_custom_call" in encode.lower(lowering_platforms=("tpu",)).as_text()
    assert "custom_call" not in encode.lower(lowering_platforms=("cuda",)).as_text()


def test_search_options_that_clash():
    tables = q.beam_tables(books())
    with pytest.raises(ValueError, match="tables and beam=1 clash"):
        q.encode(books(), X, tables=tables)
    with pytest.raises(ValueError, match="kernel and beam=2 clash"):
        q.encode(books(), X, beam=2, kernel=True)


@pytest.mark.parametrize("state", [q.FSQ.init(2, (3,) * 6), q.LFQ.init(2, 6)])
def test_k_means_needs_codebooks(state):
    with pytest.raises(ValueError, match=f"k-means and {type(state).__name__} clash"):
        q.start(KEY, state, jnp.ones((5000, 6)))


def test_projections_need_a_codebook_per_level():
    with pytest.raises(ValueError, match="Projected and Shared clash"):
        q.Projected.around(KEY, 6, q.Shared.init(KEY, 2, 8, 3))


def test_bad_input():
    state = books()
    with pytest.raises(ValueError, match=r"latents must be \[B, F, 6\], got \[2, 12, 5\]"):
        q.encode(state, X[..., :5])
    with pytest.raises(ValueError, match=r"latents must be \[B, F, 6\], got \[12, 6\]"):
        q.quantize(state, X[0])
    for bad in (jnp.nan, jnp.inf):
        with pytest.raises(ValueError, match="latents must be finite"):
            q.encode(state, X.at[1, 3, 2].set(bad))
        with pytest.raises(ValueError, match="latents must be finite"):
            q.quantize(state, X.at[1, 3, 2].set(bad))
        with pytest.raises(ValueError, match="vectors must be finite"):
            q.start(KEY, state, jnp.ones((100, 6)).at[3, 3].set(bad))
    with pytest.raises(ValueError, match=r"mask must be \[B, F\] = \[2, 12\], got \[12, 2\]"):
        q.quantize(state, X, mask=jnp.ones((12, 2), bool))
    with pytest.raises(ValueError, match=r"levels must be in 1\.\.3, got 0"):
        q.encode(state, X, levels=0)
    with pytest.raises(ValueError, match=r"levels must be in 1\.\.3, got 0"):
        q.decode(state, jnp.zeros((2, 0, 4), int))
    with pytest.raises(ValueError, match=r"codes must be integers \[B, K, F\], got float32"):
        q.decode(state, jnp.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="beam must be at least 1, got 0"):
        q.encode(state, X, beam=0)
    for sizes in ((0, 8, 4), (2, 0, 4), (2, 8, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            q.init(KEY, *sizes)
    with pytest.raises(ValueError, match="3 levels need as many sizes, got 2"):
        q.init(KEY, 3, (8, 8), 4)
    with pytest.raises(ValueError, match="at least 48 vectors, got 47"):
        q.start(KEY, state, jnp.ones((47, 6)))
    with pytest.raises(ValueError, match="multiple of the 2 groups, got 3"):
        q.encode(q.Grouped.of([books(2, 8, 3), books(2, 8, 3)]), X, levels=3)
    with pytest.raises(ValueError, match="grids >= 2"):
        q.FSQ.init(1, (1, 3))
    with pytest.raises(ValueError, match=r"code_dim must be in 1\.\.6, got 7"):
        q.Projected.init(KEY, 1, 8, 6, 7)


@pytest.mark.parametrize("plus_plus", [False, True])
def test_vectors_all_equal(plus_plus):
    """k-means and training on one point: finite, and the point is reproduced."""
    point = jnp.arange(6.0)
    state = q.start(KEY, books(2, 8, 6), jnp.tile(point, (64, 1)), plus_plus=plus_plus)
    x = jnp.broadcast_to(point, (1, 20, 6))
    out = q.quantize(state, x, key=KEY, train=True)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))
    np.testing.assert_allclose(out.latents, x, atol=1e-5)


@pytest.mark.parametrize(
    "state",
    [
        q.init(KEY, 2, (16, 5), 6),
        q.Cosine.init(KEY, 2, 16, 6),
        q.Projected.init(KEY, 2, 16, 6, 3),
        q.SimVQ.init(KEY, 2, 16, 6),
        q.QINCo.init(KEY, 2, 16, 6),
        q.Shared.init(KEY, 2, 16, 6),
        q.Grouped.of([q.init(KEY, 2, 16, 3), q.init(KEY, 2, 16, 3)]),
        q.Grouped.of([q.SimVQ.init(KEY, 2, 16, 3), q.SimVQ.init(KEY, 2, 16, 3)]),
        q.Grouped.of([q.Shared.init(KEY, 2, 16, 3), q.Shared.init(KEY, 2, 16, 3)]),
        q.Strided(q.SimVQ.init(KEY, 2, 16, 6), (2, 1)),
        q.Split(q.init(KEY, 1, 16, 6), q.init(KEY, 1, 16, 6)),
        q.Bottleneck.init(KEY, 6, q.init(KEY, 2, 16, 4)),
        q.Strided(q.init(KEY, 2, 16, 6), (2, 1)),
    ],
    ids=lambda state: type(state).__name__,
)
def test_start_of_every_kind_beats_random_codebooks(state):
    """Fitted to data far from random codebooks, commitment falls, and codes are in use."""
    x = 3.0 * jax.random.normal(jax.random.key(2), (4, 128, 6)) + 1.0
    started = q.start(KEY, state, x.reshape(-1, 6), plus_plus=True)
    before, after = q.quantize(state, x), q.quantize(started, x)
    assert after.commitment[0] < before.commitment[0]
    assert (after.stats.use > 0.25).all()


def test_a_shared_codebook_starts_on_what_every_level_sees():
    """Fitted to the vectors alone, it would suit no residual: the last level must shrink it too."""
    x = jax.random.normal(jax.random.key(2), (8, 128, 6))
    state = q.start(KEY, q.Shared.init(KEY, 4, 32, 6), x.reshape(-1, 6))
    residual = np.asarray(q.quantize(state, x).stats.residual)
    assert (np.diff(residual) < 0).all()
    with pytest.raises(ValueError, match="at least 128 vectors, got 127"):
        q.start(KEY, state, x.reshape(-1, 6)[:127])


def test_plus_plus_finds_every_cluster():
    """16 far clusters, 16 codes: k-means++ starts one in each where a random start misses some."""
    centres = 100.0 * jax.random.normal(jax.random.key(3), (16, 6))
    points = jnp.repeat(centres, 20, 0) + jax.random.normal(jax.random.key(4), (320, 6))
    state = q.start(KEY, books(1, 16, 6), points, plus_plus=True)
    assert q.quantize(state, points[None]).stats.use[0] == 1.0


@given(st.integers(0, 99))
def test_rotation_turns_the_gradient_with_the_codeword(seed):
    """The value is the codeword; a gradient along the codeword comes back along the input, scaled
    by their lengths; and no gradient is longer than that scale."""
    e, c, g = jax.random.normal(jax.random.key(seed), (3, 40, 5))
    value, pull = jax.vjp(lambda e: q.rotation(e, c), e)
    np.testing.assert_allclose(value, c, atol=1e-6)
    scale = jnp.linalg.norm(c, axis=1) / jnp.linalg.norm(e, axis=1)

    def unit(v):
        return v / jnp.linalg.norm(v, axis=1, keepdims=True)

    np.testing.assert_allclose(pull(unit(c))[0], scale[:, None] * unit(e), rtol=1e-3, atol=1e-4)
    lengths = jnp.linalg.norm(pull(g)[0], axis=1) / jnp.linalg.norm(g, axis=1)
    np.testing.assert_allclose(lengths, scale, rtol=1e-3)


def test_rotation_without_a_direction_is_straight_through():
    for e, c in ((jnp.zeros((1, 3)), jnp.ones((1, 3))), (jnp.ones((1, 3)), -jnp.ones((1, 3)))):
        value, pull = jax.vjp(lambda e, c=c: q.rotation(e, c), e)
        assert (value == c).all()
        assert (pull(jnp.ones((1, 3)))[0] == 1).all()


@pytest.mark.parametrize("per_level", [False, True])
def test_rotation_quantizes_to_the_same_values(per_level):
    a = q.quantize(books(), X, estimator=q.straight_through, per_level=per_level)
    b = q.quantize(books(), X, estimator=q.rotation, per_level=per_level)
    np.testing.assert_allclose(a.latents, b.latents, atol=1e-5)
    grads = [
        jax.grad(lambda x, e=e: jnp.sum(q.quantize(books(), x, estimator=e).latents ** 2))(X)
        for e in (q.straight_through, q.rotation)
    ]
    assert not np.allclose(*grads, atol=1e-3)


def test_sampling_follows_the_temperature():
    """One vector many times: shares of codes are the softmax of -distance / temperature."""
    state = books(1, 4, 6)
    x = jnp.broadcast_to(X[:1, :1], (50, 400, 6))
    out = q.quantize(state, x, key=KEY, train=True, temperature=2.0, learning=q.Frozen())
    share = np.bincount(np.asarray(out.codes).ravel(), minlength=4) / 20_000
    distance = ((state.vectors[0] - X[0, 0][None]) ** 2).sum(1)
    np.testing.assert_allclose(share, jax.nn.softmax(-distance / 2.0), atol=0.02)
    cold = q.quantize(state, x, key=KEY, train=True, temperature=1e-4, learning=q.Frozen())
    assert (cold.codes == q.encode(state, x)).all()


def test_a_draw_does_not_depend_on_the_batch():
    options = {"key": KEY, "train": True, "temperature": 1.0, "learning": q.Frozen()}
    whole = q.quantize(books(), X, dropout=q.Dropout(0.9), **options)
    one = q.quantize(books(), X[:1, :7], dropout=q.Dropout(0.9), **options)
    assert (whole.codes[:1, :, :7] == one.codes).all()
    np.testing.assert_allclose(whole.latents[:1, :7], one.latents, atol=1e-6)


def test_dropout_by_multiples_bandwidths_and_batch():
    kept = q.Dropout(1.0, q.multiples(4, 16)).kept(KEY, 400, 16)
    assert set(np.asarray(kept).tolist()) == {4, 8, 12, 16}
    choices = q.bandwidths((1.5, 3, 6, 12, 24), frame_rate=75, bits=10)
    assert choices == (2, 4, 8, 16, 32)
    kept = q.Dropout(0.5, choices).kept(KEY, 2000, 32)
    assert set(np.asarray(kept).tolist()) == set(choices)
    # Half keep all, and a fifth of the other half draws all.
    np.testing.assert_allclose((kept == 32).mean(), 0.6, atol=0.05)
    draws = [q.Dropout(1.0, per_batch=True).kept(jax.random.key(i), 9, 8) for i in range(20)]
    assert all((d == d[0]).all() for d in draws) and len({int(d[0]) for d in draws}) > 3
    for choices in ((), (0, 1), (5,)):
        with pytest.raises(ValueError, match=r"choices must be in 1\.\.4"):
            q.Dropout(1.0, choices).kept(KEY, 2, 4)
    with pytest.raises(ValueError, match=r"rate must be in 0\.\.1"):
        q.Dropout(1.5).kept(KEY, 2, 4)
    with pytest.raises(ValueError, match=r"one level takes 0\.75 kbps"):
        q.bandwidths((0.5,), 75, 10)


def test_dropped_levels_cost_nothing():
    """No commitment, and no part in the sum; a split drops its last levels first."""
    state = q.Split(books(1), books(2))
    out = q.quantize(state, X, key=KEY, train=True, dropout=q.Dropout(1.0, (2,)))
    np.testing.assert_allclose(out.latents, q.decode(state, out.codes[:, :2]), atol=1e-5)
    assert out.commitment[1] > 0 and out.commitment[2] == 0


def test_a_shared_codebook_learns_from_every_level():
    """Its means are those of all levels' inputs together, in plain numpy."""
    state = q.Shared.init(KEY, 3, 8, 6)
    rule = q.EMA(decay=0.9, expiry=0.0)
    out = q.quantize(state, X, key=KEY, train=True, learning=rule)
    codes = np.asarray(out.codes).transpose(1, 0, 2).reshape(3, -1)
    residual, seen, chosen = np.asarray(X.reshape(-1, 6)), [], []
    for k in range(3):
        seen.append(residual)
        chosen.append(codes[k])
        residual = residual - np.asarray(state.one.vectors[0])[codes[k]]
    seen, chosen = np.concatenate(seen), np.concatenate(chosen)
    for n in np.unique(chosen):
        want = seen[chosen == n].mean(0)
        np.testing.assert_allclose(out.state.one.vectors[0, n], want, rtol=1e-3, atol=1e-4)


def test_no_code_beyond_a_levels_size_is_ever_used_or_revived():
    state = q.init(KEY, 2, (16, 3), 6)
    for i in range(5):
        out = q.quantize(
            state, X, key=jax.random.key(i), train=True, learning=q.EMA(0.5, expiry=1.0)
        )
        assert (out.codes[:, 1] < 3).all() and (out.state.counts[1, 3:] == 0).all()
        state = out.state
    cold = q.quantize(state, X, key=KEY, train=True, temperature=50.0)
    assert (cold.codes[:, 1] < 3).all()


def test_frozen_and_evaluation_change_nothing():
    state = books()
    for options in ({}, {"key": KEY, "train": True, "learning": q.Frozen()}):
        out = q.quantize(state, X, **options)
        jax.tree.map(np.testing.assert_array_equal, out.state, state)
    loss = jax.grad(lambda s: q.quantize(s, X).codebook.sum(), allow_int=True)(state)
    assert (loss.vectors == 0).all()


def test_the_codebook_loss_teaches_by_gradient():
    """Its gradient at a codeword is 2 (codeword - mean of its vectors) · share / D."""
    state = books(1)
    grad = jax.grad(
        lambda s: q.quantize(s, X, key=KEY, train=True, learning=q.Gradient()).codebook[0]
    )(state)
    codes, x = np.asarray(q.encode(state, X))[:, 0].ravel(), np.asarray(X.reshape(-1, 6))
    for n in range(16):
        mine = x[codes == n]
        want = 2 * (len(mine) * np.asarray(state.vectors[0, n]) - mine.sum(0)) / x.size
        np.testing.assert_allclose(grad.vectors[0, n], want, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("make", [q.init, q.Cosine.init, q.Shared.init])
def test_gradient_learning_replaces_dead_codes_too(make):
    """Codes that one batch never chose become vectors of that batch (whole, also where they are
    searched by direction); codes that it chose stay for the gradient to move; and the losses are as
    without replacement."""
    state = make(KEY, 1, 16, 6)
    rule = q.Gradient(expiry=0.1)
    options = {"key": KEY, "train": True}
    out = q.quantize(state, X, learning=rule, **options)
    plain = q.quantize(state, X, learning=q.Gradient(), **options)
    np.testing.assert_array_equal(out.codebook, plain.codebook)
    books = getattr(state, "one", state)
    learned = getattr(out.state, "one", out.state)
    codes = np.asarray(out.codes).ravel()
    alive = np.isin(np.arange(16), codes)
    assert 0 < alive.sum() < 16
    np.testing.assert_array_equal(learned.vectors[0, alive], books.vectors[0, alive])
    candidates = np.asarray(X.reshape(-1, 6))
    for vector in np.asarray(learned.vectors[0, ~alive]):
        assert np.abs(candidates - vector).sum(1).min() < 1e-5
    share = np.bincount(codes, minlength=16) / codes.size
    np.testing.assert_allclose(learned.counts[0, alive], 0.01 * share[alive], rtol=1e-4)
    # Evaluation has the losses and changes nothing.
    same = q.quantize(state, X, learning=rule).state
    jax.tree.map(np.testing.assert_array_equal, same, state)


def test_replacement_and_gradient_learn_together():
    """From far codebooks: the gradient alone would leave most codes dead for ever."""
    x = jax.random.normal(jax.random.key(7), (1, 512, 6))
    use = {}
    for expiry in (0.0, 0.1):
        state = q.Codebooks.of(books(1, 64).vectors + 30.0)
        rule = q.Gradient(expiry=expiry)

        @jax.jit
        def step(state, key, rule=rule):
            def loss(state):
                out = q.quantize(state, x, key=key, train=True, learning=rule)
                return out.codebook.sum(), out

            grads, out = jax.grad(loss, has_aux=True)(state)
            return jax.tree.map(lambda p, g: p - 3.0 * g, out.state, grads), out.stats.use[0]

        for i in range(50):
            state, use[expiry] = step(state, jax.random.key(i))
    assert use[0.0] < 0.2 and use[0.1] > 0.7


def test_bfloat16_latents_have_float32_distances():
    """Codes are those of the rounded latents in float32, and the output is bfloat16 again."""
    rounded = X.astype(jnp.bfloat16)
    codes = q.encode(books(), rounded)
    assert (codes == q.encode(books(), rounded.astype(jnp.float32))).all()
    assert q.quantize(books(), rounded).latents.dtype == jnp.bfloat16


@pytest.mark.parametrize("beam", [2, 5])
def test_a_wider_beam_leaves_less(beam):
    state = q.start(KEY, books(4, 16, 6), jax.random.normal(KEY, (2000, 6)))
    x = jax.random.normal(jax.random.key(5), (1, 500, 6))
    errors = [
        float(jnp.mean((q.decode(state, q.encode(state, x, beam=b)) - x) ** 2)) for b in (1, beam)
    ]
    assert errors[1] < errors[0]


def test_random_projection_codes_the_same_latents_with_every_codebook():
    """Each codebook alone, in plain numpy: the greatest cosine after its own map."""
    state = q.random_projection(KEY, 3, 16, 6, code_dim=4)
    codes = np.asarray(q.encode(state, X))
    for k in range(3):
        one = state if k == 2 else state.first
        state = None if k == 2 else state.rest
        inside = np.asarray(X) @ np.asarray(one.down[0])
        assert (codes[:, k] == (inside @ np.asarray(one.inner.vectors[0]).T).argmax(-1)).all()
    with pytest.raises(ValueError, match="codebooks must be at least 1"):
        q.random_projection(KEY, 0, 16, 6)
