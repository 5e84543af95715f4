"""Options of the quantizer: which clash, what each does, and what callers can get wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiers import slow, tried

from rvq_jax import quantize as q

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 12, 6))


def books(levels=3, size=16, dim=6):
    return q.init(KEY, levels, size, dim)


@pytest.mark.parametrize(
    ("state", "options", "both"),
    [
        (lambda: q.FSQ.init(2, (3,) * 6), {"learning": q.EMA()}, ("EMA", "FSQ")),
        (lambda: q.LFQ.init(2, 6), {"learning": q.EMA()}, ("EMA", "LFQ")),
        (lambda: q.SimVQ.init(KEY, 2, 8, 6), {"learning": q.EMA()}, ("EMA", "SimVQ")),
        (lambda: q.QINCo.init(KEY, 2, 8, 6), {"learning": q.EMA()}, ("EMA", "QINCo")),
        (
            lambda: q.SimVQ.init(KEY, 2, 8, 6),
            {"learning": q.Gradient(expiry=0.1)},
            ("Gradient(expiry=0.1)", "SimVQ"),
        ),
        (lambda: q.Projected.init(KEY, 2, 8, 6, 3), {}, ("Projected", "per_level=False")),
        (
            lambda: q.Projected.around(KEY, 6, q.FSQ.init(2, (3, 3))),
            {"learning": q.EMA(), "per_level": True},
            ("EMA", "FSQ"),
        ),
        (lambda: q.FSQ.init(2, (3,) * 6), {"temperature": 0.5}, ("temperature=0.5", "FSQ")),
        (lambda: q.LFQ.init(2, 6), {"temperature": 0.5}, ("temperature=0.5", "LFQ")),
        (lambda: q.QINCo.init(KEY, 2, 8, 6), {"temperature": 0.5}, ("temperature=0.5", "QINCo")),
    ],
)
def test_options_that_clash_in_training(state, options, both):
    with pytest.raises(ValueError, match="clash") as error:
        q.quantize(state(), X, key=KEY, train=True, **options)
    assert all(name in str(error.value) for name in both)


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (lambda: q.Cosine.init(KEY, 2, 8, 6), "Cosine"),
        (lambda: q.Projected.init(KEY, 2, 8, 6, 3), "Projected"),
        (lambda: q.FSQ.init(2, (3,) * 6), "FSQ"),
        (lambda: q.LFQ.init(2, 6), "LFQ"),
        (lambda: q.QINCo.init(KEY, 2, 8, 6), "QINCo"),
        (lambda: q.Strided(q.init(KEY, 2, 8, 6), (2, 1)), "Strided"),
        (lambda: q.Split(q.init(KEY, 1, 8, 6), q.Cosine.init(KEY, 1, 8, 6)), "Cosine"),
    ],
)
def test_a_beam_and_the_kernel_need_tables_in_the_latent_space(state, name):
    state = state()
    with pytest.raises(ValueError, match=f"beam=4 and {name} clash"):
        q.encode(state, X, beam=4)
    with pytest.raises(ValueError, match=f"beam tables and {name} clash"):
        q.beam_tables(state)
    with pytest.raises(ValueError, match=f"kernel and {name} clash"):
        q.encode(state, X, kernel=True)


LATENT_TABLES = {
    "euclidean": lambda: q.init(KEY, 3, 16, 6),
    "sizes": lambda: q.init(KEY, 3, (16, 5, 9), 6),
    "simvq": lambda: q.SimVQ.init(KEY, 3, 16, 6),
    "shared": lambda: q.Shared.init(KEY, 3, 16, 6),
    "grouped": lambda: q.Grouped.of(
        [q.init(KEY, 2, (16, 7), 3), q.init(jax.random.key(9), 2, (16, 7), 3)]
    ),
    "split": lambda: q.Split(q.init(KEY, 1, 16, 6), q.init(KEY, 3, 8, 6)),
    "bottleneck": lambda: q.Bottleneck.init(KEY, 6, q.init(KEY, 3, 16, 4)),
}
FEW = ("sizes", "grouped")


@pytest.mark.parametrize("name", tried(FEW, LATENT_TABLES))
def test_tables_find_what_residuals_find(name):
    """For all levels or a prefix. Two orders of a shared codebook's codes are equally good: so the
    decoded latents are compared."""
    state = LATENT_TABLES[name]()
    tables = q.beam_tables(state)
    for levels in (None, 2):
        codes = [q.encode(state, X, levels, beam=3, tables=t) for t in (None, tables)]
        np.testing.assert_allclose(*(q.decode(state, c) for c in codes), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", tried(FEW, LATENT_TABLES))
def test_the_kernel_is_for_tpus_and_changes_nothing_elsewhere(name):
    state = LATENT_TABLES[name]()
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


def test_bfloat16_latents_have_float32_distances():
    """Codes are those of the rounded latents in float32, and the output is bfloat16 again."""
    rounded = X.astype(jnp.bfloat16)
    codes = q.encode(books(), rounded)
    assert (codes == q.encode(books(), rounded.astype(jnp.float32))).all()
    assert q.quantize(books(), rounded).latents.dtype == jnp.bfloat16


@pytest.mark.parametrize("beam", [slow(2), slow(5)])
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
