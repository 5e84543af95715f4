"""From rows to results: means with intervals, differences, bitrates, use of codes."""

import numpy as np

from rvq_jax.evaluate.intervals import interval, pairs
from rvq_jax.evaluate.measures import missing
from rvq_jax.evaluate.points import CodecPoints
from rvq_jax.evaluate.rows import COUNTS, unpacked
from rvq_jax.metrics import codes as code_metrics


def of_codecs(sources, clips, measures, rows, left, settings) -> dict:
    """What results.json holds of codecs.

    Args:
      sources: what was measured (`CodecPoints`, `CoderPoint`).
      clips: on what.
      measures: by what, those without a package too.
      rows: of all of them.
      left: clips left out, by name.
      settings: of all of it (`codecs.Settings`).

    Returns:
      A dict of JSON values.
    """
    clips = [clip for clip in clips if clip.name not in left]
    systems, values, use = [], {}, {}
    # What an earlier call, with its package, has left is no part of what is called left out.
    there = [m for m in measures if missing(m) is None]
    seconds = 0.0
    for source in sources:
        points = source.points
        for point in points:
            key = settings.key(point.key)
            found = [rows.get(key, clip.identity) for clip in clips]
            seconds = sum(row["seconds"] for row in found)
            scores = {m.name: [_number(row["scores"].get(m.name)) for row in found] for m in there}
            values[point.name] = scores
            systems.append(
                {
                    "name": point.name,
                    "family": point.family,
                    "kind": point.kind,
                    "levels": point.levels,
                    "kbps": sum(row["bits"] for row in found) / max(seconds, 1e-9) / 1000,
                    "scores": {name: interval(x).as_json() for name, x in scores.items()},
                }
            )
        if isinstance(source, CodecPoints):
            use[source.name] = _use(_counts(source, clip, rows, settings) for clip in clips)
    return {
        "kind": "codec",
        "data": {
            "files": len(clips),
            "seconds": seconds,
            "channels": max((row["channels"] for row in found), default=0),
            "left_out": left,
        },
        "metrics": [
            {
                "name": m.name,
                "label": m.label,
                "unit": m.unit,
                "better": m.better,
                "left_out": missing(m),
            }
            for m in measures
        ],
        "systems": systems,
        "pairs": [
            pair
            for m in there
            for pair in pairs(m.name, {name: scores[m.name] for name, scores in values.items()})
        ],
        "use": use,
        "players": [],
        "listening": None,
    }


def _counts(source, clip, rows, settings) -> np.ndarray | None:
    """How often a clip's codes occur `[K, N]`: those of fewer levels are also the first of what
    another call, with more of them, has left."""
    most, config = max(source.levels), source.codec.config
    for levels in range(most, config.levels + 1):
        row = rows.get(settings.key(source.key(levels)), clip.identity)
        if row and COUNTS in row:
            counts_KN = unpacked(row[COUNTS])[:most].astype(np.int64)
            return np.pad(counts_KN, [(0, 0), (0, config.codebook_size - counts_KN.shape[1])])
    return None


def _use(found) -> list[dict]:
    """Use of the codes by level, of counts of files, one after another."""
    total_KN = sum(counts_KN for counts_KN in found if counts_KN is not None)
    if isinstance(total_KN, int):
        return []
    return [{"level": k + 1, **row} for k, row in enumerate(code_metrics.count_use(total_KN))]


def _number(value) -> float:
    return np.nan if value is None else float(value)
