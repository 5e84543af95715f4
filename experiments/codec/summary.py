"""CORPUS.md: what the corpus has, from whom, and what of it is held out."""

from collections import Counter

import heldout
from sources import PACKAGES

from rvq_jax import machine

# What whoever uses the corpus has to know of it.
NOTES = (
    "- Changes: G.722 is decoded into FLAC, and folders in names became `_`. All else has its own",
    "  bytes; what sounds without a voice in it, or is a copy, is left out (`sources.py`).",
    "- English and Spanish are one speaker: four voices, of which the Italian one is held out.",
    "- Captions of prompts and samples come from the names of the files, in English; they are no",
    "  transcripts.",
    "- References are no better than what they are stored in: prompts are G.722 at 64 kbit/s",
    "  (up to 8 kHz), held-out music is Vorbis at 160 to 330 kbit/s. None of it is of",
    "  warzone2100-music, which Opus at 48 kbit/s has been over.",
    "- What is held out is listed in `heldout.json`; the rest of split test is what one's own",
    "  folder puts there. `heldout.check_training` refuses to train on the list.",
)


def text(rows: dict[str, list[dict]], cut: list[dict], left_out: list[str], began: float) -> str:
    """CORPUS.md: what was measured of every source, its licence and whom to credit.

    Args:
      rows: of metadata.csv, by kind.
      cut: the held-out pieces.
      left_out: a line for each package that is not there.
      began: when the work did, by `time.perf_counter`.
    """
    every = [row for found in rows.values() for row in found]
    lines = ["# The open corpus", "", "By `python experiments/codec/corpus.py`; hours as measured."]
    lines += ["", *NOTES, ""]
    lines += ["| source | what | files | hours | MB | rate | licence | credit |"]
    lines += ["|---|---|---:|---:|---:|---|---|---|"]
    for package in PACKAGES:
        lines += _line([r for r in every if r["origin"] == package.name], package.what, package)
    for kind, found in rows.items():
        mine = [row for row in found if row["origin"] == "own"]
        lines += _line(mine, f"{kind} of one's own (--audio)", None)
    lines += ["", "| kind | train | valid | test | held out by the list | pieces of 10 s |"]
    lines += ["|---|---:|---:|---:|---:|---:|"]
    for kind, found in rows.items():
        hours = [_hours(r for r in found if r["split"] == s) for s in ("train", "valid", "test")]
        hours.append(_hours(filter(heldout.is_held_out, found)))
        cells = [kind, *(f"{hour:.2f} h" for hour in hours)]
        cells.append(f"{sum(piece['kind'] == kind for piece in cut)}")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| held out | by | files | minutes | pieces |", "|---|---|---:|---:|---:|"]
    held = [row for row in every if heldout.is_held_out(row)]
    for source in sorted({heldout.source(row) for row in held}):
        mine = [row for row in held if heldout.source(row) == source]
        names = {heldout.key(row["file"]) for row in mine}
        count = sum(names.issuperset(piece["of"]) for piece in cut)
        minutes = f"{60 * _hours(mine):.1f}"
        lines.append(f"| {source} | {mine[0]['speaker']} | {len(mine)} | {minutes} | {count} |")
    lines += ["", *[f"{line}." for line in left_out], ""] if left_out else [""]
    return "\n".join([*lines, machine.sentence(machine.provenance(began))]) + "\n"


def _line(rows: list[dict], what: str, package) -> list[str]:
    if not rows:
        return []
    rates = Counter(f"{row['rate'] / 1000:g} kHz" for row in rows)
    kept = ", ".join(rate for rate, _ in rates.most_common(3))
    licences = sorted({row["licence"] or "not stated" for row in rows})
    credit = package.credit if package else "column speaker of metadata.csv"
    size = f"{sum(row['size'] for row in rows) / 1e6:.0f}"
    first = rows[0]["source"] if package else "own"
    cells = [first, what, f"{len(rows)}", f"{_hours(rows):.2f}", size, kept]
    return [f"| {' | '.join([*cells, '; '.join(licences), credit])} |"]


def _hours(rows) -> float:
    return sum(row["seconds"] for row in rows) / 3600
