"""EnCodec's published sizes (Défossez et al. 2022; 32 and 16 kHz from Copet et al. 2023)."""

import dataclasses

import numpy as np

from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.systems.codec import Codec, leaf_shapes


def encodec_24khz() -> CodecConfig:
    """24 kHz mono, causal, 75 frames per second, up to 32 levels (24 kbps)."""
    bandwidths = 1.5, 3.0, 6.0, 12.0, 24.0
    return CodecConfig(24_000, SEANetConfig(), levels=32, codebook_size=1024, bandwidths=bandwidths)


def encodec_48khz() -> CodecConfig:
    """48 kHz stereo, a second at a time, 150 frames per second, up to 16 levels (24 kbps)."""
    seanet = SEANetConfig(channels=2, causal=False, norm="time_group_norm")
    return CodecConfig(
        48_000,
        seanet,
        levels=16,
        codebook_size=1024,
        normalize=True,
        segment=1.0,
        bandwidths=(3.0, 6.0, 12.0, 24.0),
    )


def encodec_32khz() -> CodecConfig:
    """MusicGen's: 32 kHz mono, 50 frames per second, 4 levels of 2048 (2.2 kbps)."""
    seanet = SEANetConfig(filters=64, ratios=(8, 5, 4, 4), causal=False, true_skip=True)
    return CodecConfig(32_000, seanet, levels=4, codebook_size=2048)


def encodec_16khz() -> CodecConfig:
    """AudioGen's: 16 kHz mono, 50 frames per second, 4 levels of 2048 (2.2 kbps)."""
    seanet = SEANetConfig(filters=64, causal=False, true_skip=True)
    return CodecConfig(16_000, seanet, levels=4, codebook_size=2048)


def with_lstm(codec: Codec) -> Codec:
    """The same codec with an LSTM that adds nothing, for readers that cannot be without one.

    An LSTM of zeros gives zeros, which are added to what it reads: codes and audio stay the same.
    Raises ValueError if the codec has one already.
    """
    seanet = codec.config.seanet
    if seanet.lstm_layers:
        raise ValueError(f"the codec has {seanet.lstm_layers} layers of LSTM already")
    seanet = dataclasses.replace(seanet, lstm_layers=1)
    config = dataclasses.replace(codec.config, seanet=seanet)
    zeros = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in leaf_shapes(config).items()}
    return Codec.of_leaves(config, zeros | codec.leaves)
