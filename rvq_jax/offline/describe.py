"""What a file of codes or a codec folder holds, as plain values to print."""

from pathlib import Path

import jax
import numpy as np

from rvq_jax import builtin
from rvq_jax.convert import dac_file, ecdc
from rvq_jax.errors import UserError
from rvq_jax.rvqfile.reader import Reader
from rvq_jax.systems.codec import Codec


def file(path: str | Path) -> dict:
    """Of an .rvq, .ecdc or .dac file; raises UserError if it is none or is damaged."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not there; check the name")
    kinds = {".rvq": _rvq, ".ecdc": _ecdc, ".dac": _dac}
    if path.suffix.lower() not in kinds:
        raise UserError(f"{path} is none of {', '.join(kinds)}, nor a codec folder")
    found, raw_bits = kinds[path.suffix.lower()](path)
    found["bytes"] = path.stat().st_size
    found["kbps_stored"] = 8 * found["bytes"] / found["seconds"] / 1000
    found["kbps_raw"] = raw_bits / found["seconds"] / 1000
    return found


def folder(path: str | Path) -> dict:
    """Of a codec folder; raises UserError if it is none."""
    path = builtin.folder(path)
    codec = Codec.load(path)
    config = codec.config
    # What decides codes and audio; a quantizer's running means are no parameters.
    books = [leaf for name, leaf in codec.coding_leaves.items() if "quantizer" in name]
    return {
        "codec": codec.name,
        **_status(codec.name),
        "rate": config.rate,
        "channels": config.channels,
        "frame_rate": config.frame_rate,
        "levels": config.levels,
        "codebook_size": config.codebook_size,
        "kbps": codec.kbps(),
        "causal": config.causal,
        "parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(codec.params)),
        "quantizer_parameters": sum(map(np.size, books)),
        "hash": codec.fingerprint().hex()[:16],
        "bytes": sum(part.stat().st_size for part in Path(path).iterdir() if part.is_file()),
    }


def _status(codec: str) -> dict:
    return {"status": builtin.status_of(codec)} if builtin.is_version(codec) else {}


def _rvq(path: Path) -> tuple[dict, float]:
    with path.open("rb") as opened:
        reader = Reader(opened)
        header, frames, samples = reader.header, reader.frames, reader.samples
    if not samples:
        raise UserError(f"{path} is damaged: it says no length; get it again")
    if samples > frames * header.hop:
        raise UserError(
            f"{path} is damaged: {samples} samples in {frames} frames of {header.hop}; get it again"
        )
    found = {
        "format": "rvq",
        "codec": header.codec,
        **_status(header.codec),
        "rate": header.rate,
        "channels": header.channels,
        "seconds": samples / header.rate,
        "samples": samples,
        "levels": header.levels,
        "codebook_size": max(header.sizes),
        "frames": frames,
        "entropy": bool(header.entropy),
        "hash": header.hash.hex()[:16],
    }
    return found, frames * float(np.log2(header.sizes).sum())


def _ecdc(path: Path) -> tuple[dict, float]:
    said = ecdc.read(path)
    levels, frames = len(said.codes[0]), sum(codes.shape[1] for codes in said.codes)
    found = {
        "format": "ecdc",
        "codec": said.codec,
        "rate": said.rate,
        "channels": said.channels,
        "seconds": said.samples / said.rate,
        "samples": said.samples,
        "levels": levels,
        "codebook_size": 1 << ecdc.WIDTH,
        "frames": frames,
    }
    return found, frames * levels * ecdc.WIDTH


def _dac(path: Path) -> tuple[dict, float]:
    said = dac_file.read(path)
    parts, levels, frames = said.codes.shape
    found = {
        "format": "dac",
        "codec": "dac",
        "rate": said.rate,
        "channels": said.channels,
        "seconds": said.samples / said.rate,
        "samples": said.samples,
        "levels": levels,
        "frames": frames,
        "version": said.version,
    }
    # The file does not say how large the codebooks are; all published ones have 1024.
    return found, parts * frames * levels * 10
