"""Finished evaluations, small: what results.json holds, and the sounds that it names."""

from pathlib import Path

import numpy as np
import soundfile

RATE, SECONDS = 16000, 0.5
# Names that are only text wherever they are shown.
EVIL = ("<script>alert(1)</script>", "音声 🎹 $x_1$ | *a* __b__", "n" * 300)
METRICS = [
    {"name": "si_sdr", "label": "SI-SDR", "unit": "dB", "better": "more", "left_out": None},
    {"name": "mel", "label": "mel distance", "unit": "", "better": "less", "left_out": None},
    {"name": "pesq", "label": "PESQ", "unit": "", "better": "more",
     "left_out": "needs pesq: pip install 'rvq_jax[metrics]'"},
]  # fmt: skip
STATED = {
    "command": "rvq-jax evaluate mine --data speech",
    "commit": "0123456789ab",
    "machine": {"cpu": "a processor", "cores": 2, "memory_gb": 25.0, "accelerator": None},
    "versions": {"python": "3.13.0", "jax": "0.12.0", "rvq_jax": "0.1.0"},
    "wall_seconds": 812.3,
}


def score(
    mean: float | None, half: float | None = 0.2, count: int = 30, undefined: int = 0
) -> dict:
    """A mean and its interval; None for what is undefined."""
    ends = (None, None) if mean is None or half is None else (mean - half, mean + half)
    return {"mean": mean, "low": ends[0], "high": ends[1], "count": count, "undefined": undefined}


def codecs(names=("mine", "other"), levels=(1, 2, 4), metrics=METRICS, baselines=True) -> dict:
    """Codecs of so many levels at 0.75 kbps each, beside Opus and MP3; better with the bitrate."""
    points = [
        (f"{n}, {k} level{'s' * (k > 1)}", n, "codec", k, 0.75 * k) for n in names for k in levels
    ]
    if baselines:
        points += [(f"Opus {k}", "Opus", "opus", None, 1.0 * k) for k in (6, 12)]
        points += [("MP3 16", "MP3", "mp3", None, 16.0)]
    systems = []
    for name, family, kind, count, kbps in points:
        good = np.log2(1 + kbps)
        scores = {"si_sdr": score(3 * good), "mel": score(1 / good, 0.01)}
        systems.append({"name": name, "family": family, "kind": kind, "levels": count,
                        "kbps": kbps, "scores": scores})  # fmt: skip
    pairs = [
        {"metric": m, "a": a["name"], "b": b["name"], "mean": d, "low": d - 0.2, "high": d + 0.2,
         "different": abs(d) > 0.2}
        for m in ("si_sdr", "mel") for i, a in enumerate(systems) for b in systems[:i]
        for d in [a["scores"][m]["mean"] - b["scores"][m]["mean"]]
    ]  # fmt: skip
    use = {
        name: [{"level": k, "use": 0.9, "entropy_bits": 8.5, "perplexity": 362.0,
                "efficiency": None if k > 1 else 0.85, "frames": 9000}
               for k in range(1, max(levels) + 1)]
        for name in names
    }  # fmt: skip
    return {
        "kind": "codec",
        "data": {"folder": "speech", "files": 30, "seconds": 300.0, "signal": "speech",
                 "channels": 1},
        "metrics": metrics,
        "systems": systems,
        "pairs": pairs,
        "use": use,
        "players": [],
        "listening": None,
        **STATED,
    }  # fmt: skip


def tokens(names=("delay", "flatten"), levels: int = 4) -> dict:
    """Token models of so many levels."""
    models = [
        {
            "name": name,
            "pattern": name,
            "levels": levels,
            "bits": "exact",
            "samples": None,
            "standard_error": None,
            "bits_per_frame": score(20.0 - i),
            "bits_of_semantic_tokens": None,
            "bits_by_level": [score(3.0 + k - i / 4, 0.05) for k in range(levels)],
            "frechet": [{"embedding": "log-mel statistics", "distance": score(31.4 + i, 3.0),
                         "floor": score(12.0, 1.0), "clips": 64}],
            "agreement": None if i else [
                {"what": "tempo", "generated": score(0.4, 0.1), "real": score(0.9, 0.05)}],
            "forwards": 1503,
            "real_time_factor": 0.31,
        }
        for i, name in enumerate(names)
    ]  # fmt: skip
    return {
        "kind": "tokens",
        "data": {"source": "built-in", "clips": 64, "seconds": 640.0},
        "models": models,
        "pairs": [],
        "players": [],
        **STATED,
    }


def add_sounds(
    folder: Path, results: dict, files=("one.flac", "two.flac"), seconds=SECONDS
) -> dict:
    """The results with a sound of each system for each file, as audio/… in the folder."""
    rng = np.random.default_rng(0)
    named = results.get("systems") or results["models"]
    for i, file in enumerate(files):
        place = folder / "audio" / str(i)
        place.mkdir(parents=True)
        time = np.arange(round(seconds * RATE)) / RATE
        tone = 0.3 * np.sin(2 * np.pi * (300 + 500 * time) * time) * np.exp(-3 * time)
        paths = {}
        for k, system in enumerate([None, *named]):
            noise = 0.02 * k * rng.normal(size=len(time))
            path = place / ("original.flac" if system is None else f"{k}.flac")
            soundfile.write(path, (tone + noise).astype(np.float32), RATE)
            if system:
                paths[system["name"]] = f"audio/{i}/{path.name}"
        player = {"file": file, "original": f"audio/{i}/original.flac", "systems": paths}
        if results["kind"] == "codec":
            player["seconds"] = seconds
        else:
            player["caption"] = "a slow <piano>"
        results["players"].append(player)
    return results
