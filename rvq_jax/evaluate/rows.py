"""What was measured so far: one line for each clip and operating point, so that work goes on."""

import base64
import json
import math
import zlib
from pathlib import Path

import numpy as np

from rvq_jax import files, opening
from rvq_jax.errors import READING, UserError

COUNTS = "counts"  # of a row that has them: how often each code occurs, by level
MOST_CODES = 1 << 20  # that a level has
LARGEST = 1e15  # that a number of a row can be: beyond it results are no longer numbers


class Rows:
    """Rows by (key, clip), kept in rows.jsonl of a folder as they are made; in memory for None."""

    def __init__(self, folder: Path | None = None):
        """Reads what an earlier run left. Raises UserError if there can be no file."""
        self.folder, self._rows = folder, {}
        if folder is None:
            return
        files.check_file(self.path)
        try:
            lines = opening.read_bytes(self.path).splitlines(keepends=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error}); choose another --out") from None
        kept = []
        for line in lines:
            # Half a line, as a killed process leaves it, is measured again.
            row = _parsed(line)
            if row is not None:
                self._rows[row["key"], row["clip"]] = row
                kept.append(line.rstrip(b"\n") + b"\n")
        if len(kept) < len(lines) or b"".join(kept) != b"".join(lines):
            with files.writing(self.path) as target:
                target.write_bytes(b"".join(kept))

    @property
    def path(self) -> Path:
        """Where they are kept."""
        return self.folder / "rows.jsonl"

    def get(self, key: str, clip: str) -> dict | None:
        """A row, None if it is not there."""
        return self._rows.get((key, clip))

    def add(self, row: dict) -> None:
        """Keeps a row, which has `key` and `clip` beside what was measured; NaN is null there."""
        row = _plain(row)
        self._rows[row["key"], row["clip"]] = row
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as file:
                    file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            except OSError as error:
                raise UserError(
                    f"cannot write {self.path}: {error.strerror or error}; free some space"
                ) from error


def packed(counts_KN: np.ndarray) -> dict:
    """Counts as JSON values, small: what `unpacked` reads."""
    small = counts_KN.astype(np.min_scalar_type(int(counts_KN.max(initial=0))))
    data = base64.b64encode(zlib.compress(small.tobytes())).decode()
    return {"shape": list(small.shape), "dtype": small.dtype.str, "data": data}


def unpacked(stored: dict) -> np.ndarray:
    """Counts `[K, N]` of what `packed` made; raises ValueError for anything else."""
    (levels, size), dtype = stored["shape"], np.dtype(stored["dtype"])
    if dtype.kind != "u" or not (0 < levels <= 256 and 0 < size <= MOST_CODES):
        raise ValueError("these are no counts")
    whole = levels * size * dtype.itemsize
    inflate = zlib.decompressobj()
    data = inflate.decompress(base64.b64decode(stored["data"]), whole + 1)
    if len(data) != whole:
        raise ValueError("counts are not as many as they say")
    return np.frombuffer(data, dtype).reshape(levels, size)


def _parsed(line: bytes) -> dict | None:
    """A row that `Rows.add` wrote, else None."""
    try:
        row = json.loads(line)
        texts = all(isinstance(row[name], str) for name in ("key", "clip"))
        numbers = [row["seconds"], *(row[n] for n in ("bits", "channels") if "scores" in row)]
        numbers += [score for score in row.get("scores", {}).values() if score is not None]
        if COUNTS in row:
            unpacked(row[COUNTS])
        # Not even infinity is less than it.
        whole = all(type(x) in (int, float) and abs(x) < LARGEST for x in numbers)
        return row if texts and whole and (row["seconds"] > 0 or "scores" not in row) else None
    except READING:
        return None


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
