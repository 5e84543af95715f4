"""A corpus to codes, once: what token models are trained on."""

import dataclasses
import math
from pathlib import Path
from typing import Protocol

import numpy as np

from rvq_jax import builtin, files, progress
from rvq_jax.audio import chroma
from rvq_jax.convert import musicgen
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.decoding import channels
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.musicgen.folder import KIND

MUSICGENS = {KIND, *musicgen.WHOLE, *musicgen.ALONE}


def load_codec(path: str | Path) -> Codec:
    """The codec in a folder of its own or of a MusicGen; raises UserError if there is none."""
    path = files.model_folder(builtin.folder(path))
    fields = files.load_config(path)
    if not {fields.get("model"), fields.get("model_type")} & MUSICGENS:
        return Codec.load(path)
    codec = MusicGen.load(path).codec
    if codec is None:
        raise UserError(f"{path} holds a token model without a codec")
    return codec


def sound_of(codec: Codec, rate: int | None, channels: int | None) -> tuple[int, int]:
    """Rate and channels of a dataset for a codec, of which some may be asked for.

    Raises UserError for those that the codec cannot encode.
    """
    config = codec.config
    check_whole(codec)
    if rate not in (None, config.rate):
        raise UserError(f"--rate is {rate}, the codec's {config.rate}; leave it out")
    if (channels or config.channels) % config.channels:
        raise UserError(f"--channels is {channels}, the codec has {config.channels}; leave it out")
    return config.rate, channels or config.channels


class Semantic(Protocol):
    """Where semantic tokens come from: a tokenizer of audio, or a folder of them."""

    size: int
    frame_rate: float

    def of(self, record: dict, rate: int) -> np.ndarray:
        """Tokens `[T]` of a record with audio `[S, C]` of so many samples per second."""


def encode_records(
    codec: Codec,
    source,
    label: str,
    melody: int | None = None,
    semantic: Semantic | None = None,
) -> CodeSet:
    """Encodes every record of a dataset.

    Records of more channels than the codec's are encoded channel by channel, the levels of all
    channels side by side, as stereo MusicGen has them.

    Args:
      codec: that encodes them.
      source: records with audio `[S, C]`, name, caption and label.
      label: of the progress bar.
      melody: pitch classes to keep each record's melody in; no melody for None.
      semantic: what gives each record's semantic tokens, to keep beside its codes; none for None.

    Returns:
      Codes `[K, F]` of every record, F whole frames that cover it.

    Raises:
      UserError: channels that do not fit, a codec that codes segments apart, or semantic tokens of
        a rate that does not divide its frame rate.
    """
    config = codec.config
    check_whole(codec)
    ratio = None if semantic is None else frames_of_token(codec, semantic.frame_rate)
    codes, melodies, semantics, names, captions, labels = [], [], [], [], [], []
    for i in progress.bar(range(len(source)), desc=label, unit="clip"):
        record = source[i]
        codes.append(_encode(codec, record["audio"]))
        if melody is not None:
            heard = chroma.chroma(record["audio"][None], config.rate, melody)[0]
            melodies.append(np.asarray(heard.argmax(axis=-1), np.uint8))
        if semantic is not None:
            tokens = semantic.of(record, config.rate)
            wanted = -(-codes[-1].shape[1] // ratio)
            semantics.append(tokens[np.minimum(np.arange(wanted), len(tokens) - 1)])
        names.append(record["name"])
        captions.append(record["caption"])
        labels.append(record["label"])
    made = CodeSet(
        codes, names, captions, labels, config.frame_rate, config.codebook_size, _hash(codec)
    )
    if semantic is not None:
        how = {"semantic_size": semantic.size, "semantic_ratio": ratio}
        made = dataclasses.replace(made, semantics=semantics, **how)
    if melody is None:
        return made
    how = {"melody_bins": melody, "melody_rate": config.rate / chroma.HOP}
    return dataclasses.replace(made, melodies=melodies, **how)


def frames_of_token(codec: Codec, frame_rate: float) -> int:
    """Frames of a codec for each semantic token at so many per second; raises UserError unless they
    are whole."""
    ratio = codec.config.frame_rate / frame_rate
    if ratio < 1 or abs(ratio - round(ratio)) > 1e-6:
        raise UserError(
            f"semantic tokens at {frame_rate:g} a second do not divide the codec's "
            f"{codec.config.frame_rate:g} frames; take another rate"
        )
    return round(ratio)


def cached_codes(
    path: str | Path,
    codec: Codec,
    source,
    label: str,
    melody: int | None = None,
    semantic: Semantic | None = None,
) -> CodeSet:
    """The code cache of a dataset, written first if it is not there.

    Args:
      path: the .npz.
      codec: that encodes the records.
      source: records, as of `encode_records`.
      label: of the progress bar.
      melody: pitch classes of the melody; no melody is asked for by None.
      semantic: what gives semantic tokens; none are asked for by None.

    Returns:
      The codes.

    Raises:
      UserError: a cache that is damaged, another codec's, or has not the melody or semantic tokens
        asked for.
    """
    path = Path(path)
    if not path.exists():
        encode_records(codec, source, label, melody, semantic).save(path)
    codes = CodeSet.load(path)
    check_codec(codes, codec, str(path))
    if melody not in (None, codes.melody_bins):
        raise UserError(f"{path} has no melody of {melody} pitch classes; choose another --out")
    if semantic is not None:
        asked = semantic.size, frames_of_token(codec, semantic.frame_rate)
        if (codes.semantic_size, codes.semantic_ratio) != asked:
            raise UserError(
                f"{path} has no {semantic.size} semantic tokens at {semantic.frame_rate:g} a "
                "second; choose another --out"
            )
    return codes


def check_codec(codes: CodeSet, codec: Codec, where: str) -> None:
    """Raises UserError for codes that another codec made, as far as they know who made them."""
    if codes.codec and codes.codec != _hash(codec):
        raise UserError(f"{where} holds codes of another codec; make them again with this one")


def check_whole(codec: Codec) -> None:
    """Raises UserError for a codec whose codes no token model can go through."""
    if codec.config.segment:
        raise UserError("this codec codes segments apart, whose ends no token model knows")


def _hash(codec: Codec) -> str:
    return codec.fingerprint().hex()


def _encode(codec: Codec, audio_SC: np.ndarray) -> np.ndarray:
    config, (samples, count) = codec.config, audio_SC.shape
    if count % config.channels:
        raise UserError(f"the audio has {count} channels, the codec {config.channels}")
    # To whole seconds, so that clips of all lengths compile a few programs and not one per length.
    padded = np.zeros((1, math.ceil(samples / config.rate) * config.rate, count), np.float32)
    padded[0, :samples] = audio_SC
    ways, lengths = count // config.channels, np.array([samples])
    codes = channels.encode(codec, padded, ways, lengths=lengths)
    return codes[0, :, : math.ceil(samples / config.hop)]
