"""Does a trained model reach the optimum of its pattern? A source small enough to know exactly.

Three levels, four frames, three codes: all 3^12 sequences are enumerated. Each pattern has an exact
optimum (what predicting codes of one step independently must cost), and the trained model's bits
are its exact cross-entropy over all sequences, so there is no sampling error on either side. With a
depth transformer inside each frame `parallel` leaves nothing out: its optimum is that of `flatten`.

Command:  python experiments/exactness/run.py
Time:     six to fifteen minutes on two cores
Expect:   every pattern within 2 % above its optimum, none below (RESULTS.md)
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from rvq_jax import files, machine, patterns
from rvq_jax.lm import forms
from rvq_jax.lm.depth import DepthConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.study.quickstart import SIX
from rvq_jax.systems.decoding.programs import score_codes
from rvq_jax.train import sharding
from rvq_jax.train.state import OptimizerConfig, make_program
from rvq_jax.train.tasks.lm import conditions_of, lm_task

HERE = Path(__file__).parent
LEVELS, FRAMES, SIZE = 3, 4, 3
SIZES = {"dim": 64, "layers": 3, "heads": 4, "mlp_dim": 256}
# No more parameters in all: a layer less over frames, and one over levels.
DEPTH = "parallel with a depth transformer"
DEPTH_SIZES = SIZES | {"layers": 2, "depth": DepthConfig(dim=64, layers=1, heads=4, mlp_dim=128)}


def source(levels: int, frames: int, size: int, seed: int = 0) -> np.ndarray:
    """A joint distribution `[N] * (K · F)`: each code given the level above and the frame before.

    Axis k · F + f is code (k, f). Random tables, far from uniform, so that patterns differ.
    """
    rng = np.random.default_rng(seed)
    joint, axes = np.ones(()), []
    for f in range(frames):
        for k in range(levels):
            parents = [(k - 1, f)] * (k > 0) + [(k, f - 1)] * (f > 0)
            table = rng.dirichlet(np.full(size, 0.4), size=(size,) * len(parents))
            letters = {code: i for i, code in enumerate([*axes, (k, f)])}
            inputs = [letters[code] for code in axes]
            wants = [*(letters[code] for code in parents), letters[(k, f)]]
            joint = np.einsum(joint, inputs, table, wants, [*inputs, letters[(k, f)]])
            axes.append((k, f))
    order = [axes.index((k, f)) for k in range(levels) for f in range(frames)]
    return joint.transpose(order)


def train(
    name: str,
    joint: np.ndarray,
    levels: int,
    frames: int,
    updates: int,
    seed: int = 0,
    sizes: dict = SIZES,
) -> tuple[LMConfig, patterns.Pattern, object]:
    """A small token model of one pattern, trained on samples of the joint."""
    config = LMConfig(levels=levels, codebook_size=joint.shape[0], caption_bytes=1, **sizes)
    pattern = patterns.named(name, levels, frames)
    if config.depth is None:
        # All patterns padded alike: one compiled step for the six of them.
        pattern = pattern.pad(levels * frames)
    optimizer = OptimizerConfig(learning_rate=3e-3, warmup=100, weight_decay=0.01)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    task = lm_task(config, pattern)
    program = _program(config, optimizer, updates, task, mesh)
    state = program.init(jax.random.key(seed), task.aux)
    rng = np.random.default_rng((seed, 1))
    cumulative = np.cumsum(joint.ravel())
    for _ in tqdm(range(updates), desc=name, unit="update"):
        drawn = np.searchsorted(cumulative, rng.random(256) * cumulative[-1])
        batch = _batch(np.minimum(drawn, joint.size - 1), joint.shape, levels, frames)
        state, _ = program.step(state, batch)
    return config, pattern, forms.unstack(config, state.ema)


def cross_entropy(config, pattern, params, joint: np.ndarray) -> float:
    """Exact bits per frame of a model over every sequence of the joint."""
    total, chunk = 0.0, min(8192, joint.size)
    p = joint.ravel()
    for begin in range(0, joint.size, chunk):
        index = np.minimum(np.arange(begin, begin + chunk), joint.size - 1)
        batch = _batch(index, joint.shape, pattern.levels, pattern.frames)
        bits = score_codes(config, params, pattern, batch["codes"], conditions_of(batch))
        inside = np.arange(begin, begin + chunk) < joint.size
        total += float((np.asarray(bits, np.float64).sum((1, 2)) * p[index] * inside).sum())
    return total / pattern.frames


def _batch(index: np.ndarray, shape: tuple, levels: int, frames: int) -> dict:
    codes = np.stack(np.unravel_index(index, shape), axis=1).reshape(-1, levels, frames)
    return {
        "codes": codes.astype(np.int32),
        "mask": np.ones((len(index), frames), bool),
        "text": np.zeros((len(index), 1), np.int32),
        "index": np.arange(len(index), dtype=np.int32),
    }


_programs: dict = {}


def _program(config, optimizer, updates, task, mesh):
    key = (config, optimizer, updates)
    if key not in _programs:
        _programs[key] = make_program(task, optimizer, updates, mesh)
    return _programs[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=1000, help="updates per pattern")
    parser.add_argument("--seed", type=int, default=0, help="of the source and the models")
    parser.add_argument("--only", choices=[*SIX, DEPTH], help="one row; others stay as they are")
    arguments = parser.parse_args()
    said = {"updates": arguments.updates, "seed": arguments.seed}
    began = time.perf_counter()
    joint = source(LEVELS, FRAMES, SIZE, arguments.seed)
    rows = []
    for label in [arguments.only] if arguments.only else [*SIX, DEPTH]:
        name, sizes = ("parallel", DEPTH_SIZES) if label == DEPTH else (label, SIZES)
        exact = "flatten" if label == DEPTH else name
        best = patterns.analyse(patterns.named(exact, LEVELS, FRAMES), joint).bits_per_frame
        model = train(name, joint, LEVELS, FRAMES, **said, sizes=sizes)
        reached, steps = cross_entropy(*model, joint), patterns.named(name, LEVELS, FRAMES).steps
        rows.append({"pattern": label, "steps": steps, "optimum": best, "model": reached})
        print(f"{label:>16}  optimum {best:.4f}  model {reached:.4f}  {reached / best - 1:+.2%}")
    results = {**said, "patterns": rows, **machine.provenance(began)}
    if arguments.only:
        results = with_row(json.loads((HERE / "results.json").read_text()), results)
    files.write_json(HERE / "results.json", results)
    with files.writing(HERE / "RESULTS.md") as path:
        path.write_text(markdown(results))


def with_row(results: dict, one: dict) -> dict:
    """Earlier results with one row made anew, which says itself when and where."""
    if [results[name] for name in ("updates", "seed")] != [one["updates"], one["seed"]]:
        raise SystemExit("the other rows are of other updates or another seed: leave --only out")
    made = {name: one[name] for name in ("commit", "machine", "versions", "wall_seconds")}
    row = {**one["patterns"][0], "made": made}
    rows = [x for x in results["patterns"] if x["pattern"] != row["pattern"]]
    return results | {"patterns": [*rows, row]}


def markdown(results: dict) -> str:
    """RESULTS.md, from results.json alone."""
    lines = [
        "# Exactness",
        "",
        "Bits per frame on a source of known distribution (3 levels, 4 frames, 3 codes): the exact",
        "optimum of each pattern, and the exact cross-entropy of a model trained on samples. Steps",
        "are forwards of the model over frames; a depth transformer has one more for each level.",
        "",
        "| pattern | steps | optimum | trained model | above |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in results["patterns"]:
        above = row["model"] / row["optimum"] - 1
        steps = row.get("steps") or patterns.named(row["pattern"], LEVELS, FRAMES).steps
        lines.append(
            f"| {row['pattern']} | {steps} | {row['optimum']:.4f} | {row['model']:.4f} "
            f"| {above:+.2%} |"
        )
    lines += [
        "",
        f"{results['updates']} updates, seed {results['seed']}; {machine.sentence(results)}",
    ]
    made = {row["pattern"]: row["made"] for row in results["patterns"] if "made" in row}
    lines += [f"The row {name} is of {machine.sentence(one)}" for name, one in made.items()] + [""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
