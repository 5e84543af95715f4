"""Results of studies, made up: all that a report holds, and as little as its answer takes."""

import itertools

import numpy as np
import soundfile

RATE, LEVELS, SIZE = 16000, 4, 128
NAMES = ("parallel", "delay", "partial_delay", "flatten", "partial_flatten", "coarse_first")
STEPS = (125, 128, 126, 500, 250, 250)
BITS = (21.02, 20.34, 20.61, 19.47, 19.88, 19.95)


def make_results(folder) -> dict:
    """A study's results as the schema has them, and its samples as files in `folder`."""
    rng = np.random.default_rng(0)
    (folder / "samples").mkdir()

    def player(label: str, name: str, noise: float) -> dict:
        time = np.arange(RATE // 2) / RATE
        tone = 0.3 * np.sin(2 * np.pi * (300 + 500 * time) * time) * np.exp(-3 * time)
        audio = (tone + noise * rng.normal(size=len(time))).astype(np.float32)
        soundfile.write(folder / "samples" / name, audio, RATE)
        return {"label": label, "file": f"samples/{name}"}

    samples = []
    for clip in range(2):
        labels = ["original"] + [f"{k} level{'s' * (k > 1)}" for k in range(1, LEVELS + 1)]
        players = [
            player(label, f"clip{clip}_{k}.wav", 0.03 / (k + 1) * (k > 0))
            for k, label in enumerate(labels)
        ]
        samples.append(
            {
                "group": "reconstruction",
                "title": f"song {clip} <&'\">",
                "caption": 'a "bright" pad & drums',
                "players": players,
            }
        )
    players = [player(name, f"{name}.flac", 0.01) for name in ("original", *NAMES)]
    title = "a slow piano"
    samples.append({"group": "generation", "title": title, "caption": "", "players": players})

    def pattern(i: int) -> dict:
        values = [BITS[i] - 0.05, BITS[i] + 0.05]
        bits = {"mean": BITS[i], "std": 0.07, "values": values}
        return {"pattern": NAMES[i], "steps": STEPS[i], "frames": 125, "bits_per_frame": bits,
                "interval": {"mean": BITS[i], "low": BITS[i] - 0.3, "high": BITS[i] + 0.3},
                "bits_by_level": [BITS[i] * share for share in (0.17, 0.25, 0.28, 0.3)],
                "train_seconds": 41.0 + i, "updates": 200, "generate_seconds": STEPS[i] / 150,
                "real_time_factor": STEPS[i] / 3000, "frechet_distance": 31.4 + i}  # fmt: skip

    def pair(i: int, j: int) -> dict:
        mean = BITS[i] - BITS[j]
        return {"metric": "bits_per_frame", "a": NAMES[i], "b": NAMES[j], "different": True,
                "mean": mean, "low": mean - 0.11, "high": mean + 0.12, "count": 24}  # fmt: skip

    def level(k: int) -> dict:
        return {"level": k, "kbps": 0.35 * k, "si_sdr_db": 1.7 * k - 0.4,
                "mel_distance": 0.9 / k + 0.2, "energy_explained": 0.5**k, "use": 1 - 0.1 * k,
                "entropy_bits": 6.5 - k / 10, "perplexity": 2 ** (6.5 - k / 10)}  # fmt: skip

    decay = np.exp(-np.arange(8) / 2.0)
    apart = np.abs(np.subtract.outer(np.arange(LEVELS), np.arange(LEVELS)))
    counts = rng.multinomial(20000, rng.dirichlet(np.ones(SIZE)), LEVELS)
    counts[2, :40] = 0
    updates = np.arange(0, 600, 20)
    curves = {"codec": np.stack([updates, 40 * np.exp(-updates / 150) + 3], 1).tolist()}
    for i, name in enumerate(NAMES):
        losses = BITS[i] / 4 + 2 * np.exp(-updates / 100)
        curves[name] = np.stack([updates, losses], 1).tolist()
    return {
        "command": "rvq-jax quickstart --out run",
        "commit": "0123456789ab",
        "machine": {"cpu": "a processor", "cores": 2, "memory_gb": 25.0, "accelerator": None},
        "seeds": [0, 1],
        "wall_seconds": 812.3,
        "peak_memory_gb": 2.46,
        "versions": {"python": "3.13.0", "jax": "0.12.0", "rvq_jax": "0.1.0"},
        "data": {"name": "built-in", "rate": RATE, "train_minutes": 16.0,
                 "heldout_minutes": 2.4, "clips": 184},
        "codec": {"name": "trained here", "parameters": 462202, "hop": 320,
                  "frame_rate": 50.0, "codebook_size": SIZE,
                  "train_seconds": 240.0, "updates": 600,
                  "levels": [level(k) for k in range(1, LEVELS + 1)]},
        "patterns": [pattern(i) for i in range(len(NAMES))],
        "pairs": [pair(i, j) for i, j in itertools.combinations(range(len(NAMES)), 2)],
        "language_model": {"parameters": 1413760, "layers": 4},
        "information": {"levels": (3.0 * np.exp(-apart) + 3.3 * (apart == 0)).tolist(),
                        "lags": [(decay * 2 / k).tolist() for k in range(1, LEVELS + 1)]},
        "code_counts": counts.tolist(),
        "curves": curves,
        "samples": samples,
        "date": "2026-11-28",
    }  # fmt: skip


def results_of(*rows, alike: tuple = ()) -> dict:
    """Patterns (name, steps, mean, std) of two seeds each; alike: pairs that clips cannot tell."""
    level = {"level": 1, "perplexity": 100.0, "si_sdr_db": 3.0}
    return {"codec": {"levels": [level]}, "pairs": [
        {"a": a[0], "b": b[0], "different": (a[0], b[0]) not in alike, "mean": a[2] - b[2],
         "low": a[2] - b[2], "high": a[2] - b[2]} for a, b in itertools.combinations(rows, 2)
    ], "patterns": [
        {"pattern": name, "steps": steps, "frames": 100, "real_time_factor": steps / 1000,
         "bits_per_frame": {"mean": mean, "std": std, "values": [mean - std, mean + std]}}
        for name, steps, mean, std in rows
    ]}  # fmt: skip
