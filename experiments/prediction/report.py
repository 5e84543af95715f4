"""RESULTS.md and its plots, from the JSON of every corpus alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rvq_jax import machine
from rvq_jax.evaluate import curves, plots
from rvq_jax.evaluate.cells import spread
from rvq_jax.files import writing

FEATURES = "log-mel statistics"
HEAD = """# Ways to predict K levels

The first four levels of the built-in codec's tokens (2 kbps, 50 frames a second) of real audio,
predicted in every way that is here: 1.8 million weights each (SoundStorm's with its semantic
model's), the same updates of 8 crops of 1.2 s. Every network has the same sweep of learning rates,
of shorter trainings, by its bits on held-out recordings that are not those of the tables; the
winner is trained with several seeds, ± is their standard deviation. The real-time factor is seconds
of computing per second of audio, the least of the seeds, 8 clips of 1.2 s at a time, without
guidance. Forwards are for 1.2 s, a step of the depth transformer's loop over levels being none. ≤
marks bounds: the mean over orders of decoding, 8 samples of each level of each window. SoundStorm's
bits hold those of its semantic tokens. Distances are from real audio as the codec decodes it;
dashed: of other such audio.
"""


def write(folder: Path, every: Sequence[dict]) -> None:
    """Writes RESULTS.md and a plot or two of each corpus into the folder of the experiment."""
    lines = [HEAD]
    for results in every:
        rows = merged(results["seeds"])
        # Marks of a system are alike in both plots.
        alone = [row for row in rows if "," not in row["name"]]
        helped = [row for row in rows if "," in row["name"]]
        name = f"corpus={results['corpus']}"
        for what, chart in (
            ("bits", curves.bits_against_forwards(alone)),
            ("distance", curves.distance_against_forwards(alone + helped, FEATURES)),
        ):
            with writing(folder / f"{name},{what}.svg") as path:
                path.write_text(plots.standalone(chart) + "\n", encoding="utf-8")
        lines += [f"## {name}", "", *section(results, rows), ""]
    with writing(folder / "RESULTS.md") as path:
        path.write_text("\n".join(lines))


def merged(seeds: Sequence[dict]) -> list[dict]:
    """The rows of all seeds as one: means, `low` and `high` a standard deviation to either side."""
    rows = []
    for same in zip(*(results["models"] for results in seeds), strict=True):
        first = same[0]
        distances = [
            {
                **found,
                "distance": _over(row["frechet"][i]["distance"] for row in same),
                "floor": _over(row["frechet"][i]["floor"] for row in same),
                "codec": None,
            }
            for i, found in enumerate(first["frechet"])
        ]
        every = [_over(levels) for levels in zip(*(r["bits_by_level"] for r in same), strict=True)]
        rows.append(
            {
                **first,
                "bits_per_frame": _over(row["bits_per_frame"] for row in same),
                "bits_by_level": every,
                "bits_of_semantic_tokens": first["bits_of_semantic_tokens"]
                and _over(row["bits_of_semantic_tokens"] for row in same),
                "frechet": distances,
                "real_time_factor": float(np.min([row["real_time_factor"] for row in same])),
                "standard_error": max(row["standard_error"] or 0.0 for row in same) or None,
            }
        )
    return sorted(rows, key=lambda row: row["bits_per_frame"]["mean"])


def _over(scores: Iterator[dict]) -> dict:
    values = np.array([score["mean"] for score in scores])
    mean, std = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {"mean": mean, "low": mean - std, "high": mean + std, "std": std, "seeds": len(values)}


def section(results: dict, rows: Sequence[dict]) -> list[str]:
    """One corpus."""
    name, data = results["corpus"], results["seeds"][0]["data"]
    head = ["system", "bits per frame", "forwards", "real-time factor", "Fréchet, log-mel"]
    head += ["Fréchet, latents", "bits by level"]
    table = ["| " + " | ".join(head) + " |", "|---|---:|---:|---:|---:|---:|---|"]
    for row in rows:
        own = "," not in row["name"]
        mel, latents = (found["distance"] for found in row["frechet"])
        cells = [
            row["name"],
            _bits(row) if own else "",
            f"{row['forwards']:,}",
            f"{row['real_time_factor']:.3f}",
            _spread(mel, 2),
            _spread(_millions(latents), 2),
            _levels(row) if own else "",
        ]
        table.append("| " + " | ".join(cells) + " |")
    floor_mel, floor_latents = (found["floor"] for found in rows[0]["frechet"])
    made, minutes = data["generated"], data["seconds"] / 60
    error = max(row["standard_error"] or 0.0 for row in rows)
    return [
        f"![bits](<corpus={name},bits.svg>) ![distance](<corpus={name},distance.svg>)",
        "",
        *table,
        "",
        f"Other real audio is at a distance of {_spread(floor_mel, 2)} (log-mel), "
        f"{_spread(_millions(floor_latents), 2)} (latents, millions). "
        f"{made['clips']} clips of {made['seconds']:g} s generated with each seed; bits of "
        f"{minutes:.0f} minutes of held-out audio. The masks that bounds are estimated by leave a "
        f"standard error of {error:.3f} bits at most.",
        "",
        *_sweep(results),
        "",
        f"{results['updates']:,} updates, {results['updates_of_sweep']:,} in the sweep; "
        f"{len(results['seeds'])} seeds; {results['train']['records']:,} records, "
        f"{results['train']['frames']:,} frames to train on. {machine.sentence(results)}",
    ]


def _bits(row: dict) -> str:
    bound = row["bits"] == "bound"
    return ("≤ " if bound else "") + _spread(row["bits_per_frame"], 2)


def _levels(row: dict) -> str:
    said = " + ".join(f"{level['mean']:.2f}" for level in row["bits_by_level"])
    semantic = row["bits_of_semantic_tokens"]
    return said if semantic is None else f"{said}, semantic {semantic['mean']:.2f}"


def _millions(score: dict) -> dict:
    return score | {name: score[name] / 1e6 for name in ("mean", "std")}


def _spread(score: dict, decimals: int) -> str:
    mean = f"{score['mean']:.{decimals}f}"
    return mean + spread(score["std"], score["seeds"], f".{decimals}f")


def _sweep(results: dict) -> list[str]:
    if results.get("rates_of") is not None:
        return [f"Learning rates are those of corpus={results['rates_of']}."]
    rates = list(next(iter(results["sweep"].values()))["bits"])
    lines = ["Bits per frame in the sweep, by learning rate:", ""]
    lines += ["| network | weights | " + " | ".join(rates) + " |"]
    lines += ["|---|---:|" + "---:|" * len(rates)]
    for name, found in results["sweep"].items():
        best = f"{found['best']:g}"
        cells = [f"**{b:.2f}**" if r == best else f"{b:.2f}" for r, b in found["bits"].items()]
        lines.append(f"| {name} | {results['parameters'][name]:,} | " + " | ".join(cells) + " |")
    return lines
