"""What the corpus is stored as: samples as 16-bit numbers with their hashes, and tables of CSV."""

import csv
import hashlib
from pathlib import Path

import numpy as np

from rvq_jax import files
from rvq_jax.audio import io
from rvq_jax.errors import UserError, reading


def read(path: Path) -> tuple[np.ndarray, int]:
    """Samples `[S, C]` int16 of an audio file, and its rate; raises UserError as `io.read`."""
    audio_SC, rate = io.read(path)
    return int16(audio_SC), rate


def int16(audio_SC: np.ndarray) -> np.ndarray:
    """Samples as a dataset stores them."""
    scaled_SC = audio_SC * np.float32(32768)
    np.clip(np.round(scaled_SC, out=scaled_SC), -32768, 32767, out=scaled_SC)
    return scaled_SC.astype(np.int16)


def read_g722(path: Path) -> tuple[np.ndarray, int]:
    """Samples `[S, 1]` int16 of a file of bare G.722 at 64 kbit/s (ITU-T G.722), and their rate."""
    try:
        import av
    except ImportError:
        raise UserError("G.722 needs av: pip install 'rvq_jax[metrics]'") from None
    with reading(path, "G.722"), av.open(str(path), format="g722") as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        return np.concatenate(frames, axis=1).T, 16_000


def write_flac(path: Path, pcm_SC: np.ndarray, rate: int) -> None:
    """Writes `[S, C]` int16, whole or not at all."""
    import soundfile

    with files.writing(path) as target:
        soundfile.write(target, pcm_SC, rate, subtype="PCM_16", format="FLAC")


def digest(pcm_SC: np.ndarray, rate: int) -> str:
    """SHA-256 of `[S, C]` int16, with its rate and channels."""
    head = f"{rate} {pcm_SC.shape[1]}\n".encode()
    return hashlib.sha256(head + pcm_SC.astype("<i2").tobytes()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, '' where its samples say as much."""
    if path.suffix in (".flac", ".wav"):
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_table(path: Path) -> list[dict]:
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def write_table(path: Path, rows: list[dict], columns: tuple[str, ...] = ()) -> None:
    """A CSV file of rows; its columns are those named, or those of the first row."""
    columns = columns or tuple(rows[0])
    with files.writing(path) as target, target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({name: row[name] for name in columns} for row in rows)
