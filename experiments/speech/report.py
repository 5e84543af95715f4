"""RESULTS.md of the study of speech: tables over seeds, from what run.py and similarity.py left."""

import json
from pathlib import Path

import numpy as np
from systems import LEVELS, UPDATES

from rvq_jax import files, machine
from rvq_jax.data.codes import CodeSet
from rvq_jax.evaluate.cells import spread
from rvq_jax.evaluate.page import markdown_table
from rvq_jax.evaluate.speech import DECODED, REAL

TEXT = """# Speech from text

Spoken numbers by VALL-E and by SoundStorm from text, on the first {levels} levels of the built-in
codec's tokens ([run.py](run.py)). Both are trained on eight takes of each digit by each of six
speakers, joined to {records} clips of two to six digits, {minutes:.0f} minutes; a take is in one
split alone ([digits.py](digits.py)). {clips} sequences of two to four digits are said, each in the
voice of another held-out clip of a speaker; two neighbours of every sequence are neighbours in no
training clip. VALL-E's first level is sampled at a temperature of {valle}, SoundStorm and its
semantic model at {soundstorm}, as they were heard best on the valid split. Means over {seeds}
seeds, ± half of what the seeds differ by.

{table}

Through all eight levels of the codec the recordings are heard at {all_levels}: it is the codec that
limits what PocketSphinx hears.

Accuracy is 1 - (substitutions + insertions + deletions) / words, as PocketSphinx hears them by a
grammar of ten words; by chance: the same clips against other sequences. Of the codec is the share
of the accuracy that the codec's reconstructions of held-out recordings have. Speaker is the share
of clips whose embedding is nearest to the speaker whose voice was given, of six, each the mean of
training clips as they were recorded; decoded, of the same through the codec
([similarity.py](similarity.py), resemblyzer). Cost is seconds of computing per second of
speech, eight texts together, on one or two cores with other work beside: no more than its size. The
nearest clip is, of the training clips of the same speaker, the one whose words
differ least: as much as copying gives.

{training}
{sentences}
{provenance}
"""
SENTENCES = """
## Sentences

The English telephone prompts of one voice in the open corpus ([sentences.py](sentences.py)):
{train} are trained on, {clips} held out by their texts are said, each in the voice of another.
VALL-E of [configs/valle_tiny.py](../../configs/valle_tiny.py) on all eight levels, {updates}
updates in {minutes:.0f} minutes; PocketSphinx by its own language model of English. Means with 95 %
intervals over clips.

{table}
"""


def write(here: Path, heard: dict[int, Path], results: dict, sentences: dict | None) -> None:
    """Writes results.json and RESULTS.md.

    Args:
      here: folder that they go to.
      heard: folder of each seed, which may hold similarities.
      results: what was heard of each seed, and where it was measured.
      sentences: what was heard of the model of sentences (see `sentences_of`); None for none.
    """
    similar = {}
    for seed in results["seeds"]:
        path = heard[seed] / "similarity.json"
        similar[seed] = json.loads(path.read_text()) if path.is_file() else {}
    for found in results["seeds"].values():
        found.pop("players", None)
    results |= {"similarity": similar, "sentences": sentences}
    files.write_json(here / "results.json", results)
    first = next(iter(results["seeds"].values()))
    made = TEXT.format(
        levels=LEVELS,
        records=results["train"]["records"],
        minutes=results["train"]["frames"] / results["frame_rate"] / 60,
        clips=first["clips"],
        **{name: one["temperature"] for name, one in results["sampling"].items()},
        seeds=len(results["seeds"]),
        table=markdown_table(_rows(results), frozenset(), frozenset({0})),
        all_levels=_spread([one["all_levels"] for one in results["seeds"].values()], 3),
        training=_training(results),
        sentences="" if sentences is None else _sentences(sentences),
        provenance=machine.sentence(results),
    )
    with files.writing(here / "RESULTS.md") as path:
        path.write_text(made)


def sentences_of(report: Path, run: Path, data: Path) -> dict:
    """What was heard of the model of sentences, and how it was trained.

    Args:
      report: folder of `rvq-jax evaluate --speech`.
      run: folder of the training.
      data: folder of its code cache.

    Returns:
      JSON values.
    """
    found = json.loads((report / "results.json").read_text())
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    speech = {name: found["speech"][name] for name in ("clips", "systems")}
    train = len(CodeSet.load(data / "train.npz"))
    return {**speech, "updates": last["step"], "seconds": last["seconds"], "train": train}


def _sentences(found: dict) -> str:
    rows = [
        ["system", "word accuracy", "by chance", "sub", "ins", "del", "DNSMOS", "length", "ended"]
    ]
    for one in found["systems"]:
        accuracy, heard = one["accuracy"], one["dnsmos"]
        rows.append(
            [
                "valle" if one["model"] else one["name"],
                f"{accuracy['mean']:.2f} ({accuracy['low']:.2f} to {accuracy['high']:.2f})",
                f"{one['chance']['mean']:.2f}",
                *(f"{one[kind]:.2f}" for kind in KINDS),
                "–" if heard is None else f"{heard['mean']:.2f}",
                f"{one['duration']['mean']:.2f}",
                "–" if one["ended"] is None else f"{one['ended']:.2f}",
            ]
        )
    table = markdown_table(rows, frozenset(), frozenset({0}))
    minutes = found["seconds"] / 60
    return SENTENCES.format(
        table=table, minutes=minutes, **{n: found[n] for n in ("train", "clips", "updates")}
    )


def _rows(results: dict) -> list[list[str]]:
    seeds = results["seeds"]
    head = ["system", "word accuracy", "of the codec", "by chance", "sub", "ins", "del", "DNSMOS"]
    rows = [head + ["length", "silence", "ended", "speaker", "decoded", "cost"]]
    found = {seed: {row["name"]: row for row in one["systems"]} for seed, one in seeds.items()}
    for name in next(iter(found.values())):
        every = [(seed, rows_of[name]) for seed, rows_of in found.items() if name in rows_of]
        codec = [found[seed][DECODED]["accuracy"]["mean"] for seed, _ in every]

        def mean(get, digits=2, every=every) -> str:
            return _spread([get(row) for _, row in every], digits)

        accuracy = [row["accuracy"]["mean"] for _, row in every]
        share = [a / b for a, b in zip(accuracy, codec, strict=True)]
        similar = [results["similarity"][seed].get(name, {}) for seed, _ in every]
        speaker = {
            kind: [one.get(kind, {}).get("nearest") for one in similar]
            for kind in ("recorded", "decoded")
        }
        rows.append(
            [
                name,
                _spread(accuracy, 3),
                "–" if name in (REAL, DECODED) else _spread(share, 2),
                mean(lambda row: row["chance"]["mean"]),
                *(mean(lambda row, kind=kind: row[kind]) for kind in KINDS),
                mean(lambda row: row["dnsmos"] and row["dnsmos"]["mean"]),
                mean(lambda row: row["duration"]["mean"]),
                mean(lambda row: row["silence"]["mean"]),
                mean(lambda row: row["ended"]),
                *(_spread(shares, 2) for shares in speaker.values()),
                mean(lambda row: row["cost"]),
            ]
        )
    return rows


KINDS = "substitutions", "insertions", "deletions"


def _spread(values: list, digits: int) -> str:
    """The mean of seeds and half of their range; a dash where one has none."""
    if any(value is None for value in values):
        return "–"
    half = np.ptp(values) / 2
    return f"{np.mean(values):.{digits}f}{spread(half or None, len(values), f'.{digits}f')}"


def _training(results: dict) -> str:
    lines = []
    for name, seconds in results["took"].items():
        minutes = [value / 60 for value in seconds]
        weights = f"{results['parameters'][name] / 1e6:.1f} M weights"
        lines.append(
            f"- {name}: {weights}, {UPDATES[name]} updates, {_spread(minutes, 0)} minutes on one "
            "core, another training on the other."
        )
    return "\n".join(lines)
