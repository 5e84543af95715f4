"""A codec's ways to run agree: whole, in windows, as a stream, in a batch of unequal lengths.

Codes are compared whole, all of them; audio to rounding.
"""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rvq_jax as rj
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.dac import DACConfig
from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.codec.transformer import TransformerConfig

SMALL = {"dim": 6, "filters": 4, "ratios": (3, 2), "kernel": 5, "last_kernel": 3}


def seanet(channels=1, **changes):
    return SEANetConfig(channels=channels, **SMALL | changes)


CONFIGS = {
    "mirrored": CodecConfig(600, seanet(), levels=3, size=16),
    "padded": CodecConfig(600, seanet(pad_mode="constant", lstm_layers=0), levels=3, size=16),
    "repeated": CodecConfig(600, seanet(pad_mode="replicate"), levels=3, size=16),
    "centred": CodecConfig(600, seanet(causal=False, true_skip=True), levels=3, size=16),
    "centred padded": CodecConfig(
        600, seanet(causal=False, pad_mode="constant", residual_layers=2), levels=3, size=16
    ),
    "segments": CodecConfig(
        600,
        seanet(2, causal=False, norm="time_group_norm"),
        levels=3,
        size=16,
        normalize=True,
        segment=0.4,
        overlap=0.1,
    ),
    "mimi": MimiConfig(
        1200,
        seanet(dim=8, true_skip=True, lstm_layers=0, norm="none", pad_mode="constant"),
        TransformerConfig(8, 2, 2, 2, 4, 16, context=9, layer_scale=0.3),
        levels=3,
        size=16,
        code_dim=4,
    ),
    "dac": DACConfig(600, (2, 5), 4, 16, 8, levels=3, size=16, code_dim=3),
}
# Few, for each compiles: one sample, a part full frame, whole frames but for DAC, a few left over.
LENGTHS = (1, 17, 300, 431)
CAUSAL = [name for name, config in CONFIGS.items() if config.causal]
LONG = [name for name, config in CONFIGS.items() if not config.segment]


@functools.cache
def codec(name):
    """Untrained; books far enough apart that rounding decides nothing."""
    return rj.Codec.init(CONFIGS[name], jax.random.key(0))


def noise(batch, samples, channels, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((batch, samples, channels)).astype(np.float32)


def same(ours, expected):
    np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("lengths", [(1, 431), (300, 17)])
def test_padding_changes_nothing(name, lengths):
    """Every item of a batch gets the codes and the audio that it gets alone; what lies in the
    padding does not matter, so it is set to loud noise."""
    one, config = codec(name), CONFIGS[name]
    audio = noise(2, 431, config.channels)
    for item, length in enumerate(lengths):
        audio[item, length:] *= 100.0
    together = one.encode(audio, lengths=lengths)
    decoded = one.decode(together)
    for item, length in enumerate(lengths):
        alone = one.encode(audio[item : item + 1, :length])
        frames = alone.codes.shape[2]
        if config.normalize:
            np.testing.assert_allclose(
                together.scales[item, : alone.scales.shape[1]], alone.scales[0]
            )
        np.testing.assert_array_equal(together.codes[item, :, :frames], alone.codes[0])
        assert not np.any(together.codes[item, :, frames:])
        same(decoded[item, :length], one.decode(alone)[0])
        assert not np.any(decoded[item, length:])


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("samples, frames", [*zip(LENGTHS, (7, 7, 29, 7), strict=True)])
def test_chunks_equal_the_whole(name, samples, frames):
    """Whatever the chunk, whatever is left for the last one."""
    one, config = codec(name), CONFIGS[name]
    audio, chunk = noise(1, samples, config.channels), frames / config.frame_rate
    whole, parts = one.encode(audio), one.encode(audio, chunk=chunk)
    np.testing.assert_array_equal(parts.codes, whole.codes)
    assert parts.samples == samples
    decoded = one.decode(whole)
    assert decoded.shape == audio.shape
    same(one.decode(parts, chunk=chunk), decoded)


@pytest.mark.parametrize("name", LONG)
def test_chunks_know_where_each_item_ends(name):
    one, config = codec(name), CONFIGS[name]
    audio, lengths = noise(2, 431, config.channels), [130, 7]
    whole = one.encode(audio, lengths=lengths)
    parts = one.encode(audio, lengths=lengths, chunk=7 / config.frame_rate)
    np.testing.assert_array_equal(parts.codes, whole.codes)
    same(one.decode(parts, chunk=7 / config.frame_rate), one.decode(whole))


@pytest.mark.parametrize("name", CAUSAL)
@settings(max_examples=8)
@given(st.sampled_from(LENGTHS), st.lists(st.integers(0, 60), min_size=1), st.sampled_from([1, 3]))
def test_streams_equal_the_whole(name, samples, pieces, frames):
    """Audio in pieces of any size gives all the codes of the whole, and codes all its audio."""
    one, config = codec(name), CONFIGS[name]
    audio = noise(1, samples, config.channels)
    whole = one.encode(audio)
    stream, codes, at = one.encode_stream(frames=frames), [], 0
    for piece in [*pieces, samples]:
        codes.append(stream.push(audio[:, at : at + piece]))
        at += piece
    codes.append(stream.close())
    np.testing.assert_array_equal(np.concatenate(codes, axis=2), whole.codes)
    stream, decoded, at = one.decode_stream(frames=frames), [], 0
    while at < whole.codes.shape[2]:
        decoded.append(stream.push(whole.codes[:, :, at : at + frames + 1]))
        at += frames + 1
    decoded = np.concatenate([*decoded, stream.close()], axis=1)
    same(decoded[:, : whole.samples], one.decode(whole))
