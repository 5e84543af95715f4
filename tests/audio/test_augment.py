"""What augmentation does to an item, and what it must leave: silence, padding, other items."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from signals import noise

from rvq_jax.audio.augment import Augmentation, augment, k_filters, loudness, shift_phase
from rvq_jax.train import sharding

RATE, SAMPLES = 8_000, 1000
KEY = jax.random.key(0)
ALL = Augmentation(loudness_db=-30.0, gain_db=(-10.0, 6.0), mix=0.5, phase=1.0)
ALONE = Augmentation(loudness_db=-30.0, gain_db=(-10.0, 6.0), phase=0.5)
WHOLE = np.ones((8, SAMPLES), bool)

run = jax.jit(augment, static_argnums=(3, 4))


def batch(seed: int = 0) -> np.ndarray:
    return noise(8, SAMPLES, 2, seed=seed, scale=0.05)


def sine(hertz: float, rate: int, angle: float = 0.0) -> np.ndarray:
    """One second `[1, S, 1]`."""
    turns = 2 * np.pi * hertz * np.arange(rate) / rate + angle
    return np.sin(turns).astype(np.float32)[None, :, None]


def test_nothing_happens_by_default():
    audio = batch()
    assert augment(KEY, audio, WHOLE, Augmentation(), RATE) is audio


def test_the_same_key_gives_the_same_and_another_another():
    want = run(KEY, batch(), WHOLE, ALL, RATE)
    np.testing.assert_array_equal(run(KEY, batch(), WHOLE, ALL, RATE), want)
    other = run(jax.random.key(1), batch(), WHOLE, ALL, RATE)
    assert (np.abs(other - want).max(axis=(1, 2)) > 0).all()


def test_an_item_does_not_depend_on_its_batch():
    """In another place, among others; by its index, or by its place where none is given."""
    index = jnp.arange(8) + 20
    want = run(KEY, batch(), WHOLE, ALONE, RATE, index)
    others = batch(seed=1)
    others[2] = batch()[5]
    got = run(KEY, others, WHOLE, ALONE, RATE, index.at[2].set(index[5]))
    np.testing.assert_allclose(got[2], want[5], rtol=1e-5, atol=1e-7)
    assert np.abs(got[5] - want[5]).max() > 1e-3
    by_place = run(KEY, batch(), WHOLE, ALONE, RATE)
    np.testing.assert_array_equal(run(KEY, batch(), WHOLE, ALONE, RATE, jnp.arange(8)), by_place)


def test_a_mesh_changes_nothing():
    """Mixing takes items from other devices."""
    want = run(KEY, batch(), WHOLE, ALL, RATE)
    placed = sharding.place_batch({"audio": batch(), "mask": WHOLE}, sharding.make_mesh())
    got = run(KEY, placed["audio"], placed["mask"], ALL, RATE)
    assert len(got.sharding.device_set) == 8
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_gains_are_of_their_range_and_differ():
    config = Augmentation(gain_db=(-10.0, 6.0))
    gains = np.asarray(run(KEY, batch(), WHOLE, config, RATE) / batch())
    gains_dB = 20.0 * np.log10(gains.mean(axis=(1, 2)))
    assert (gains_dB > -10.0).all() and (gains_dB < 6.0).all() and np.ptp(gains_dB) > 3.0
    assert np.ptp(gains, axis=(1, 2)).max() < 1e-5


def test_silence_stays_silence():
    audio, silent = batch(), np.arange(8) % 2 == 0
    audio[silent] = 0.0
    got = run(KEY, audio, WHOLE, ALONE, RATE)
    assert np.isfinite(got).all()
    assert (np.asarray(got)[silent] == 0).all() and np.abs(got[1]).max() > 0


def test_what_is_nearly_silent_is_not_made_loud():
    """Below -70 LUFS it has the gain that -70 would have."""
    audio = batch()
    audio[0] *= 1e-6
    got = run(KEY, audio, WHOLE, Augmentation(loudness_db=-30.0), RATE)
    np.testing.assert_allclose(got[0], 100.0 * audio[0], rtol=1e-4)


def test_padding_stays_silent():
    mask = np.arange(SAMPLES) < np.array([[SAMPLES], [600], [1], [0]] * 2)
    got = run(KEY, batch() * mask[..., None], mask, ALL, RATE)
    assert np.isfinite(got).all() and (np.asarray(got)[~mask] == 0).all()


@pytest.mark.parametrize("share, mixed", [(1.0, 8), (0.5, None)])
def test_mixing_adds_the_next_item_to_a_share(share, mixed):
    config, audio = Augmentation(mix=share), batch()
    got = np.asarray(run(KEY, audio, WHOLE, config, RATE))
    summed = audio + np.roll(audio, -1, axis=0)
    is_sum = [np.allclose(a, b, atol=1e-6) for a, b in zip(got, summed, strict=True)]
    is_item = [np.allclose(a, b, atol=1e-6) for a, b in zip(got, audio, strict=True)]
    assert sum(is_sum) + sum(is_item) == 8
    assert sum(is_sum) == mixed or (mixed is None and 0 < sum(is_sum) < 8)


def test_nothing_passes_full_scale_nor_is_clipped():
    audio = 30.0 * batch()
    got = np.asarray(run(KEY, audio, WHOLE, Augmentation(gain_db=(0.0, 6.0)), RATE))
    np.testing.assert_allclose(np.abs(got).max(axis=(1, 2)), 1.0, rtol=1e-6)
    shape = audio / np.abs(audio).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(got, shape, rtol=1e-5, atol=1e-6)


def test_a_phase_shift_turns_every_sine_by_the_angle():
    audio = sine(200.0, RATE) + 0.5 * sine(777.0, RATE, 1.0)
    got = jax.jit(shift_phase)(audio, jnp.array([0.7]))
    want = sine(200.0, RATE, 0.7) + 0.5 * sine(777.0, RATE, 1.7)
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_a_share_of_items_is_shifted():
    got = run(KEY, batch(), WHOLE, Augmentation(phase=0.5), RATE)
    kept = np.isclose(got, batch(), atol=1e-5).all(axis=(1, 2))
    assert 0 < kept.sum() < 8


def test_the_weighting_filters_are_those_the_standard_lists_for_48_khz():
    """ITU-R BS.1770-4, tables 1 and 2."""
    shelf, high_pass = k_filters(48_000)
    np.testing.assert_allclose(
        shelf,
        [
            [1.53512485958697, -2.69169618940638, 1.19839281085285],
            [1.0, -1.69065929318241, 0.73248077421585],
        ],
        atol=1e-9,
    )
    np.testing.assert_allclose(
        high_pass, [[1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621]], atol=1e-9
    )


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_full_sine_of_997_hertz_is_3_decibels_below_full_scale(rate):
    """The standard's calibration; two such channels are 3 dB louder, whatever the padding."""
    audio, mask = sine(997.0, rate), np.ones((1, rate), bool)
    np.testing.assert_allclose(loudness(audio, mask, rate), -3.01, atol=0.05)
    both = np.repeat(audio, 2, axis=-1)
    both, mask = (np.pad(x, [(0, 0), (0, 999)] + [(0, 0)] * (x.ndim - 2)) for x in (both, mask))
    np.testing.assert_allclose(loudness(both, mask, rate), 0.0, atol=0.05)


def test_items_are_brought_to_one_loudness():
    audio = batch() * 10.0 ** np.linspace(-2, 0, 8, dtype=np.float32)[:, None, None]
    got = run(KEY, audio, WHOLE, Augmentation(loudness_db=-30.0), RATE)
    np.testing.assert_allclose(loudness(got, WHOLE, RATE), -30.0, atol=0.01)
