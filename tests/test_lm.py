"""Token models: one distribution over codes, whichever way it is computed."""

import dataclasses
import functools
import gc
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rvq_jax import patterns
from rvq_jax.codec.codec import Codec, CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.errors import UserError
from rvq_jax.lm import sampling, transformer
from rvq_jax.lm.conditioner import to_bytes
from rvq_jax.lm.model import LMConfig, TokenLM
from rvq_jax.systems.musicgen import MusicGen, generate_codes, score_codes

K, F, N = 3, 5, 7
SIX = ("parallel", "delay", "partial_delay", "flatten", "partial_flatten", "coarse_first")
CONFIG = LMConfig(levels=K, size=N, dim=16, layers=2, heads=2, hidden=32, caption_bytes=16)
CAPTIONS = ["slow pad", "né"]
TEXT = to_bytes(CAPTIONS, CONFIG.caption_bytes)
KEY = jax.random.key(3)

each_pattern = pytest.mark.parametrize("name", SIX)


def layout(name: str, levels: int = K, frames: int = F) -> patterns.Pattern:
    """All six in the steps of the longest, so that they share their programs."""
    return patterns.named(name, levels, frames).pad(levels * frames)


def filled(shapes):
    """A tree of shapes filled with random numbers, large enough for every input to matter."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: (0.4 * rng.normal(size=x.shape)).astype(x.dtype), shapes)


def draw(config: LMConfig) -> nnx.State:
    return filled(nnx.state(nnx.eval_shape(lambda: TokenLM(config, nnx.Rngs(0))), nnx.Param))


@pytest.fixture(scope="module")
def params():
    return draw(CONFIG)


def random_codes(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, N, (rows, K, F)).astype(np.int32)


def free(rows: int) -> np.ndarray:
    """Nothing forced: every code is drawn."""
    return np.full((rows, K, F), -1, np.int32)


def replaced(codes_KF: np.ndarray) -> np.ndarray:
    """`[K · F · N, K, F]`: the codes with each one in turn set to each value."""
    rows = np.tile(codes_KF, (K, F, N, 1, 1))
    for k in range(K):
        for f in range(F):
            rows[k, f, :, k, f] = np.arange(N)
    return rows.reshape(K * F * N, K, F)


def log2_table(params, pattern, codes_KF: np.ndarray, text_L: np.ndarray) -> np.ndarray:
    """`[K, F, N]`: log2 p of every value of every code, given what it sees of the codes."""
    text = np.tile(text_L, (K * F * N, 1))
    bits = np.asarray(score_codes(CONFIG, params, pattern, replaced(codes_KF), text))
    bits = bits.reshape(K, F, N, K, F)
    k, f = np.ogrid[:K, :F]
    return -bits[k, f, :, k, f]


@pytest.mark.parametrize("positions", ["rotary", "sinusoidal"])
@each_pattern
def test_scoring_at_once_is_decoding_step_by_step(params, name, positions):
    """Both forms of every layer, the caches and the pattern's two maps must agree for the bits of
    the same codes to agree: what is measured is what generation would draw from."""
    codes, pattern = random_codes(2), layout(name)
    config = dataclasses.replace(CONFIG, positions=positions)
    whole = score_codes(config, params, pattern, codes, TEXT)
    steps = generate_codes(config, params, pattern, TEXT, KEY, codes)
    assert (np.asarray(steps.codes) == codes).all()
    np.testing.assert_allclose(steps.bits, whole, atol=1e-4, rtol=0)


def test_turned_heads_match_by_distance_alone():
    """In complex numbers, feature i with i + D / 2 turns by t · 10000^(-2i / D): products of a
    query at s and a key at t are those at s + 1000 and t + 1000, and numpy's (Su et al. 2021)."""
    rng, dim = np.random.default_rng(0), 8
    q, k = rng.normal(size=(2, dim)).astype(np.float32)
    turn = 10000.0 ** (-2 * np.arange(dim // 2) / dim)
    z, w = (x[: dim // 2] + 1j * x[dim // 2 :] for x in (q, k))

    def product(s: int, t: int) -> float:
        angles = transformer.angles(2000, dim)[[s, t]].astype(np.float32)
        turned = transformer.rotate(jnp.stack([q, k])[None, :, None], angles)[0, :, 0]
        return float(turned[0] @ turned[1])

    for s, t in ((0, 0), (5, 5), (9, 2), (700, 3)):
        want = (z * np.exp(1j * turn * (s - t)) * w.conj()).sum().real
        assert product(s, t) == pytest.approx(want, abs=1e-3)
        assert product(s + 1000, t + 1000) == pytest.approx(want, abs=1e-3)


def test_six_patterns_of_one_shape_are_one_compile_each(params):
    """Tables are arguments, so the second to the sixth pattern add no program. The odd batch
    makes the shape new to both caches."""
    codes, text = random_codes(3), to_bytes(["a", "b", ""], CONFIG.caption_bytes)
    before = score_codes._cache_size(), generate_codes._cache_size()
    for name in SIX:
        score_codes(CONFIG, params, layout(name), codes, text)
        generate_codes(CONFIG, params, layout(name), text, KEY, free(3))
    assert (score_codes._cache_size(), generate_codes._cache_size()) == (
        before[0] + 1,
        before[1] + 1,
    )


@each_pattern
def test_bits_depend_on_exactly_the_codes_that_are_visible(params, name):
    """Another value in one place moves the bits of those codes that may see it, all of them, and
    of no other: nothing leaks from the future, and nothing of the past is lost."""
    pattern, base = layout(name), random_codes(1)[0]
    rows = np.tile(base, (1 + K * F, 1, 1)).reshape(1 + K * F, K * F)
    places = np.arange(K * F)
    rows[1 + places, places] = (rows[1 + places, places] + 1) % N
    text = np.tile(TEXT[:1], (len(rows), 1))
    bits = score_codes(CONFIG, params, pattern, rows.reshape(-1, K, F), text)
    bits = np.asarray(bits).reshape(len(rows), K * F)
    moved = np.abs(bits[1:] - bits[0]).T > 1e-5  # [the code whose bits, the code changed]
    np.fill_diagonal(moved, False)
    assert (moved == pattern.visible().reshape(K * F, K * F)).all()


@each_pattern
def test_the_values_of_a_code_share_one_probability(params, name):
    """Over all values of one code, the others fixed, probabilities sum to 1."""
    table = log2_table(params, layout(name), random_codes(1)[0], TEXT[0])
    np.testing.assert_allclose((2.0**table).sum(axis=2), 1.0, atol=1e-5)


def test_every_pattern_is_a_distribution_over_sequences():
    """Summed over all 3^4 sequences, 2 to the minus bits is 1: total bits are then comparable
    between patterns, as a proper code length is."""
    config = LMConfig(levels=2, size=3, dim=16, layers=1, heads=2, hidden=32, caption_bytes=4)
    codes = np.indices((3,) * 4).reshape(4, -1).T.reshape(-1, 2, 2).astype(np.int32)
    text, params = np.zeros((len(codes), 4), np.int32), draw(config)
    for name in SIX:
        bits = score_codes(config, params, layout(name, 2, 2), codes, text)
        assert np.sum(2.0 ** -np.asarray(bits, np.float64).sum((1, 2))) == pytest.approx(1.0, 1e-5)


def test_a_masked_frame_costs_nothing_and_its_codes_are_not_seen(params):
    """Padding holds arbitrary codes; no bit may depend on which."""
    mask = np.arange(F)[None] < np.array([[F], [3]])
    codes, other = random_codes(2), random_codes(2, seed=1)
    other = np.where(mask[:, None], codes, other)
    for name in SIX:
        a, b = (score_codes(CONFIG, params, layout(name), x, TEXT, mask) for x in (codes, other))
        assert np.array_equal(a, b)
        assert (np.asarray(a)[1, :, 3:] == 0).all() and (np.asarray(a)[1, :, :3] > 0).all()
        whole = score_codes(CONFIG, params, layout(name), codes, TEXT)
        np.testing.assert_allclose(a[0], whole[0], atol=1e-5)


def test_a_caption_is_the_same_in_any_padding(params):
    """Positions that hold no byte are masked in the encoder and in every cross-attention."""
    codes, pattern = random_codes(2), layout("delay")
    wide = score_codes(CONFIG, params, pattern, codes, to_bytes(CAPTIONS, 32))
    np.testing.assert_allclose(score_codes(CONFIG, params, pattern, codes, TEXT), wide, atol=1e-5)
    swapped = score_codes(CONFIG, params, pattern, codes, TEXT[::-1])
    assert np.abs(np.asarray(swapped) - wide).max() > 1e-3, "captions have no effect"


def test_no_caption_is_the_null_condition(params):
    """An empty caption attends to nothing but its zeros: finite bits, however long the padding."""
    codes, pattern = random_codes(2), layout("delay")
    null = score_codes(CONFIG, params, pattern, codes, to_bytes(["", ""], 16))
    assert np.isfinite(null).all()
    np.testing.assert_allclose(
        score_codes(CONFIG, params, pattern, codes, to_bytes(["", ""], 32)), null, atol=1e-5
    )


def test_captions_are_cut_in_bytes_and_never_hold_the_padding_id():
    """Id 0 means no byte, so even a caption with a zero byte keeps its length."""
    text = to_bytes(["ab\0", "é", "abcdefgh", ""], 5)
    assert text.tolist() == [
        [98, 99, 1, 0, 0],
        [0xC3 + 1, 0xA9 + 1, 0, 0, 0],
        [98, 99, 100, 101, 102],
        [0] * 5,
    ]


def test_scores_do_not_depend_on_the_batch(params):
    """A row alone has the bits it has among others."""
    codes, pattern = random_codes(2), layout("delay")
    both = score_codes(CONFIG, params, pattern, codes, TEXT)
    for i in range(2):
        alone = score_codes(CONFIG, params, pattern, codes[i : i + 1], TEXT[i : i + 1])
        np.testing.assert_allclose(alone[0], both[i], atol=1e-5)


def test_draws_do_not_depend_on_the_batch(params):
    """Row i draws from keys folded from i: neither its neighbours nor their number change it, and
    rows alike in caption still differ."""
    pattern = layout("delay")
    both = generate_codes(CONFIG, params, pattern, TEXT, KEY, free(2))
    alone = generate_codes(CONFIG, params, pattern, TEXT[:1], KEY, free(1))
    assert np.array_equal(alone.codes[0], both.codes[0])
    np.testing.assert_allclose(alone.bits[0], both.bits[0], atol=1e-4)
    twins = generate_codes(CONFIG, params, pattern, TEXT[[1, 1]], KEY, free(2))
    assert np.array_equal(twins.codes[1], both.codes[1])
    assert not np.array_equal(twins.codes[0], twins.codes[1])


@each_pattern
def test_drawn_codes_cost_what_scoring_says(params, name):
    """Codes are in range, and the bits reported while drawing are those of scoring them after."""
    drawn = generate_codes(CONFIG, params, layout(name), TEXT, KEY, free(2))
    assert ((np.asarray(drawn.codes) >= 0) & (np.asarray(drawn.codes) < N)).all()
    whole = score_codes(CONFIG, params, layout(name), drawn.codes, TEXT)
    np.testing.assert_allclose(drawn.bits, whole, atol=1e-4, rtol=0)


@each_pattern
def test_a_prompt_is_kept_and_conditions_the_rest(params, name):
    """Forced codes come back as they were, and the rest is drawn given them."""
    prompt, codes = free(2), random_codes(2)
    prompt[:, :, :2] = codes[:, :, :2]
    drawn = generate_codes(CONFIG, params, layout(name), TEXT, KEY, prompt)
    assert np.array_equal(drawn.codes[:, :, :2], codes[:, :, :2])
    whole = score_codes(CONFIG, params, layout(name), drawn.codes, TEXT)
    np.testing.assert_allclose(drawn.bits, whole, atol=1e-4, rtol=0)


@each_pattern
def test_temperature_0_takes_the_likeliest_code(params, name):
    """No other value of any drawn code costs less, and the key has no say."""
    pattern = layout(name)
    drawn = generate_codes(CONFIG, params, pattern, TEXT, KEY, free(2), temperature=0.0)
    other = generate_codes(
        CONFIG, params, pattern, TEXT, jax.random.key(9), free(2), temperature=0.0
    )
    assert np.array_equal(drawn.codes, other.codes)
    table = log2_table(params, pattern, np.asarray(drawn.codes[0]), TEXT[0])
    chosen = np.take_along_axis(table, np.asarray(drawn.codes[0])[..., None], axis=2)[..., 0]
    assert (chosen >= table.max(axis=2) - 1e-5).all()


@each_pattern
def test_guidance_is_its_definition(params, name):
    """Guided bits are those of null + guidance · (caption - null), normalized again; with
    guidance 1 that is the model without guidance."""
    pattern, codes = layout(name), random_codes(2)
    decode = functools.partial(generate_codes, CONFIG, params, pattern, TEXT, KEY, codes)
    plain = decode()
    np.testing.assert_allclose(decode(guidance=1.0).bits, plain.bits, atol=1e-4, rtol=0)
    conditional = log2_table(params, pattern, codes[0], TEXT[0])
    null = log2_table(params, pattern, codes[0], np.zeros_like(TEXT[0]))
    guided = null + 2.5 * (conditional - null)
    guided -= np.log2((2.0**guided).sum(axis=2, keepdims=True))
    want = -np.take_along_axis(guided, codes[0][..., None], axis=2)[..., 0]
    np.testing.assert_allclose(decode(guidance=2.5).bits[0], want, atol=1e-3)


LOGITS = np.array([0.3, 2.0, -1.0, 1.4, 0.9, -3.0, 1.1], np.float32)


def allowed(logits: np.ndarray, top_k: int, top_p: float) -> np.ndarray:
    """The definition: the k largest, and the fewest largest whose probability reaches p."""
    order = np.argsort(-logits)
    p = np.exp(logits) / np.exp(logits).sum()
    keep = np.zeros(len(logits), bool)
    mass = 0.0
    for rank, i in enumerate(order):
        if (top_k and rank >= top_k) or (top_p and mass >= top_p):
            break
        keep[i] = True
        mass += p[i]
    return keep


@pytest.mark.parametrize(
    ("top_k", "top_p", "temperature"),
    [(0, 0.0, 1.0), (3, 0.0, 1.0), (0, 0.6, 0.7), (3, 0.45, 1.0), (1, 0.0, 1.0), (99, 1.0, 2.0)],
)
def test_draws_have_the_frequencies_of_what_is_allowed(top_k, top_p, temperature):
    """Nothing outside the allowed set is ever drawn, and inside it frequencies follow the
    softmax, up to the noise of 20000 draws (four standard deviations)."""
    count = 20_000
    keys = jax.random.split(jax.random.key(0), count)
    one = functools.partial(sampling.sample, top_k=top_k, top_p=top_p)
    many = jax.jit(jax.vmap(lambda key, t: one(key, jnp.asarray(LOGITS), temperature=t), (0, None)))
    seen = np.bincount(many(keys, temperature), minlength=len(LOGITS)) / count
    keep = allowed(LOGITS / temperature, top_k, top_p)
    p = np.where(keep, np.exp(LOGITS / temperature), 0.0)
    p /= p.sum()
    assert (seen[~keep] == 0).all()
    assert (np.abs(seen - p) <= 4 * np.sqrt(p * (1 - p) / count) + 1e-9).all()
    assert (np.asarray(many(keys[:50], 0.0)) == LOGITS.argmax()).all()


@pytest.fixture(scope="module")
def saved(params, tmp_path_factory):
    """A model's folder, its codes and their bits."""
    seanet = SEANetConfig(filters=2, dim=4, ratios=(2, 2), lstm_layers=0)
    config = CodecConfig(100, seanet, levels=K, size=N)
    shapes = jax.eval_shape(lambda: Codec.init(config, jax.random.key(0))._weights())
    codec = Codec(config, *filled(shapes))
    model = MusicGen(CONFIG, "delay", params, codec)
    folder = tmp_path_factory.mktemp("musicgen") / "model"
    model.save(folder)
    return folder, model


def copy(folder, to):
    for path in folder.rglob("*"):
        if path.is_file():
            place = to / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    return to


def test_a_model_comes_back_from_its_folder(saved):
    """The same config and pattern, and to the last bit the same scores and audio."""
    folder, model = saved
    again = MusicGen.load(folder)
    assert (again.config, again.pattern) == (CONFIG, "delay")
    codes = random_codes(2)
    assert np.array_equal(again.score(codes, CAPTIONS), model.score(codes, CAPTIONS))
    kept = codes[:, :, :2]
    audio = [m.generate(CAPTIONS, F / 25, KEY, top_k=3, prompt=kept) for m in (model, again)]
    assert audio[0].shape == (2, 4 * F, 1) and np.array_equal(*audio)


def test_a_prompt_longer_than_the_audio_is_an_error(saved):
    with pytest.raises(ValueError, match="5 frames"):
        saved[1].generate(CAPTIONS, 2 / 25, KEY, prompt=random_codes(2))


def test_saving_over_a_model_leaves_one_whole_folder(saved, tmp_path):
    """What is written replaces what was there, and no temporary folder stays."""
    folder = copy(saved[0], tmp_path / "model")
    (folder / "stale").write_text("")
    saved[1].save(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sorted(p.name for p in folder.iterdir()) == ["codec", "config.json", "weights.npz"]


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE = {
    "nothing there": (lambda f: (f / "config.json").unlink(), "not a model folder"),
    "not JSON": (lambda f: (f / "config.json").write_text("{"), "not a model folder"),
    "not an object": (lambda f: (f / "config.json").write_text("[]"), "not a model folder"),
    "another kind": (lambda f: edit(f / "config.json", model="codec"), "codec"),
    "unknown field": (lambda f: edit(f / "config.json", layerz=2), "'layers'"),
    "unknown pattern": (lambda f: edit(f / "config.json", pattern="delayed"), "'delay'"),
    "another shape": (lambda f: edit(f / "config.json", hidden=48), "shape"),
    "another type": (lambda f: edit(f / "config.json", hidden="many"), "hidden"),
    "more layers": (lambda f: edit(f / "config.json", layers=3), "shape"),
    "no weights": (lambda f: (f / "weights.npz").unlink(), "weights.npz"),
    "cut weights": (
        lambda f: (f / "weights.npz").write_bytes((f / "weights.npz").read_bytes()[:900]),
        "weights.npz",
    ),
    "damaged weights": (
        lambda f: (f / "weights.npz").write_bytes(
            (f / "weights.npz").read_bytes().replace(b"NUMPY", b"NOMPY")
        ),
        "weights.npz",
    ),
    "an array short": (
        lambda f: np.savez(f / "weights.npz", **dict(list(np.load(f / "weights.npz").items())[1:])),
        "missing",
    ),
    "no codec": (lambda f: (f / "codec" / "config.json").unlink(), "codec"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_folder_is_told_in_one_line(saved, tmp_path, case):
    """Whatever is wrong with a folder, the error is the user's and names the place."""
    damage, word = DAMAGE[case]
    folder = copy(saved[0], tmp_path / "model")
    damage(folder)
    with pytest.raises(UserError) as caught:
        MusicGen.load(folder)
    message = str(caught.value)
    assert word in message and "\n" not in message
    # A file left open would warn when it is collected, in whichever test runs then.
    del caught
    gc.collect()
