"""Codebook collapse: which rules of learning keep all codes in use, at the same bitrate?

Latents of a codec trained on the built-in corpus, or on a folder of audio, pass a linear encoder
(at first the identity), a quantizer of 4 levels of 256 codes from a random start (no k-means:
collapse is the question), and a linear decoder; all learn together, 1,500 updates of 512 vectors,
three seeds. RESULTS.md has a section for every corpus measured so far.

Command:  python experiments/collapse/run.py            and: --data FOLDER
Time:     about five minutes on two cores, of which two train the codec
Expect:   running means alone keep half of the codes in use, with replacement 99 %, and the least
          distortion (RESULTS.md)
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from tqdm import tqdm

from rvq_jax import files, machine, quantize
from rvq_jax.evaluate.cells import spread
from rvq_jax.evaluate.plots import COLOURS
from rvq_jax.study import study_latents

HERE = Path(__file__).parent
LEVELS, SIZE, UPDATES, BATCH, EVERY = 4, 256, 1500, 512, 250
SEEDS = 0, 1, 2
FOLLOW = {"learning": quantize.EMA(expiry=0.0)}
REPLACE = {"learning": quantize.Gradient(expiry=0.1)}
RULES = {
    "EMA": (quantize.init, FOLLOW),
    "EMA, replacement": (quantize.init, {"learning": quantize.EMA()}),
    "EMA, rotation trick": (quantize.init, FOLLOW | {"estimator": quantize.rotation}),
    "gradient": (quantize.init, {"learning": quantize.Gradient()}),
    "gradient, rotation trick": (
        quantize.init,
        {"learning": quantize.Gradient(), "estimator": quantize.rotation},
    ),
    "gradient, replacement": (quantize.init, REPLACE),
    "SimVQ": (quantize.SimVQ.init, {}),
    "projection to 8, cosine": (quantize.Projected.init, {"per_level": True}),
    "projection, replacement": (quantize.Projected.init, {"per_level": True} | REPLACE),
    "FSQ 4x4x4x4, projected": (
        lambda key, levels, size, dim: quantize.Projected.around(key, dim, even_grid(levels)),
        {"per_level": True},
    ),
}


def even_grid(levels: int) -> quantize.FSQ:
    """256 points at every level, on one scale: each level's projection learns its own."""
    grid = quantize.FSQ.init(levels, (4, 4, 4, 4))
    return dataclasses.replace(grid, scale=jnp.ones_like(grid.scale))


def curve(name: str, train_MD: np.ndarray, held_MD: np.ndarray, seed: int) -> list[dict]:
    """Held-out use (mean over levels) and distortion, every so many updates."""
    init, options = RULES[name]
    dim = train_MD.shape[1]
    state = init(jax.random.key(seed), LEVELS, SIZE, dim)
    params = {"state": state, "encoder": jnp.eye(dim), "decoder": jnp.eye(dim)}
    optimizer = optax.adam(1e-3)

    def loss(params, x_MD, key):
        out = quantize.quantize(
            params["state"], (x_MD @ params["encoder"])[None], key=key, train=True, **options
        )
        error = jnp.mean((out.latents[0] @ params["decoder"] - x_MD) ** 2)
        return error + 0.25 * out.commitment.mean() + out.codebook.mean(), out.state

    @jax.jit
    def step(params, moments, x_MD, key):
        (_, learned), grads = jax.value_and_grad(loss, has_aux=True)(params, x_MD, key)
        changes, moments = optimizer.update(grads, moments)
        # Means that learned by themselves have no gradient, and stay as they learned.
        return optax.apply_updates(params | {"state": learned}, changes), moments

    @jax.jit
    def measure(params):
        out = quantize.quantize(
            params["state"],
            (held_MD @ params["encoder"])[None],
            per_level=options.get("per_level", False),
        )
        error = jnp.mean((out.latents[0] @ params["decoder"] - held_MD) ** 2)
        return out.stats.use.mean(), out.stats.perplexity.mean(), error / jnp.var(held_MD)

    rng = np.random.default_rng(seed)
    moments, rows = optimizer.init(params), []
    for update in range(1, UPDATES + 1):
        batch = train_MD[rng.integers(0, len(train_MD), BATCH)]
        params, moments = step(params, moments, batch, jax.random.key(update))
        if update % EVERY == 0:
            use, perplexity, error = map(float, measure(params))
            rows.append(
                {"update": update, "use": use, "perplexity": perplexity, "distortion": error}
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of audio; the built-in corpus if not")
    parser.add_argument("--out", type=Path, default=Path("runs/latents"), help="the codecs' runs")
    arguments = parser.parse_args()
    began = time.perf_counter()
    corpus = "built-in" if arguments.data is None else arguments.data.name
    train_MD, held_MD = study_latents(arguments.out / corpus, 60_000, 5_000, arguments.data)
    mean_1D, spread = train_MD.mean(axis=0, keepdims=True), train_MD.std()
    train_MD, held_MD = ((x - mean_1D) / spread for x in (train_MD, held_MD))
    work = [(name, seed) for name in RULES for seed in SEEDS]
    curves = {name: [] for name in RULES}
    for name, seed in tqdm(work, unit="run"):
        curves[name].append(curve(name, train_MD, held_MD, seed))
    results = {
        "corpus": corpus,
        "vectors": [len(train_MD), len(held_MD)],
        "curves": curves,
        "seeds": list(SEEDS),
        **machine.provenance(began),
    }
    files.write_json(HERE / f"corpus={corpus}.json", results)
    plot(results, HERE / f"corpus={corpus}.png")
    every = [json.loads(path.read_text()) for path in sorted(HERE.glob("corpus=*.json"))]
    with files.writing(HERE / "RESULTS.md") as path:
        path.write_text("\n".join([*HEAD, *(section(results) for results in every)]))


def plot(results: dict, path: Path) -> None:
    """Use and distortion over the updates, a line per rule, mean over the seeds."""
    figure = Figure(figsize=(11, 4.5), layout="constrained", facecolor="white")
    axes = figure.subplots(1, 2)
    for i, (name, runs) in enumerate(results["curves"].items()):
        updates = [row["update"] for row in runs[0]]
        # Colours for all eyes; the second round of them is dashed.
        style = {"color": COLOURS[i % len(COLOURS)], "ls": "--" if i >= len(COLOURS) else "-"}
        for axis, key in zip(axes, ("use", "distortion"), strict=True):
            mean = np.mean([[row[key] for row in run] for run in runs], axis=0)
            axis.plot(updates, mean, marker="o", ms=4, label=name, **style)
    axes[0].set_ylabel("codes in use, share (more is better)")
    axes[1].set_ylabel("distortion, share of variance (less is better)")
    axes[1].set_yscale("log")
    axes[1].yaxis.set_minor_formatter("{x:g}")
    axes[1].yaxis.set_major_formatter("{x:g}")
    for axis in axes:
        axis.set_xlabel("updates")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    with files.writing(path) as place:
        figure.savefig(place, dpi=110)


HEAD = [
    "# Collapse",
    "",
    f"{LEVELS} levels of {SIZE} codes ({LEVELS * 8} bits per vector for every rule), learned from",
    "a random start together with a linear encoder and decoder, on latents of a codec. Held-out",
    "vectors; ± is the standard deviation over seeds; columns: updates.",
    "",
]


def section(results: dict) -> str:
    """One corpus, from its JSON alone."""

    def table(key: str, style: str) -> list[str]:
        first = next(iter(results["curves"].values()))[0]
        updates = [row["update"] for row in first]
        lines = ["| rule | " + " | ".join(f"{u:,}" for u in updates) + " |"]
        lines.append("|---|" + "---:|" * len(updates))
        for name, runs in results["curves"].items():
            values = np.array([[row[key] for row in run] for run in runs])
            cells = [
                f"{mean:{style}}{spread(std, len(values), style)}"
                for mean, std in zip(values.mean(0), values.std(0), strict=True)
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return [*lines, ""]

    return "\n".join(
        [
            f"## corpus={results['corpus']}",
            "",
            f"![use and distortion](corpus={results['corpus']}.png)",
            "",
            "### Codes in use, share (mean over levels)",
            "",
            *table("use", ".1%"),
            "### Perplexity (mean over levels)",
            "",
            *table("perplexity", ".0f"),
            "### Distortion, share of the vectors' variance",
            "",
            *table("distortion", ".4f"),
            "{:,} vectors to learn from, {:,} held out. ".format(*results["vectors"])
            + f"Seeds {', '.join(map(str, results['seeds']))}; {machine.sentence(results)}",
            "",
        ]
    )


if __name__ == "__main__":
    main()
