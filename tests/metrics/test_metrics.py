"""Metrics against their definitions in plain numpy, and what must not change them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvq_jax import metrics
from rvq_jax.metrics import frechet

RATE = 16000


@pytest.fixture
def signals():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(3, 4000)).astype(np.float32) * 0.1
    noise = rng.normal(size=(3, 4000)).astype(np.float32) * [[0.1], [0.01], [0.001]]
    return reference, (reference + noise).astype(np.float32)


@pytest.fixture
def mixed_ranks():
    """The spectral transforms multiply frames by a window of lower rank."""
    with jax.numpy_rank_promotion("allow"):
        yield


def numpy_si_sdr(reference, estimate):
    reference, estimate = (np.asarray(x, np.float64) for x in (reference, estimate))
    reference, estimate = reference - reference.mean(), estimate - estimate.mean()
    target = (estimate @ reference) / (reference @ reference) * reference
    return 10 * np.log10((target @ target) / ((estimate - target) @ (estimate - target)))


def test_si_sdr_is_its_definition(signals):
    want = [numpy_si_sdr(*pair) for pair in zip(*signals, strict=True)]
    np.testing.assert_allclose(metrics.si_sdr(*signals), want, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-4, 0.3, 700.0])
def test_si_sdr_ignores_scale_and_mean(signals, scale):
    """Of either signal: the projection takes the scale, the centring takes the mean."""
    reference, estimate = signals
    want = metrics.si_sdr(reference, estimate)
    np.testing.assert_allclose(metrics.si_sdr(reference, scale * estimate), want, atol=1e-2)
    np.testing.assert_allclose(metrics.si_sdr(scale * reference, estimate), want, atol=1e-2)
    np.testing.assert_allclose(metrics.si_sdr(reference, estimate + 0.2), want, atol=1e-2)


def test_si_sdr_of_orthogonal_noise_is_the_ratio_of_energies():
    """Sines of different whole periods are orthogonal, so amplitudes alone give the ratio."""
    time = np.arange(1600) / 1600
    tone, other = np.sin(2 * np.pi * 10 * time), np.sin(2 * np.pi * 37 * time)
    for decibels in (60, 20, 0, -20):
        found = metrics.si_sdr(tone, tone + 10 ** (-decibels / 20) * other)
        assert float(found) == pytest.approx(decibels, abs=0.01)


def test_si_sdr_of_silence_is_finite(signals):
    reference, _ = signals
    silent = np.zeros_like(reference)
    np.testing.assert_array_equal(metrics.si_sdr(reference, silent), -100.0)
    np.testing.assert_array_equal(metrics.si_sdr(silent, reference), -100.0)
    np.testing.assert_array_equal(metrics.si_sdr(silent, silent + 0.5), 100.0)
    np.testing.assert_allclose(metrics.si_sdr(reference, reference), 100.0, atol=1e-3)
    gradient = jax.grad(lambda x: metrics.si_sdr(silent, x).sum())(reference)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("length", [2048, 3001])
@pytest.mark.usefixtures("mixed_ranks")
def test_masked_padding_changes_nothing(signals, length):
    """Whatever lies behind the end of a signal, even NaN."""
    mask = np.broadcast_to(np.arange(4000) < length, (3, 4000))
    short = [x[:, :length] for x in signals]
    padded = [np.where(mask, x, np.float32("nan")) for x in signals]
    want, found = metrics.si_sdr(*short), metrics.si_sdr(*padded, mask=mask)
    np.testing.assert_allclose(found, want, atol=1e-3)
    for metric in (metrics.mel_distance, metrics.stft_distance):
        distance = jax.jit(metric, static_argnames="rate")
        want = distance(*short, rate=RATE)
        found = distance(*padded, rate=RATE, mask=mask)
        np.testing.assert_allclose(found, want, rtol=1e-4)


@pytest.mark.usefixtures("mixed_ranks")
def test_mel_distance_is_a_distance_that_hears_noise(signals):
    """Zero for equals, symmetric, and larger for more noise; the three rows have less and less."""
    reference, estimate = signals
    np.testing.assert_array_equal(metrics.mel_distance(reference, reference, RATE), 0.0)
    there = metrics.mel_distance(reference, estimate, RATE)
    np.testing.assert_allclose(metrics.mel_distance(estimate, reference, RATE), there, rtol=1e-6)
    assert there[0] > 2 * there[1] > 4 * there[2] > 0


@pytest.mark.parametrize("rate", [RATE, 48000])
@pytest.mark.usefixtures("mixed_ranks")
def test_mel_distance_of_a_gain_is_the_log_of_the_gain(signals, rate):
    """Log magnitudes all move by ln 2, if the signal is loud enough to be above the floor."""
    loud = 100 * signals[0]
    np.testing.assert_allclose(metrics.mel_distance(loud, 2 * loud, rate), np.log(2), rtol=1e-3)


def numpy_stft_distance(reference, estimate):
    """Frame by frame, in float64."""
    total = 0.0
    for window in (512, 2048):
        hann = np.hanning(window + 1)[:-1]
        logs = []
        for signal in (reference, estimate):
            padded = np.pad(np.asarray(signal, np.float64), (window // 2, window))
            starts = range(0, len(signal) + 1, window // 4)
            frames = np.stack([padded[i : i + window] * hann for i in starts])
            amplitudes = np.abs(np.fft.rfft(frames)) * 4 / window
            logs.append(np.log(np.maximum(amplitudes, 1e-5)))
        total += np.abs(logs[0] - logs[1]).mean() / 2
    return total


@pytest.mark.usefixtures("mixed_ranks")
def test_stft_distance_is_its_definition(signals):
    want = [numpy_stft_distance(*pair) for pair in zip(*signals, strict=True)]
    found = metrics.stft_distance(*signals, RATE)
    np.testing.assert_allclose(found, want, rtol=1e-3)
    np.testing.assert_array_equal(metrics.stft_distance(signals[0], signals[0], RATE), 0.0)
    silent = np.zeros_like(signals[0])
    np.testing.assert_array_equal(metrics.stft_distance(silent, silent, RATE), 0.0)
    loud = 1000 * signals[0]
    np.testing.assert_allclose(metrics.stft_distance(loud, 2 * loud, RATE), np.log(2), rtol=1e-3)


@pytest.mark.usefixtures("mixed_ranks")
def test_stft_distance_can_be_trained_on(signals):
    """Gradients of silence, whose logarithm is at the floor, are not NaN, and others not 0."""
    silent = np.zeros_like(signals[0])
    for reference, estimate in ((signals[0], silent), (silent, silent), signals):
        gradient = jax.grad(lambda x, y=reference: metrics.stft_distance(y, x, RATE).sum())(
            estimate
        )
        assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_frechet_distance_between_known_gaussians():
    """In one dimension it is (difference of means)² + (difference of standard deviations)²."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(2, 3, (500, 1)), rng.normal(-1, 0.5, (300, 1))
    want = (a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2
    assert metrics.frechet_distance(a, b) == pytest.approx(want, rel=1e-9)


def test_frechet_distance_is_its_definition_and_ignores_rotation():
    """trace (A B)^½ is the sum of the roots of the eigenvalues of A B, which is not symmetric."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)), rng.normal(1, 2, (90, 5))
    cov_a, cov_b = (np.cov(x, rowvar=False, bias=True) for x in (a, b))
    cross = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real).sum()
    want = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b) - 2 * cross
    found = metrics.frechet_distance(a, b)
    assert found == pytest.approx(want, rel=1e-9)
    assert metrics.frechet_distance(b, a) == pytest.approx(found, rel=1e-9)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert metrics.frechet_distance(a @ turn, b @ turn) == pytest.approx(found, rel=1e-9)


def test_frechet_distance_of_few_vectors_is_safe():
    """Fewer vectors than dimensions make covariances singular, one vector makes them zero."""
    rng = np.random.default_rng(3)
    few = rng.normal(size=(4, 48))
    assert metrics.frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    point = few[:1] + 2.0
    want = ((few.mean(0) - point[0]) ** 2).sum() + few.var(0).sum()
    assert metrics.frechet_distance(few, point) == pytest.approx(want, rel=1e-9)
    with pytest.raises(ValueError, match="two sets"):
        metrics.frechet_distance(few, few[:, :5])
    with pytest.raises(ValueError, match="two sets"):
        metrics.frechet_distance(few[:0], few)


@pytest.mark.usefixtures("mixed_ranks")
def test_frechet_features_tell_timbres_apart():
    """Half-second windows every quarter second; the same noise is nearer than another colour."""
    rng = np.random.default_rng(4)
    white = [0.1 * rng.normal(size=2 * RATE).astype(np.float32) for _ in range(2)]
    dull = np.convolve(white[1], np.ones(16) / 16, "same").astype(np.float32)
    first, second, third = (metrics.frechet_features(x, RATE) for x in (*white, dull))
    assert first.shape == (7, 2 * frechet.BANDS)
    near = metrics.frechet_distance(first, second)
    assert metrics.frechet_distance(first, third) > 10 * near
    assert metrics.frechet_features(white[0][:999], RATE).shape == (1, 2 * frechet.BANDS)


def test_code_use_counts_what_occurs():
    """A level that uses 4 of 8 codes equally: half in use, two bits, four effective codes."""
    even = np.arange(4).repeat(5)
    codes = np.stack([even, np.full(20, 7), np.array([0] * 15 + [3] * 5)])
    rows = metrics.code_use([codes[:, :7], codes[:, 7:]], size=8)
    assert [row["use"] for row in rows] == [4 / 8, 1 / 8, 2 / 8]
    skewed = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert [row["entropy_bits"] for row in rows] == pytest.approx([2, 0, skewed])
    assert [row["perplexity"] for row in rows] == pytest.approx([4, 1, 2**skewed])


def test_code_use_sees_only_frames_that_count():
    """A batch with a mask is the records cut to their lengths; padding may be any number."""
    rng = np.random.default_rng(5)
    codes, lengths = rng.integers(0, 16, (3, 2, 30)), np.array([30, 1, 17])
    mask = np.arange(30) < lengths[:, None]
    codes = np.where(mask[:, None], codes, -1)
    records = [x[:, :length] for x, length in zip(codes, lengths, strict=True)]
    assert metrics.code_use(codes, 16, mask) == metrics.code_use(records, 16)
    assert metrics.code_use(jnp.asarray(codes), 16, jnp.asarray(mask)) == metrics.code_use(
        records, 16
    )
    assert metrics.code_counts(codes, 16, mask).sum(1).tolist() == [48, 48]
    with pytest.raises(ValueError, match=r"\[0, 16\)"):
        metrics.code_counts(codes, 16)


def test_efficiency_is_told_once_enough_frames_were_seen():
    """Entropy over log2 N bits; counts of records add up to what one call says of them all."""
    rng = np.random.default_rng(6)
    codes = np.stack([rng.permutation(np.arange(160) % 16), np.arange(160) % 4])
    rows = metrics.code_use(codes, 16)
    assert [row["efficiency"] for row in rows] == pytest.approx([1.0, 0.5])
    assert [row["frames"] for row in rows] == [160, 160]
    assert [row["efficiency"] for row in metrics.code_use(codes[:, 1:], 16)] == [None, None]
    counts = metrics.code_counts(codes[:, :50], 16) + metrics.code_counts(codes[:, 50:], 16)
    assert metrics.count_use(counts) == rows
    assert metrics.count_use(np.zeros((1, 16), int))[0] == {
        **{"use": 0.0, "entropy_bits": 0.0, "perplexity": 1.0, "efficiency": None, "frames": 0}
    }
