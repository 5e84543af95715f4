"""Models in bfloat16 and int8 beside float32: quality on a trained one, bytes and bounds of others.

python benchmarks/precision.py --save benchmarks/results/precision.jsonl

Trained: a delay model of the built-in corpus, 1000 updates (`rvq-jax quickstart`, in --out, where
one that is there is taken). Held-out bits per frame, the share of codes whose likeliest value
is float32's under teacher forcing, Fréchet distance of what each generates. Then generation of 30 s
by MusicGen small, medium and large on one v5e chip, compiled and read (it needs libtpu: pip install
-e '.[tpu-plan]'; left out without it): bytes of weights and cache, and how many times faster than
real time it can be at most. A quarter of an hour on two cores.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from common import arguments, emit

PRECISIONS = ("float32", "bfloat16", "int8")
SIZES = ("small", "medium", "large")
FRAMES, RATE = 1500, 50  # of a clip; a second
CROP, SEED = 60, 0  # frames that the trained model was trained on
TRAINED = Path("models") / f"pattern=delay,seed={SEED}" / "model"


def trained(out: Path):
    """The folder of a model of the built-in corpus, and held-out codes."""
    import dataclasses

    from rvq_jax.data.codes import CodeSet
    from rvq_jax.study import StudyConfig, study

    if not (out / TRAINED).exists():
        config = StudyConfig(patterns=("delay",), seeds=(SEED,))
        loop = dataclasses.replace(config.model.loop, steps=1000)
        model = dataclasses.replace(config.model, loop=loop)
        study(out, None, dataclasses.replace(config, model=model), "benchmarks/precision.py")
    return out / TRAINED, CodeSet.load(out / "codes" / "heldout.npz")


def likeliest(model, codes, captions) -> np.ndarray:
    """The likeliest value `[B, K, T]` of every code given the true ones before it."""
    import jax
    import jax.numpy as jnp

    from rvq_jax import patterns
    from rvq_jax.lm import forms
    from rvq_jax.lm.model import frames_of_steps, teacher_inputs

    pattern = patterns.named(model.pattern, model.config.levels, codes.shape[2])
    special = model.config.codebook_size

    @jax.jit
    def run(params, codes, conditions):
        inputs = teacher_inputs(pattern.interleave(codes, fill=special), special)
        lm = forms.model(model.config, params)
        hidden = lm.hidden(inputs, conditions, frames_of_steps(pattern))
        return pattern.deinterleave(jnp.argmax(lm.heads.logits(hidden), -1))

    return np.asarray(run(model.params, codes, model.encode_conditions(captions)))


def quality(parsed) -> None:
    """A line for each precision of the trained model."""
    from rvq_jax.evaluate.settings import GenerationSettings
    from rvq_jax.evaluate.tokens import evaluate_tokens
    from rvq_jax.lm import precision
    from rvq_jax.systems.musicgen import MusicGen

    path, held = trained(parsed.out)
    models = {name: MusicGen.load(path, precision=name) for name in PRECISIONS}
    frames = dict.fromkeys(models, CROP)
    settings = GenerationSettings(clips=16, seconds=CROP / held.frame_rate, seed=SEED)
    rows = evaluate_tokens(models, held, frames=frames, settings=settings)["models"]
    rows = {row["name"]: row for row in rows}
    codes = np.stack([one["codes"][:, :CROP] for one in held])
    best = {name: likeliest(model, codes, held.captions) for name, model in models.items()}
    mean = {name: row["bits_per_frame"]["mean"] for name, row in rows.items()}
    for name, model in models.items():
        found = rows[name]
        line = {
            "seed": SEED,
            "precision": name,
            "weight_bytes": bytes_of(model.params),
            "kept": precision.of(model.params),
            "bits_per_frame": found["bits_per_frame"]["mean"],
            "bits_over_float32": mean[name] - mean["float32"],
            "bits_interval": [found["bits_per_frame"][end] for end in ("low", "high")],
            "greedy_agreement": float((best[name] == best["float32"]).mean()),
            "codes": best[name].size,
            "clips": rows[name]["frechet"][0]["clips"],
        }
        for one in found["frechet"]:
            kind = one["embedding"].replace(" ", "_")
            line[f"frechet_{kind}"] = one["distance"]["mean"]
            line[f"frechet_{kind}_interval"] = [one["distance"][end] for end in ("low", "high")]
            line[f"frechet_{kind}_floor"] = one["floor"] and one["floor"]["mean"]
        emit(parsed, "precision, trained", line)


def bytes_of(tree) -> int:
    """Of all arrays of a tree, or their shapes."""
    import jax

    return sum(x.dtype.itemsize * int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


def planned_on_v5e(lm, precision: str, prompts: int) -> dict:
    """What a plan says of generation on one chip."""
    from rvq_jax.plan import chips
    from rvq_jax.plan.planning import decode_figures
    from rvq_jax.train.runs import LMRun

    began, device = time.perf_counter(), chips.devices("v5e:1x1")[0]
    decoding = LMRun(lm=lm, frames=FRAMES).decoding(device, precision, prompts)
    found = decode_figures(decoding, chips.CHIPS["v5e"])
    line = {"topology": "v5e:1x1", "fits": found["fits"], "total_bytes": found["bytes"]["total"]}
    line |= {name: found[name] for name in ("flops", "bytes_moved", "seconds", "compile_seconds")}
    if found["seconds"]:
        line |= {"bound": found["bound"], "times_real_time": FRAMES / RATE / found["seconds"]}
        line["times_real_time_of_all"] = prompts * line["times_real_time"]
    return line | {"tool_seconds": time.perf_counter() - began}


def bounds(parsed) -> None:
    """A line for each size and precision: bytes and, where libtpu is, the bound of one chip."""
    import jax

    from rvq_jax.lm import forms, precision
    from rvq_jax.lm.model import cache_bytes
    from rvq_jax.systems.musicgen import sizes

    planned = importlib.util.find_spec("libtpu") is not None
    for size in parsed.sizes:
        lm = getattr(sizes, f"musicgen_{size}")()
        for name in parsed.precisions:
            params = jax.eval_shape(lambda x, n=name: precision.cast(x, n), forms.abstract(lm))
            for prompts in parsed.prompts:
                config = precision.computed(lm, name)
                line = {
                    "size": size,
                    "precision": name,
                    "prompts": prompts,
                    "weight_bytes": bytes_of(params),
                    "cache_bytes": cache_bytes(config, 2 * prompts, FRAMES + lm.levels - 1),
                }
                if planned:
                    line |= planned_on_v5e(lm, name, prompts)
                emit(parsed, "precision, decoding", line)


def main() -> None:
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument(
        "--out", type=Path, default=Path("runs/precision"), help="of the trained model"
    )
    own.add_argument("--parts", nargs="*", default=["quality", "bounds"])
    own.add_argument("--precisions", nargs="*", default=PRECISIONS)
    own.add_argument("--sizes", nargs="*", default=SIZES)
    own.add_argument("--prompts", nargs="*", type=int, default=[1, 8])
    parsed = arguments(__doc__, own)
    for part in parsed.parts:
        {"quality": quality, "bounds": bounds}[part](parsed)


if __name__ == "__main__":
    main()
