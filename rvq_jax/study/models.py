"""The study's token-model half: train, score and generate with every pattern."""

import dataclasses
import json
import time
from pathlib import Path

import jax
import numpy as np

from rvq_jax import files, metrics, opening, patterns
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import READING
from rvq_jax.evaluate import embeddings, generations, intervals
from rvq_jax.evaluate.bits import clip_bits
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.text_encoder import TextEncoder
from rvq_jax.train import log
from rvq_jax.train.runs import LMRun, train_lm


def bits_by_level(
    run: LMRun,
    params,
    heldout: CodeSet,
    batch: int = 16,
    text: TextEncoder | None = None,
) -> np.ndarray:
    """Scores a token model on held-out codes: mean bits per frame of each level.

    Args:
      run: the training run of the model, whose pattern and crop length are used.
      params: parameters of the model, with lists of layers.
      heldout: held-out codes, which are scored in consecutive windows as long as the run's crops.
      batch: windows that are scored at a time.
      text: the frozen text encoder of a model that reads one; None for a model that reads captions
        itself.

    Returns:
      Bits `[K]`; their sum is bits per frame.
    """
    model = MusicGen(run.lm, run.pattern, params, None, text)
    found = clip_bits(model, heldout, run.frames, batch)
    return found.levels.sum(0) / found.frames.sum()


def train_and_score(
    folder: Path,
    codec: Codec,
    codes: CodeSet,
    heldout: CodeSet,
    run: LMRun,
    names: tuple,
    seeds: tuple,
) -> tuple[dict, dict]:
    """Trains and scores a token model for every pattern and seed, each kept in a folder of its own.

    A model already trained and scored in `folder` is not trained again.

    Args:
      folder: folder in which each model has a folder of its own.
      codec: of the codes, kept beside each.
      codes: codes to train on.
      heldout: codes to score on.
      run: the training run, whose pattern and seed are replaced.
      names: names of the patterns.
      seeds: seeds; one model is trained for each pattern and seed.

    Returns:
      Rows of the study's table by pattern, with bits per frame of each held-out clip, means over
      seeds; and parameters of the first seed's model by pattern.
    """
    rows, first = {}, {}
    lengths_M = [clip.shape[1] for clip in heldout.codes]
    for i, name in enumerate(names):
        scores, seconds = [], []
        for j, seed in enumerate(seeds):
            mine = dataclasses.replace(
                run, pattern=name, loop=dataclasses.replace(run.loop, seed=seed)
            )
            place = folder / f"pattern={name},seed={seed}"
            number = f"model {i * len(seeds) + j + 1} of {len(names) * len(seeds)}"
            label = f"{number} {name} seed {seed}"
            params = train_lm(place, codes, mine, label=label)
            if not (place / "model" / "config.json").is_file():
                MusicGen(run.lm, name, params, codec).save(place / "model")
            done = place / "scores.json"
            score = _score_of(done, (len(heldout), run.lm.levels))
            if score is None:
                score = {
                    "train_seconds": _seconds_of(place, run.loop.steps),
                    "bits_by_clip": _bits_by_clip(mine, params, heldout).tolist(),
                }
                files.write_json(done, score)
            scores.append(score["bits_by_clip"])
            seconds.append(score["train_seconds"])
            first.setdefault(name, params)
        by_level_RK = np.average(scores, axis=1, weights=lengths_M)
        bits, by_clip_M = by_level_RK.sum(axis=1), np.mean(scores, axis=0).sum(axis=1)
        rows[name] = {
            "pattern": name,
            "steps": patterns.named(name, run.lm.levels, run.frames).steps,
            "frames": run.frames,
            "bits_per_frame": {
                "mean": float(bits.mean()),
                "std": float(bits.std(ddof=1)) if len(bits) > 1 else 0.0,
                "values": bits.tolist(),
            },
            "interval": intervals.interval(by_clip_M, lengths_M).as_json(),
            "bits_by_clip": by_clip_M.tolist(),
            "bits_by_level": by_level_RK.mean(axis=0).tolist(),
            "train_seconds": float(np.mean(seconds)),
            "updates": run.loop.steps,
        }
    return rows, first


def compared(rows: dict[str, dict], heldout: CodeSet) -> list[dict]:
    """Every two rows of the table by bits per frame, paired over held-out clips
    (`intervals.pairs`)."""
    lengths_M = [clip.shape[1] for clip in heldout.codes]
    bits = {name: row["bits_by_clip"] for name, row in rows.items()}
    return intervals.pairs("bits_per_frame", bits, lengths_M)


def generate_and_compare(
    run: LMRun,
    name: str,
    params,
    codec: Codec,
    captions: list[str],
    real_features: np.ndarray,
    guidance: float,
    top_k: int,
) -> dict:
    """Generates audio with one pattern, and measures its cost and Fréchet distance.

    The first call compiles; the second is timed to the last sample of audio.

    Args:
      run: the training run of the model.
      name: name of the pattern.
      params: parameters of the model, with lists of layers.
      codec: codec that decodes the generated codes.
      captions: B captions; a clip of `run.frames` frames is generated for each.
      real_features: `[M, 48]` features of real audio, see `metrics.frechet_features`.
      guidance: weight of classifier-free guidance.
      top_k: largest logits to sample from; 0 for all.

    Returns:
      A dict of seconds, real-time factor (seconds of computing per second of audio) and Fréchet
      distance.
    """
    model, rate = MusicGen(run.lm, name, params, codec), codec.config.rate
    seconds_each = run.frames / codec.config.frame_rate

    def generate(seed: int) -> np.ndarray:
        key = jax.random.key(seed)
        return model.generate(captions, seconds_each, key, guidance_scale=guidance, top_k=top_k)

    generate(1)
    began = time.perf_counter()
    audio = generate(0)
    seconds = time.perf_counter() - began
    features = np.concatenate(embeddings.log_mel().embed(audio, rate))
    return {
        "generate_seconds": seconds,
        "real_time_factor": seconds / (audio.shape[0] * audio.shape[1] / rate),
        "frechet_distance": float(metrics.frechet_distance(real_features, features)),
    }


def heard(
    run: LMRun,
    name: str,
    params,
    codec: Codec,
    captions: list[str],
    seconds: float,
    guidance: float,
    top_k: int,
) -> np.ndarray:
    """Generates audio to be listened to, longer than the crops of the training if need be: window
    by window, so that no position is one that the model has never seen.

    Args:
      run: the training run of the model.
      name: name of the pattern.
      params: parameters of the model, with lists of layers.
      codec: codec that decodes the generated codes.
      captions: B captions.
      seconds: of each clip.
      guidance: weight of classifier-free guidance.
      top_k: largest logits to sample from; 0 for all.

    Returns:
      Audio `[B, S, C]`.
    """
    model = generations.within(MusicGen(run.lm, name, params, codec), run.frames)
    rate = codec.config.frame_rate
    step = generations.stride(model, round(seconds * rate))
    options = {} if step is None else {"stride": step / rate}
    key = jax.random.key(0)
    return model.generate(captions, seconds, key, guidance_scale=guidance, top_k=top_k, **options)


def _seconds_of(folder: Path, updates: int) -> float:
    """Seconds of a run's updates without compiling, which patterns of one shape share."""
    lines = log.read(folder / "metrics.jsonl")
    if not lines:  # for want of room
        return 0.0
    first, last = lines[0], lines[-1]
    return (last["seconds"] - first["seconds"]) * updates / max(last["step"] - first["step"], 1)


def _bits_by_clip(run: LMRun, params, heldout: CodeSet) -> np.ndarray:
    """Bits per frame `[M, K]` of each held-out clip and level."""
    model = MusicGen(run.lm, run.pattern, params, None)
    found = clip_bits(model, heldout, run.frames)
    return found.levels / found.frames[:, None]


def _score_of(path: Path, shape: tuple[int, int]) -> dict | None:
    """Scores `[M, K]` that were written before; None where there are none, or damaged ones."""
    try:
        score = json.loads(opening.read_bytes(path))
        bits_MK = np.asarray(score["bits_by_clip"], np.float64)
        found = {"train_seconds": float(score["train_seconds"]), "bits_by_clip": bits_MK.tolist()}
        return found if bits_MK.shape == shape and np.isfinite(bits_MK).all() else None
    except READING:
        return None
