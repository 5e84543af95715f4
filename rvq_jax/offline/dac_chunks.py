"""Descript's .dac files to audio, as its own `decompress` does.

Audio longer than five seconds it codes in windows, with convolutions that pad nothing: windows
overlap as far as the codec sees, and what each decodes to follows on what the last one did.
"""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rvq_jax import quantize
from rvq_jax.audio import resample
from rvq_jax.codec import autoencoder
from rvq_jax.codec.dac import DACConfig, Decoder
from rvq_jax.convert.dac_file import DacFile
from rvq_jax.errors import UserError
from rvq_jax.quantize import State
from rvq_jax.systems.codec import Codec, Coded
from rvq_jax.typing import Audio, Codes, Latents

SHORTEST = 0.5  # seconds; shorter audio is measured with silence after it
SILENCE = -70.0  # LUFS, where measuring ends
CHANNELS = 5  # that BS.1770 has weights for
WINDOW = 60.0  # seconds that are decoded at once, at most: descript's own are of five


def decode(
    codec: Codec, file: DacFile, name: str | Path, levels: int | None, chunk: float
) -> tuple[np.ndarray, int]:
    """Decodes a .dac file to audio of the rate, length and loudness that was encoded.

    The channels are set to the stored loudness together; the reference sets each of them to it
    alone, which makes stereo 3 dB louder and loses its balance.

    Args:
      codec: the DAC that made the file.
      file: contents of the file.
      name: name of the file, for error messages.
      levels: number of first levels to decode; None for all that the file has.
      chunk: seconds per step, for audio that was encoded with padding and is longer than three
        steps; what was encoded without padding is decoded in its own windows.

    Returns:
      Audio `[S, C]`, and its rate in samples per second, that of the audio before encoding.

    Raises:
      UserError: when the file is of another codec, has fewer levels than asked for, holds several
        items or fewer frames than its length needs, or the package that measures loudness is
        missing.
    """
    check(codec.config, file, name, levels)
    config = codec.config
    codes = file.codes[:, :levels]
    if file.padding:
        samples = codes.shape[2] * config.hop
        is_long = samples > 3 * chunk * config.rate
        audio_CS1 = codec.decode(Coded(codes, None, samples), chunk=chunk if is_long else None)
    else:
        starts = range(0, codes.shape[2], file.chunk_frames)
        parts = [codes[:, :, start : start + file.chunk_frames] for start in starts]
        audio_CS1 = np.concatenate(
            [np.asarray(_unpadded(*codec.prepared, part)) for part in parts], axis=1
        )
    audio_SC = np.asarray(audio_CS1)[..., 0].T
    gain = 10 ** ((file.input_db[0] - loudness(audio_SC, config.rate)) / 20)
    audio_SC = resample.to_rate(audio_SC * np.float32(gain), config.rate, file.rate)
    missing = file.samples - len(audio_SC)
    if missing > config.hop * file.rate / config.rate + 1:
        raise UserError(f"{name} has codes of {len(audio_SC)} samples only, not {file.samples}")
    return np.pad(audio_SC[: file.samples], ((0, max(0, missing)), (0, 0))), file.rate


def check(config, file: DacFile, name: str | Path, levels: int | None) -> None:
    """Whether a codec can decode a file, and within bounds.

    Args:
      config: of the codec.
      file: contents of the file.
      name: name of the file, for error messages.
      levels: number of first levels to decode; None for all that the file has.

    Raises:
      UserError: it cannot.
    """
    own = file.codes.shape[1]
    if (
        not isinstance(config, DACConfig)
        or own > config.levels
        or file.codes.max() >= config.codebook_size
    ):
        raise UserError(
            f"{name} has {own} levels of a DAC with codes up to {file.codes.max()}, which this "
            "codec cannot have made; give the codec that made it"
        )
    if levels is not None and not 1 <= levels <= own:
        raise UserError(f"{name}: levels must be in 1..{own}, got {levels}")
    # The file says both rates' worth: before any work on what it claims.
    longest = math.ceil((file.codes.shape[2] + 1) * config.hop * file.rate / config.rate) + 1
    if file.samples > longest:
        raise UserError(f"{name} has codes of {longest} samples at most, not {file.samples}")
    if len(file.codes) != file.channels:
        raise UserError(f"{name} holds {len(file.codes)} channels of codes; decode one file each")
    if file.channels > CHANNELS:
        raise UserError(
            f"{name} has {file.channels} channels; loudness is that of {CHANNELS} at most"
        )
    window = min(file.chunk_frames, file.codes.shape[2]) * config.hop
    if not file.padding and window > WINDOW * config.rate:
        raise UserError(f"{name} has windows of {window / config.rate:.0f} s, {WINDOW:.0f} at most")


@functools.partial(jax.jit, static_argnames="config")
def _unpadded(config: DACConfig, params, quantizer: State, codes: Codes) -> Audio:
    """What a window's codes `[B, K, F]` tell alone, less than F · hop samples."""
    decoder = nnx.merge(autoencoder.graph(config), params).decoder
    return _decoder(decoder, quantize.decode(quantizer, codes))


def _decoder(decoder: Decoder, latents: Latents) -> Audio:
    x = decoder.first.valid(latents)
    for block in decoder.blocks:
        x = block.strided.untrimmed(block.snake(x))
        for unit in block.units:
            y = unit.dilated.valid(unit.snakes[0](x))
            y = unit.pointwise.valid(unit.snakes[1](y))
            cut = (x.shape[1] - y.shape[1]) // 2
            x = x[:, cut : x.shape[1] - cut] + y
    return jnp.tanh(decoder.last.valid(decoder.snake(x)))


def loudness(audio_SC: np.ndarray, rate: int) -> float:
    """Integrated loudness in LUFS (ITU-R BS.1770-4) of `[S, C]`, -70 at least.

    Raises UserError without the package that measures it.
    """
    try:
        import pyloudnorm
    except ImportError as error:
        raise UserError(
            ".dac files are set to a loudness; pip install 'rvq_jax[convert]' to measure it"
        ) from error
    missing = max(0, round(SHORTEST * rate) - len(audio_SC))
    padded_SC = np.pad(np.asarray(audio_SC, np.float64), ((0, missing), (0, 0)))
    return max(SILENCE, float(pyloudnorm.Meter(rate).integrated_loudness(padded_SC)))
