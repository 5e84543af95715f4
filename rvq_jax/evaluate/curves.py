"""Plots of an evaluation: a metric against bitrate, bits by level, and what forwards buy.

Each is an SVG element.
"""

from collections.abc import Sequence

import numpy as np

from rvq_jax.errors import clipped
from rvq_jax.evaluate import plots
from rvq_jax.evaluate.summary import is_bound, title

NAME = 28  # letters of a name that a legend has room for


def quality(metric: dict, systems: Sequence[dict]) -> str:
    """One metric against bitrate: a line for each family, a mark and an interval for each point.

    metric, systems: as results.json has them. Baselines are dashed.
    """
    figure, axis = plots.figure()
    families = list(dict.fromkeys(system["family"] for system in systems))
    rates = []
    for i, family in enumerate(families):
        points = sorted(_points(metric["name"], family, systems))
        if not points:
            continue
        kbps, means, lows, highs = np.array(points).T
        rates += [*kbps]
        errors = np.nan_to_num(np.maximum([means - lows, highs - means], 0.0))
        is_codec = any(s["family"] == family and s["kind"] == "codec" for s in systems)
        axis.errorbar(
            kbps,
            means,
            errors,
            fmt=plots.mark(i),
            ls="-" if is_codec else "--",
            lw=1.4,
            ms=6,
            capsize=3,
            color=plots.colour(i),
            label=plots.label(clipped(family, NAME)),
        )
    if rates:
        plots.log_axis(axis, rates)
    axis.set_xlabel("kbps")
    axis.set_ylabel(title(metric).rstrip(" ↑↓") + f" ({metric['better']} is better)")
    if len(families) > 1:
        plots.legend(figure, [clipped(family, NAME) for family in families])
    return plots.svg(figure)


def bits_by_level(models: Sequence[dict]) -> str:
    """Held-out bits per frame of each level: a line for each model, with intervals; ≤ marks bounds.

    models: as results.json has them.
    """
    figure, axis = plots.figure()
    names = [clipped(model["name"], NAME) + " (≤)" * is_bound(model) for model in models]
    for i, model in enumerate(models):
        points = [(k + 1, *_ends(x)) for k, x in enumerate(model["bits_by_level"]) if _has(x)]
        if not points:
            continue
        levels, means, lows, highs = np.array(points).T
        errors = np.nan_to_num(np.maximum([means - lows, highs - means], 0.0))
        style = {"color": plots.colour(i), "fmt": plots.mark(i), "ls": "-", "lw": 1.4}
        axis.errorbar(levels, means, errors, ms=6, capsize=3, label=plots.label(names[i]), **style)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("level")
    axis.set_ylabel("bits per frame (less is better)")
    if len(models) > 1:
        plots.legend(figure, names)
    return plots.svg(figure)


def bits_against_forwards(models: Sequence[dict]) -> str:
    """Held-out bits per frame of each model against its forwards for a clip; ≤ marks bounds.

    models: as results.json has them, those that generated audio.
    """
    scores = [model["bits_per_frame"] for model in models]
    return _against_forwards(models, scores, "bits per frame (less is better)", mark_bounds=True)


def distance_against_forwards(models: Sequence[dict], embedding: str) -> str:
    """The Fréchet distance of each model's audio in an embedding against its forwards for a clip,
    beside that of other real audio, and of it as the codec decodes it.

    models: as results.json has them, those that generated audio.
    """
    found = [next(x for x in m["frechet"] if x["embedding"] == embedding) for m in models]
    real = {"real audio": found[0]["floor"], "decoded": found[0].get("codec")}
    label = f"Fréchet distance,\n{embedding}\n(less is better)"
    return _against_forwards(models, [x["distance"] for x in found], label, real)


def _against_forwards(
    models: Sequence[dict],
    scores: Sequence[dict],
    label: str,
    real: dict[str, dict | None] | None = None,
    mark_bounds: bool = False,
) -> str:
    """A mark with an interval for each model; real: what depends on none, as lines."""
    figure, axis = plots.figure()
    bounds = [mark_bounds and is_bound(model) for model in models]
    names = [
        clipped(model["name"], NAME) + " (≤)" * bound
        for model, bound in zip(models, bounds, strict=True)
    ]
    for i, (model, score) in enumerate(zip(models, scores, strict=True)):
        if not _has(score):
            continue
        mean, low, high = _ends(score)
        errors = np.nan_to_num(np.maximum([[mean - low], [high - mean]], 0.0))
        style = {"color": plots.colour(i), "fmt": plots.mark(i)}
        # Colours come again after seven: hollow then, as a second look.
        style |= {"mfc": "none"} if i >= len(plots.COLOURS) else {}
        label_i = plots.label(names[i])
        axis.errorbar([model["forwards"]], [mean], errors, ms=7, capsize=3, label=label_i, **style)
    for style, (name, score) in zip(("--", ":"), (real or {}).items(), strict=False):
        if _has(score):
            axis.axhline(score["mean"], ls=style, lw=1.2, color="#808080", label=name)
            names.append(name)
    plots.log_axis(axis, [model["forwards"] for model in models])
    axis.set_xlabel("forwards for a clip")
    axis.set_ylabel(label)
    if len(models) > 1:
        plots.legend(figure, names)
    return plots.svg(figure)


def _points(name: str, family: str, systems: Sequence[dict]) -> list[tuple[float, ...]]:
    """Bitrate, mean, low and high of a family's systems; a logarithm has no place for 0 kbps."""
    found = [(s["kbps"], s["scores"].get(name)) for s in systems if s["family"] == family]
    return [(kbps, *_ends(score)) for kbps, score in found if kbps > 0 and _has(score)]


def _has(score: dict | None) -> bool:
    return score is not None and score["mean"] is not None


def _ends(score: dict) -> tuple[float, float, float]:
    """Mean, low and high; NaN for ends that there are not."""
    return tuple(np.nan if score[x] is None else score[x] for x in ("mean", "low", "high"))
