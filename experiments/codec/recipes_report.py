"""The section of RESULTS.md on recipes, from recipes.json alone."""

from collections.abc import Iterator

import numpy as np

from rvq_jax import machine
from rvq_jax.evaluate.cells import spread

LABELS = {
    "dnsmos": ("DNSMOS ↑", 1),
    "frechet": ("Fréchet distance ↓", -1),
    "pesq": ("PESQ ↑", 1),
    "stoi": ("STOI ↑", 1),
    "visqol_speech": ("ViSQOL, speech ↑", 1),
    "visqol_audio": ("ViSQOL, audio ↑", 1),
    "si_sdr": ("SI-SDR, dB ↑", 1),
    "mel": ("Mel distance ↓", -1),
    "stft": ("STFT distance ↓", -1),
}


def markdown(results: dict) -> str:
    """The section.

    Args:
      results: what `recipes.py` writes.

    Returns:
      Markdown that begins with its heading.
    """
    runs, seeds = results["runs"], 1 + max(run["seed"] for run in results["runs"])
    lines = ["# Adversarial against spectral alone", ""]
    lines += [
        f"{results['updates']:,} updates of every run, from the codec {results['begun'][:16]} on,",
        f"and {seeds} seeds; ± is their standard deviation. A difference counts where all seeds of",
        "one side are better than all of the other. Scores are of the frozen held-out pieces, at",
        "all levels.",
        "",
    ]
    for recipe in dict.fromkeys(run["recipe"] for run in runs):
        mine = [run for run in runs if run["recipe"] == recipe]
        lines += [f"## {_title(recipe)}", "", *_described(mine), ""]
        for signal in mine[0]["scores"]:
            lines += [*_compared(mine, signal), ""]
    lines += ["## Discriminators", "", *_judged(runs), "", "## Learning rates", ""]
    lines += ["Mel distance on the corpus's own held-out clips, first seed.", ""]
    lines += [*_sweep(results["sweep"]), ""]
    lines += [f"{results['clips']} training clips, none held out. {machine.sentence(results)}"]
    return "\n".join(lines)


def _title(recipe: str) -> str:
    if recipe == "weight 100":
        return "The balancer, at adversarial weight 100: one seed"
    return f"{recipe}'s losses"


def _described(runs: list[dict]) -> Iterator[str]:
    for variant, mine in _variants(runs).items():
        first, minutes = mine[0], np.mean([run["seconds"] for run in mine]) / 60
        yield (
            f"- {variant}: {first['parameters']:,} weights, {first['kbps']:.2f} kbps, rate "
            f"{first['rate']:g}, {minutes:.0f} minutes a run"
        )


def _variants(runs: list[dict]) -> dict[str, list[dict]]:
    names = dict.fromkeys(run["variant"] for run in runs)
    return {name: [run for run in runs if run["variant"] == name] for name in names}


def _compared(runs: list[dict], signal: str) -> list[str]:
    """A table of both sides' scores, and which of them is better beyond the seeds' spread."""
    (one, ones), (other, others) = _variants(runs).items()
    lines = [f"| {signal} | {one} | {other} | better |", "|---|---:|---:|---|"]
    for name, (label, sign) in LABELS.items():
        if name not in ones[0]["scores"][signal]:
            continue
        a, b = (np.array([_score(x, signal, name) for x in mine]) for mine in (ones, others))
        if np.isnan(a).all() and np.isnan(b).all():
            continue
        lines.append(
            f"| {label} | {_spread(a)} | {_spread(b)} | {_better(a * sign, b * sign, one, other)} |"
        )
    return lines


def _score(run: dict, signal: str, name: str) -> float:
    value = run["scores"][signal][name]
    return np.nan if value is None else value


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.3f}{spread(values.std(), values.size, '.3f')}"


def _better(a: np.ndarray, b: np.ndarray, one: str, other: str) -> str:
    if a.min() > b.max():
        return one
    return other if b.min() > a.max() else "neither"


def _judged(runs: list[dict]) -> list[str]:
    """What discriminators made of it over the last fifth of each run."""
    lines = [
        "Means over the last fifth of the updates. Their loss is over that of one that says the",
        "same of real and of decoded audio: 0 where discriminators win, 1 where they die.",
        "",
        "| recipe | side | loss by seed | score of real audio | of decoded |",
        "|---|---|---:|---:|---:|",
    ]
    for recipe in dict.fromkeys(run["recipe"] for run in runs):
        for variant, mine in _variants([r for r in runs if r["recipe"] == recipe]).items():
            found = [run["judged"] for run in mine if run["judged"]]
            if found:
                losses = ", ".join(f"{one['loss']:.2f}" for one in found)
                real, fake = (
                    np.mean([one[name] for one in found])
                    for name in ("real_score", "decoded_score")
                )
                lines.append(f"| {recipe} | {variant} | {losses} | {real:.2f} | {fake:.2f} |")
    return lines


def _sweep(rows: list[dict]) -> list[str]:
    rates = sorted({row["rate"] for row in rows})
    lines = ["| recipe | side | " + " | ".join(f"{rate:g}" for rate in rates) + " |"]
    lines.append("|---|---|" + "---:|" * len(rates))
    for recipe, variant in dict.fromkeys((row["recipe"], row["variant"]) for row in rows):
        found = {
            r["rate"]: r["mel"] for r in rows if (r["recipe"], r["variant"]) == (recipe, variant)
        }
        least = min(found.values())
        cells = [f"**{found[x]:.3f}**" if found[x] == least else f"{found[x]:.3f}" for x in rates]
        lines.append(f"| {recipe} | {variant} | " + " | ".join(cells) + " |")
    return lines
