"""Spoken numbers of several digits, joined of single takes of one speaker.

Takes of a split are joined with takes of the same split alone. Some pairs of digits are never
neighbours in training: every sequence that systems are judged by has one of them, so that no
training clip contains it. A take is never in two splits.

Command:  python experiments/speech/digits.py --audio SPEECH --out runs/digits_audio
          rvq-jax data build runs/digits_audio --out runs/digits --codes builtin --semantic kmeans
Time:     a minute
"""

import argparse
import csv
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rvq_jax import files
from rvq_jax.audio import io, resample

WORDS = "zero one two three four five six seven eight nine".split()
RATE = 16_000
GAP = 0.2, 0.3  # seconds between takes, at least and at most: of shorter ones less is recognized
# Samples that every take begins on a multiple of, two frames of the codec and one semantic token:
# elsewhere the same take has other codes, and a few takes are as many as their offsets.
STEP = 640
LOUD = 0.08  # root mean square of every take: one speaker was recorded at a tenth of the others
LONGEST = 6  # digits of a training clip: those of a voice before those that are asked for
COUNTS = {"train": 6000, "valid": 120, "test": 240}
PAIRS = 10  # of digits that are no neighbours in training


def held_out_pairs() -> set[tuple[int, int]]:
    """Pairs of digits; each digit once the first of a pair and once the second."""
    second = np.random.default_rng(0).permutation(10)
    return {(first, int(second[first])) for first in range(PAIRS)}


def allowed(digits: list[int]) -> bool:
    """Whether no pair of neighbours is held out."""
    return not set(itertools.pairwise(digits)) & held_out_pairs()


def drawn(rng: np.random.Generator, split: str) -> list[int]:
    """The digits of a clip: in training any but held-out pairs, else two to four with one."""
    while True:
        count = rng.integers(2, LONGEST + 1) if split == "train" else rng.integers(2, 5)
        digits = rng.integers(0, 10, count).tolist()
        if allowed(digits) == (split == "train"):
            return digits


def takes(audio: Path) -> dict[tuple[str, str], dict[int, list[np.ndarray]]]:
    """Takes `[S, 1]` of each digit by split and speaker, equally loud, of one rate."""
    found: dict = {}
    with (audio / "metadata.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            name = row.get("file") or row["file_name"]
            if not Path(name).name.startswith("fsdd_"):
                continue
            sound, rate = io.read(audio / name)
            sound = resample.to_rate(sound.mean(1, keepdims=True), rate, RATE)
            sound = sound * (LOUD / np.sqrt(np.mean(sound**2)))
            digit = int(Path(name).name.split("_")[1])
            speaker = found.setdefault((row["split"], row["speaker"]), {})
            speaker.setdefault(digit, []).append(np.clip(sound, -1, 1).astype(np.float32))
    return found


def joined(rng: np.random.Generator, digits: list[int], by_digit: dict) -> np.ndarray:
    """Takes of these digits one after another, with silence between them."""
    parts = []
    for digit in digits:
        own = by_digit[digit]
        take = own[rng.integers(len(own))]
        silent = STEP * round(RATE * rng.uniform(*GAP) / STEP) + -len(take) % STEP
        parts += [take, np.zeros((silent, 1), np.float32)]
    return np.concatenate(parts[:-1])


def clips(audio: Path) -> Iterator[tuple[str, str, str, list[int], np.ndarray]]:
    """Split, speaker, name, digits and sound of every clip."""
    have = takes(audio)
    for split, count in COUNTS.items():
        rng = np.random.default_rng((1, list(COUNTS).index(split)))
        speakers = sorted(speaker for part, speaker in have if part == split)
        for i in range(count):
            speaker = speakers[i % len(speakers)]
            digits = drawn(rng, split)
            yield (
                split,
                speaker,
                f"{split}_{i:05d}",
                digits,
                joined(rng, digits, have[split, speaker]),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audio", type=Path, required=True, help="folder with fsdd_*.flac")
    parser.add_argument("--out", type=Path, default=Path("runs/digits_audio"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for split, speaker, name, digits, sound in clips(arguments.audio):
        io.write(arguments.out / f"{name}.flac", sound, RATE)
        caption = " ".join(WORDS[digit] for digit in digits)
        rows.append([f"{name}.flac", caption, speaker, split, speaker])
    with files.writing(arguments.out / "metadata.csv") as path, path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "caption", "label", "split", "speaker"])
        table.writerows(rows)
    print(f"{len(rows)} clips in {arguments.out}")


if __name__ == "__main__":
    main()
