"""Frame-rate features of records, given as arrays: what a codec's first level is to say too."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvq_jax.errors import UserError, reading, shown
from rvq_jax.opening import opened, read_bytes

# Frames by which features may be longer or shorter than their audio: models of speech have no
# frame for the last part of a window.
SPARE = 2


@dataclass(frozen=True)
class FeatureCut:
    """Features of crops, out of a folder with `<record name>.npy` `[frames, D]` of each record."""

    folder: Path
    rate: int  # samples of audio per second
    hop: int  # samples per frame of the codec
    frame_rate: float  # features per second
    size: int  # D

    def conditions(self, record: dict, begin: int, frames: int) -> dict[str, np.ndarray]:
        """Features `[frames, D]` float32 of the crop of a record that begins at a codec's frame.

        A codec's frame has the mean of the features that begin in it, or of fewer features than
        frames the one that it begins in; 0 beyond the record's end.

        Raises:
          UserError: features that are not there, cannot be read, are of another length than the
            audio or another size than the first ones, or not finite.
        """
        path, samples = _path(self.folder, record["name"]), len(record["audio"])
        ratio = self.frame_rate * self.hop / self.rate
        # Where rates have a whole quotient, rounding must not make it the next feature.
        edges = (begin + np.arange(frames + 1)) * ratio
        places = (np.ceil(edges - 1e-6) if ratio >= 1 else np.floor(edges + 1e-6)).astype(int)
        with reading(path, "features", "make them again"), opened(path) as file:
            shape, dtype, start = _header(file)
            if shape[1] != self.size:
                raise ValueError(f"of size {shape[1]} where others are of {self.size}")
            seconds, given = samples / self.rate, shape[0] / self.frame_rate
            if abs(shape[0] - seconds * self.frame_rate) > SPARE:
                raise ValueError(
                    f"{given:.2f} s at {self.frame_rate:g} a second, its audio is {seconds:.2f} s"
                )
            # Where features end before their audio, the last one stays.
            rows = np.arange(places[0], places[-1] + 1).clip(max=shape[0] - 1)
            file.seek(start + int(rows[0]) * self.size * dtype.itemsize)
            data = file.read(int(rows[-1] - rows[0] + 1) * self.size * dtype.itemsize)
            found = np.frombuffer(data, dtype).reshape(-1, self.size).astype(np.float32)
            if not np.isfinite(found).all():
                raise ValueError("not finite")
        found = found[rows - rows[0]]
        if ratio >= 1:
            means = np.add.reduceat(found[:-1], places[:-1] - places[0], axis=0)
            means /= np.diff(places)[:, None]
        else:
            means = found[places[:-1] - places[0]]
        heard = np.arange(begin, begin + frames) * self.hop < samples
        return {"features": np.where(heard[:, None], means, np.float32(0))}


def open_features(folder: str | Path, source, rate: int, hop: int) -> FeatureCut:
    """Features of the records of a dataset.

    They are at the codec's frame rate, or at that of a features.json beside them,
    `{"frame_rate": 50.0}`. Made so, with any `model` of audio `[S, C]`:

        for record in (source[i] for i in range(len(source))):
            path = folder / f"{record['name']}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, model(record["audio"]))  # [frames, D], float16 or float32

    Args:
      folder: of the features.
      source: the records (`rvq_jax.data.builder.open_split`).
      rate: samples of audio per second.
      hop: samples per frame of the codec.

    Returns:
      How features are cut; its `size` is D, of the first record's.

    Raises:
      UserError: no such folder, a features.json without a frame rate, or features of the first
        record that are not there or cannot be read.
    """
    folder, stated, frame_rate = Path(folder), Path(folder) / "features.json", rate / hop
    if not folder.is_dir():
        raise UserError(f"features: folder {folder} is not there; name one with a .npy per record")
    if stated.exists():
        with reading(stated, "the frame rate of features", 'write {"frame_rate": 50.0}'):
            frame_rate = json.loads(read_bytes(stated))["frame_rate"]
            plain = isinstance(frame_rate, int | float) and not isinstance(frame_rate, bool)
            if not plain or not 0 < frame_rate <= rate:
                raise ValueError(f"frame_rate is {shown(frame_rate)}")
    path = _path(folder, source[0]["name"])
    with reading(path, "features", "each record needs its own"), opened(path) as file:
        shape, _, _ = _header(file)
    return FeatureCut(folder, rate, hop, float(frame_rate), shape[1])


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name.lstrip('/')}.npy"


def _header(file) -> tuple[tuple[int, int], np.dtype, int]:
    """Shape and type of an open .npy, and where its numbers begin; ValueError for no features."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of version {version}")
    read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
    shape, columns_first, dtype = read(file)
    begin = file.tell()
    if len(shape) != 2 or min(shape) < 1 or columns_first or dtype not in ("<f2", "<f4"):
        raise ValueError(f"not float16 or float32 [frames, D] in rows, but {dtype} {shape}")
    if file.seek(0, 2) != begin + shape[0] * shape[1] * dtype.itemsize:
        raise ValueError("its size is not that of its array")
    return shape, dtype, begin
