"""Mutants of good files, and what a reader may do with one: a value, or one line, in bounds.

`tests/fuzz/test_fuzz.py` tries a few of each reader in the fast tier. Twenty thousand of each, in
processes that are ended at 500 MB more than they began with, with the table of what came out:

  PYTHONPATH=tests/support python tests/fuzz/harness.py [--only NAME] [--save tests/fuzz/fuzz.md]
"""

import argparse
import dataclasses
import importlib
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from rvq_jax.errors import UserError

SECONDS, BYTES, LINE = 5.0, 500 << 20, 300
# Modules of this folder, each with TARGETS by name.
MODULES = ("targets_audio", "targets_files", "targets_configs", "targets_runs", "targets_answers")
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**36, 2**63 - 1)


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader: good files to start from, and how it is called.

    samples: from a folder to work in, good files as bytes, smallest first.
    name: the name that a mutant gets.
    read: called with its path; a value or a UserError is right, all else is a finding.
    mutate: mutants that know the structure, from (bytes, rng); byte mutants alternate with them.
    """

    samples: Callable[[Path], list[bytes]]
    name: str
    read: Callable[[Path], object]
    mutate: Callable[[bytes, np.random.Generator], bytes] | None = None


def mutants(target: Target, samples: list[bytes], count: int, seed: int = 0) -> Iterator[bytes]:
    """So many mutants; the same for the same seed."""
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        data = samples[int(rng.integers(len(samples)))]
        if target.mutate is not None and index % 2:
            yield target.mutate(data, rng)
        else:
            yield damaged(data, rng)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four of: a flipped bit, a byte, a number, a cut, a part twice, a part left out."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        size = len(found)
        if size < 2:
            break
        # Headers are at the start, directories at the end: look there half of the time.
        near = [
            rng.integers(size),
            rng.integers(min(size, 128)),
            size - 1 - rng.integers(min(size, 128)),
        ]
        at = int(near[int(rng.integers(3))])
        match int(rng.integers(6)):
            case 0:
                found[at] ^= 1 << int(rng.integers(8))
            case 1:
                found[at] = int(rng.integers(256))
            case 2:
                width = int(rng.choice([1, 2, 4, 8]))
                number = int(rng.choice(NUMBERS)) % 256**width
                order = "little" if rng.integers(2) else "big"
                found[at : at + width] = number.to_bytes(width, order)
            case 3:
                del found[at:]
            case 4:
                part = found[at : at + int(rng.integers(1, 64))]
                found[at:at] = part * int(rng.integers(1, 4))
            case 5:
                del found[at : at + int(rng.integers(1, 64))]
    return bytes(found)


def verdict(target: Target, path: Path) -> str:
    """'value', 'error', or what is wrong with how a reader took the file at `path`."""
    began = time.perf_counter()
    try:
        target.read(path)
        found = "value"
    except UserError as error:
        text = str(error)
        found = "error"
        if len(text) >= LINE or "\n" in text or not text.isprintable():
            found = f"message of {len(text)} characters: {text[:200]!r}"
    except Exception as error:
        found = f"{type(error).__name__}: {error}"[:200]
    took = time.perf_counter() - began
    return found if took < SECONDS else f"{took:.1f} s, {found}"


def targets() -> dict[str, Target]:
    """All readers by name."""
    found = {}
    for name in MODULES:
        found |= importlib.import_module(name).TARGETS
    return found


def _work(name: str, first: int, count: int, pipe) -> None:
    """In a process of its own: verdicts one by one, each before the next mutant is begun."""
    target = targets()[name]
    with tempfile.TemporaryDirectory() as folder:
        samples = target.samples(Path(folder))
        place = Path(folder, "mutant")
        place.mkdir()
        target_path = place / target.name
        for data in samples[:1]:  # What is made once is not of the mutants.
            target_path.write_bytes(data)
            verdict(target, target_path)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
        for index, data in enumerate(mutants(target, samples, count)):
            if index >= first:
                target_path.write_bytes(data)
                signal.alarm(60)  # Hung: the default action ends the process.
                pipe.send(verdict(target, target_path))
                signal.alarm(0)


def run(name: str, count: int) -> dict[str, int]:
    """Verdicts of so many mutants, counted; a process that dies is a finding, and goes on."""
    counts, done = {}, 0
    while done < count:
        ours, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(
            target=_work, args=(name, done, count, theirs)
        )
        process.start()
        theirs.close()
        try:
            while True:
                found = ours.recv()
                counts[found] = counts.get(found, 0) + 1
                done += 1
        except EOFError:
            process.join()
        if done < count:
            found = f"mutant {done} ended the process with {process.exitcode}"
            counts[found] = 1
            done += 1
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--save", type=Path)
    parsed = parser.parse_args()
    lines = [
        "| reader | mutants | read | refused in a line | findings | s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    worst = 0
    for name in parsed.only or targets():
        began = time.perf_counter()
        counts = run(name, parsed.count)
        took = time.perf_counter() - began
        value, error = counts.pop("value", 0), counts.pop("error", 0)
        findings = sum(counts.values())
        worst = max(worst, findings)
        line = f"| {name} | {parsed.count:,} | {value:,} | {error:,} | {findings} | {took:.0f} |"
        print(line, *(f"  {n} {what}" for what, n in counts.items()), sep="\n", flush=True)
        lines.append(line)
    if parsed.save:
        parsed.save.write_text("\n".join(lines) + "\n")
    return 1 if worst else 0


if __name__ == "__main__":
    sys.exit(main())
