"""The command line as tests call it: what it prints, what it leaves."""

import re
from pathlib import Path

import numpy as np
import soundfile

from rvq_jax import cli, files

RATE = 16_000
BAR = re.compile(r"^[\w -]+: +\d+(%|clip|song|update|it)")  # what tqdm draws of its progress


def tone(seconds: float = 0.5, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).normal(size=round(seconds * RATE))


def good(folder: Path) -> Path:
    """A folder that nothing is wrong with: one clip to train on, one held out."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(3):
        soundfile.write(folder / f"ok{i}.wav", tone(seed=i), RATE)
    return folder


def run(capsys, *words) -> tuple[int, str, list[str]]:
    """Exit code, standard output, and the lines of standard error that are not progress."""
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    lines = [line for line in re.split(r"[\r\n]+|\x1b\[A", err) if line.strip()]
    return code, out, [line for line in lines if not BAR.match(line.strip())]


def refuses(capsys, *words, say: tuple[str, ...]) -> str:
    """The one line of a mistake, which must hold every word of `say`."""
    code, out, lines = run(capsys, *words)
    assert code == 2, (code, out, lines)
    assert len(lines) == 1, "\n".join(lines)
    assert lines[0].startswith("rvq-jax: ")
    assert [word for word in say if str(word) not in lines[0]] == [], lines[0]
    assert "Traceback" not in out
    return lines[0]


def leftovers(out: Path) -> list[str]:
    """What a failed command left: temporary folders, half a dataset."""
    places = [out.parent, *([out, *out.rglob("*")] if out.is_dir() else [])]
    names = {p.name for place in places if place.is_dir() for p in place.iterdir()}
    return sorted(name for name in names if name.startswith(files.TEMPORARY) or name == "dataset")
