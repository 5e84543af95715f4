"""EnCodec's .ecdc files: codes and scales of its 24 and 48 kHz codecs, coded without its LM.

A header (magic, version, length, JSON), then per segment a scale if the codec has them, and codes
of 10 bits, least significant first: all levels of a frame, then the next frame, to a whole byte.
"""

import json
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rvq_jax.errors import UserError, reading, shown
from rvq_jax.opening import read_bytes
from rvq_jax.rvqfile import bits

START = struct.Struct("!4sBI")
SCALE = struct.Struct("!f")
WIDTH, HOP = 10, 320


class _Kind(NamedTuple):
    rate: int
    channels: int
    levels: int  # at most
    segment: int | None  # samples; None: all are one segment
    stride: int | None  # samples from one segment to the next, which overlap
    is_scaled: bool


KINDS = {
    "encodec_24khz": _Kind(24_000, 1, 32, None, None, False),
    "encodec_48khz": _Kind(48_000, 2, 16, 48_000, 47_520, True),
}


class EcdcFile(NamedTuple):
    """What an .ecdc file holds."""

    codec: str  # "encodec_24khz" or "encodec_48khz"
    rate: int
    channels: int
    samples: int  # S
    codes: list[np.ndarray]  # of each segment [K, F] int32, in [0, 1024)
    scales: np.ndarray  # [segments] float32, which decoded segments are multiplied by; 24 kHz: [0]


def read(path: str | Path) -> EcdcFile:
    """The codes of a file that `encodec` wrote without its language model.

    Raises UserError if it is not there, is no such file, was coded with the language model, or is
    damaged or cut short.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not there; check the name")
    with reading(path, "an .ecdc file"):
        data = read_bytes(path)
    said, at = _header(path, data)
    kind = KINDS[said["m"]]
    samples, levels = said["al"], said["nc"]
    segment, stride = kind.segment or samples, kind.stride or samples
    # Before any work on what the header claims: no frame takes less than this.
    if len(data) - at < bits.length(-(-samples // HOP) * levels, WIDTH):
        raise UserError(f"{path} is cut short: {samples} samples need more; get it again")
    codes, scales = [], []
    for begin in range(0, samples, max(1, stride)):
        frames = -(-min(segment, samples - begin) // HOP)
        if kind.is_scaled:
            scales.append(data[at : at + SCALE.size])
            at += SCALE.size
        length = bits.length(frames * levels, WIDTH)
        if len(data) < at + length:
            raise UserError(f"{path} is cut short in segment {len(codes)}; get it again")
        codes_M = bits.unpack(data[at : at + length], WIDTH, frames * levels)
        codes.append(np.ascontiguousarray(codes_M.reshape(frames, levels).T))
        at += length
    if at != len(data):
        raise UserError(f"{path} is damaged: {len(data) - at} bytes after its end; get it again")
    scales_ = np.frombuffer(b"".join(scales), ">f4").astype(np.float32)
    if not np.isfinite(scales_).all():
        raise UserError(f"{path} is damaged: a scale is no finite number; get it again")
    return EcdcFile(said["m"], kind.rate, kind.channels, samples, codes, scales_)


def _header(path: Path, data: bytes) -> tuple[dict, int]:
    """The checked JSON, and where the codes begin."""
    if data[:4] != b"ECDC":
        raise UserError(f"{path} is no .ecdc file; give one that EnCodec wrote")
    with reading(path, "an .ecdc file", "it is damaged in its header: get it again"):
        _, version, length = START.unpack_from(data)
        if version != 0:
            raise UserError(f"{path} has .ecdc version {version}, only 0 is read; write it again")
        begin = START.size + length
        if begin > len(data):
            raise UserError(f"{path} is cut short in its header; get it again")
        said = _object(data[START.size : begin])
        name, samples, levels, lm = (said[key] for key in ("m", "al", "nc", "lm"))
    if not isinstance(name, str) or name not in KINDS:
        raise UserError(f"{path} is of a codec {shown(name)}; only {' and '.join(KINDS)} are read")
    if lm is not False:
        raise UserError(
            f"{path} was coded with EnCodec's language model, whose floating-point chances differ "
            "between machines; decode it where it was made, and write it again without --lm"
        )
    most = KINDS[name].levels
    if type(samples) is not int or samples < 1 or type(levels) is not int:
        raise UserError(f"{path} is damaged in its header: {shown(samples)} samples; get it again")
    if not 1 <= levels <= most:
        raise UserError(f"{path} is damaged in its header: {shown(levels)} levels; get it again")
    return said, begin


def _object(text: bytes) -> dict:
    said = json.loads(text)
    if not isinstance(said, dict):
        raise ValueError("its header is no object")
    return said
