"""A codec's ways to run agree: whole, in windows, as a stream, in a batch of unequal lengths.

Codes are compared whole, all of them; audio to rounding.
"""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from signals import noise
from tiers import examples, tried, wide

import rvq_jax as rj
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.dac import DACConfig
from rvq_jax.codec.filterbank import FilterbankConfig
from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.codec.stream import encode_step
from rvq_jax.codec.transformer import TransformerConfig

SMALL = {"dim": 6, "filters": 4, "ratios": (3, 2), "kernel": 5, "last_kernel": 3}


def seanet(channels=1, **changes):
    return SEANetConfig(channels=channels, **SMALL | changes)


CONFIGS = {
    "mirrored": CodecConfig(600, seanet(), levels=3, codebook_size=16),
    "padded": CodecConfig(
        600,
        seanet(pad_mode="constant", lstm_layers=0, residual_layers=2),
        levels=3,
        codebook_size=16,
    ),
    "centred": CodecConfig(600, seanet(causal=False, true_skip=True), levels=3, codebook_size=16),
    "levelled": CodecConfig(
        600,
        seanet(causal=False, lstm_layers=0, pad_mode="constant"),
        levels=3,
        codebook_size=16,
        normalize=True,
    ),
    "segments": CodecConfig(
        600,
        seanet(2, causal=False, norm="time_group_norm", lstm_layers=1),
        levels=3,
        codebook_size=16,
        normalize=True,
        segment=0.4,
        overlap=0.1,
    ),
    "filterbank": FilterbankConfig(
        600, hop=6, filters=8, dilations=(1, 2), dim=6, levels=3, codebook_size=16
    ),
    "mimi": MimiConfig(
        1200,
        seanet(dim=8, true_skip=True, lstm_layers=0, norm="none", pad_mode="constant"),
        TransformerConfig(8, 2, 2, 2, 4, 16, context=9, layer_scale=0.3),
        levels=3,
        codebook_size=16,
        code_dim=4,
    ),
    "dac": DACConfig(600, (2, 5), 4, 16, 8, levels=3, codebook_size=16, code_dim=3),
}
# Few, for each compiles: one sample, a part full frame, whole frames but for DAC, a few left over.
LENGTHS = {"few": (17, 431), "many": (1, 17, 300, 431)}


@functools.cache
def codec(name):
    """Untrained; books far enough apart that rounding decides nothing."""
    one = rj.Codec.init(CONFIGS[name], jax.random.key(0))
    if name != "dac":
        return one
    # So many residual units grow a signal until its sines turn rounding into noise.
    params = jax.tree.map(lambda x: 0.5 * x if x.ndim == 3 else x, one.params)
    return rj.Codec(one.config, params, one.quantizer)


def same(ours, expected):
    np.testing.assert_allclose(ours, expected, atol=2e-5 * np.abs(expected).max())


# One test per codec: what one law compiles, the others use.
# The fast tier has two codecs in two lengths, which have none of DAC's activations, Mimi's
# transformer, filterbanks and windows of what is not causal; the slow one has those too.
FEW = ("mirrored", "segments")
LIKE = ("centred",)  # levelled is not causal either


@pytest.mark.parametrize(
    "name", tried(FEW, [x for x in CONFIGS if x not in LIKE]) + [wide(x) for x in LIKE]
)
def test_every_way_gives_the_same(name):
    """All of two items at once and in windows of 7 frames: so few shapes compile."""
    one, lengths = codec(name), LENGTHS["few"]
    check_padding(one, lengths, alone=lengths[:1])
    if not one.config.segment:
        check_chunks(one, 2, 431, frames=7)
        check_chunks_with_padding(one)
    if one.config.causal:
        check_streams(one, 2, [431], [7])


@pytest.mark.wide
@pytest.mark.parametrize("name", CONFIGS)
def test_every_way_gives_the_same_for_many_lengths(name):
    one, lengths = codec(name), LENGTHS["many"]
    for pair in zip(lengths[:2], lengths[2:], strict=True):
        check_padding(one, pair, alone=pair)
    if not one.config.segment:
        for samples in lengths:
            check_chunks(one, 1, samples, frames=29 if samples == 300 else 7)
        check_chunks_with_padding(one)
    if one.config.causal:
        check_streams(one, 1, lengths, [1, 3])


def check_padding(one, lengths, alone):
    """Every item of a batch gets the codes and the audio that it gets alone; what lies in the
    padding or beside it does not matter, so that is set to loud noise."""
    config = one.config
    audio = noise(2, 431, config.channels)
    for item, length in enumerate(lengths):
        audio[item, length:] *= 100.0
    together = one.encode(audio, lengths=lengths)
    decoded = one.decode(together)
    loud = audio.copy()
    loud[0] *= -100.0
    beside = one.encode(loud, lengths=lengths)
    np.testing.assert_array_equal(beside.codes[1], together.codes[1])
    same(one.decode(beside)[1], decoded[1])
    for item, length in enumerate(lengths):
        frames = -(-length // config.hop)
        if not config.segment:
            assert not np.any(together.codes[item, :, frames:])
        assert not np.any(decoded[item, length:])
    for item, length in enumerate(alone):
        own = one.encode(audio[item : item + 1, :length])
        frames = own.codes.shape[2]
        if config.normalize:
            segments = own.scales.shape[1]
            np.testing.assert_allclose(together.scales[item, :segments], own.scales[0])
        np.testing.assert_array_equal(together.codes[item, :, :frames], own.codes[0])
        assert not np.any(together.codes[item, :, frames:])
        same(decoded[item, :length], one.decode(own)[0])


def check_chunks(one, rows, samples, frames):
    """Whatever the chunk, whatever is left for the last one."""
    audio = noise(rows, samples, one.config.channels)
    chunk = frames / one.config.frame_rate
    whole, parts = one.encode(audio), one.encode(audio, chunk=chunk)
    np.testing.assert_array_equal(parts.codes, whole.codes)
    assert parts.samples == samples
    decoded = one.decode(whole)
    assert decoded.shape == audio.shape
    same(one.decode(parts, chunk=chunk), decoded)


def check_chunks_with_padding(one):
    """Chunks know where each item ends."""
    audio, chunk = noise(2, 431, one.config.channels), 7 / one.config.frame_rate
    whole = one.encode(audio, lengths=[130, 7])
    parts = one.encode(audio, lengths=[130, 7], chunk=chunk)
    np.testing.assert_array_equal(parts.codes, whole.codes)
    same(one.decode(parts, chunk=chunk), one.decode(whole))


@examples(6)
@given(st.data(), st.lists(st.integers(0, 60), min_size=1))
def check_streams(one, rows, lengths, blocks, data, pieces):
    """Audio in pieces of any size gives all the codes of the whole, and codes all its audio."""
    samples, frames = data.draw(st.sampled_from(lengths)), data.draw(st.sampled_from(blocks))
    audio = noise(rows, samples, one.config.channels)
    whole = one.encode(audio)
    stream, codes, at = one.encode_stream(batch=rows, frames=frames), [], 0
    for piece in [*pieces, samples]:
        codes.append(stream.push(audio[:, at : at + piece]))
        at += piece
    codes.append(stream.close())
    np.testing.assert_array_equal(np.concatenate(codes, axis=2), whole.codes)
    stream, decoded, at = one.decode_stream(batch=rows, frames=frames), [], 0
    while at < whole.codes.shape[2]:
        decoded.append(stream.push(whole.codes[:, :, at : at + frames + 1]))
        at += frames + 1
    decoded = np.concatenate([*decoded, stream.close()], axis=1)
    same(decoded[:, : whole.samples], one.decode(whole))


def test_a_stream_compiles_once():
    """Blocks after the first are one program, wherever in the stream."""
    one = codec("mirrored")
    stream = one.encode_stream(batch=2, frames=7)
    push = functools.partial(stream.push, noise(2, 7 * one.config.hop, 1))
    for _ in range(2):
        push()
    before = encode_step._cache_size()
    for _ in range(20):
        push()
    assert encode_step._cache_size() == before


def test_a_fade_is_as_long_as_an_item_has_it():
    """A first segment that is not whole, and a second one that begins in it, beside longer ones."""
    one = codec("segments")
    audio = noise(2, 431, 2)
    together = one.decode(one.encode(audio, lengths=[225, 431]))
    alone = one.encode(audio[:1, :225])
    assert alone.scales.shape == (1, 2)
    same(together[0, :225], one.decode(alone)[0])


def test_bare_codes_of_segments_are_refused():
    one = codec("segments")
    with pytest.raises(ValueError, match="give a Coded"):
        one.decode(one.encode(noise(1, 431, 2)).codes)
