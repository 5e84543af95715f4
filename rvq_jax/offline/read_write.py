"""Coded audio ↔ .rvq files, and EnCodec's .ecdc files, for a codec that they must belong to."""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from rvq_jax import builtin
from rvq_jax.codec import segments
from rvq_jax.convert import ecdc
from rvq_jax.errors import UserError
from rvq_jax.rvqfile.container import Segment, Writer
from rvq_jax.rvqfile.header import Header
from rvq_jax.rvqfile.reader import Reader
from rvq_jax.systems.codec import Codec, Coded
from rvq_jax.typing import Array

SEGMENT = 750  # frames that a file's segment has, or as many whole segments of the codec as fit


def write(
    file: BinaryIO, codec: Codec, coded: Coded, hash: bytes = bytes(32), entropy: bool = True
) -> None:
    """Writes codes of one item as an .rvq file.

    Args:
      file: a binary file or pipe, open for writing.
      codec: codec that made the codes.
      coded: codes of a batch of one.
      hash: the codec's `fingerprint`, 32 bytes; zeros leave open whose codes these are.
      entropy: whether codes are entropy coded, or only packed.

    Raises:
      UserError: scales that are no numbers, as of audio that holds some.
    """
    config, codes_KF = codec.config, np.asarray(coded.codes[0])
    if coded.scales is not None and not np.isfinite(coded.scales).all():
        raise UserError("the audio holds what is no finite number (NaN); mend it, then encode it")
    per_segment, begins = _layout(config, coded.samples)
    header = Header(
        codec.name,
        config.rate,
        config.channels,
        config.hop,
        (config.codebook_size,) * len(codes_KF),
        coded.samples,
        hash,
        max(1, SEGMENT // per_segment) * per_segment,
        entropy,
    )
    writer = Writer(file, header)
    for first in range(0, codes_KF.shape[1], header.segment_frames):
        last = first + header.segment_frames
        # The codec's segments cannot all be whole near the end: a scale goes where its own begins.
        here = (first <= begins) & (begins < last)
        scales = [] if coded.scales is None else np.asarray(coded.scales[0])[here]
        writer.write(Segment(codes_KF[:, first:last], np.asarray(scales, np.float32)))
    writer.close()


def read(
    file: BinaryIO | Path, codec: Codec, hash: bytes | None = None, levels: int | None = None
) -> Coded:
    """Reads the codes of an .rvq or .ecdc file, of all its levels or of the first ones.

    Args:
      file: a path, or .rvq from an open file or pipe.
      codec: codec that the file must belong to.
      hash: the codec's `fingerprint`, to which that of an .rvq file is compared; None to compare
        none.
      levels: number of first levels to read; None for all that the file has.

    Returns:
      Codes `[1, K, F]`, with their scales if the codec has them, and their number of samples.

    Raises:
      UserError: when the file is damaged, belongs to another codec, or has fewer levels than asked
        for.
    """
    if isinstance(file, Path) and file.suffix.lower() == ".ecdc":
        return _read_ecdc(file, codec, levels)
    if isinstance(file, Path):
        if not file.is_file():
            raise UserError(f"{file} is not there; check the name")
        with file.open("rb") as opened:
            return _read_rvq(opened, str(file), codec, hash, levels)
    return _read_rvq(file, "standard input", codec, hash, levels)


def _read_rvq(file, name: str, codec: Codec, hash: bytes | None, levels: int | None) -> Coded:
    try:
        reader = Reader(file, levels)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    header = reader.header
    is_other = hash is not None and any(header.hash) and header.hash != hash
    # Versions differ in their shapes too.
    if is_other and builtin.is_version(header.codec) and codec.name != header.codec:
        remedy = builtin.who_reads(header.codec)
        raise UserError(f"{name} was made by the built-in codec {header.codec}; {remedy}")
    _check_shape(name, header.codec, codec, header.rate, header.channels, header.hop, header.sizes)
    if is_other:
        raise UserError(
            f"{name} was made by a {header.codec} of other weights; give the codec that made it "
            "with --codec"
        )
    parts = list(reader)
    codes_KF = np.concatenate(
        [np.zeros((reader.levels, 0), np.int32), *(part.codes for part in parts)], axis=1
    )
    scales = np.concatenate([np.zeros(0, np.float32), *(part.scales for part in parts)])
    return _coded(name, codec, codes_KF, scales, reader.samples)


def _read_ecdc(path: Path, codec: Codec, levels: int | None) -> Coded:
    found = ecdc.read(path)
    own = len(found.codes[0])
    check_levels(path, own, levels)
    _check_shape(path, found.codec, codec, found.rate, found.channels, ecdc.HOP, [1024] * own)
    codes_KF = np.concatenate([codes_KF[:levels] for codes_KF in found.codes], axis=1)
    return _coded(path, codec, codes_KF, found.scales, found.samples)


def check_levels(name, own: int, levels: int | None) -> None:
    """Raises UserError if a file of `own` levels has no such prefix."""
    if levels is not None and not 1 <= levels <= own:
        raise UserError(f"--levels must be in 1..{own}, the levels of {name}; got {levels}")


def _check_shape(name, kind: str, codec: Codec, rate: int, channels: int, hop: int, sizes) -> None:
    config = codec.config
    ours = config.rate, config.channels, config.hop
    if (rate, channels, hop) == ours and len(sizes) <= config.levels:
        if all(size == config.codebook_size for size in sizes):
            return
    raise UserError(
        f"{name} was made by another codec, {kind}: {rate} Hz, {channels} channels, {hop} samples "
        f"per frame, {len(sizes)} levels of {sizes[0]}; this one is {codec.name}: {ours[0]} "
        f"Hz, {ours[1]}, {ours[2]}, {config.levels} of "
        f"{config.codebook_size}; give the codec that made it with --codec"
    )


def _coded(name, codec: Codec, codes_KF: Array, scales: Array, samples: int) -> Coded:
    config, frames = codec.config, codes_KF.shape[1]
    # Before anything is laid out for what the file claims.
    fits = 0 < samples <= frames * config.hop
    counts = segments.frames_of(config, samples) if fits else []
    scaled = len(counts) if config.normalize else 0
    if not np.isfinite(scales).all():
        raise UserError(f"{name} is damaged: a scale is no finite number; get it again")
    if not fits or (frames, len(scales)) != (sum(counts), scaled):
        raise UserError(
            f"{name} has {frames} frames and {len(scales)} scales, which this codec never makes "
            f"of {samples} samples; give the codec that made it"
        )
    return Coded(codes_KF[None], scales[None] if config.normalize else None, samples)


def _layout(config, samples: int) -> tuple[int, np.ndarray]:
    """Frames of a full segment of the codec (1 if it has none), and where its segments begin."""
    full = -(-segments.sizes(config)[0] // config.hop) if config.segment else 1
    return full, np.cumsum([0, *segments.frames_of(config, samples)])[:-1]
