"""Beam search and least-squares refinement: what do better codes cost, and what do they bring?

A residual quantizer of 8 levels is fitted to latents of a codec trained on the built-in corpus (and
on a folder of audio), and to random normal vectors, once level by level and once with refinement;
then held-out vectors are encoded with beams of 1 to 16, by residuals and by tables of products.

Command:  python experiments/search/run.py [--data FOLDER]
Time:     about six minutes on two cores, of which two train the codec
Expect:   every wider beam leaves less error, and refinement less again with beams (RESULTS.md)
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np

from rvq_jax import files, machine, quantize
from rvq_jax.study import study_latents

HERE = Path(__file__).parent
LEVELS, SIZE, BEAMS = 8, 256, (1, 2, 5, 16)
TRAIN, HELD = 40_000, 5_000


def measure(state, held_MD: np.ndarray, beam: int) -> dict:
    """Mean squared error as a share of the variance, and the rate of encoding, compiled before."""
    codes, rate = timed(state, held_MD, beam, None)
    error = np.mean((np.asarray(quantize.decode(state, codes))[0] - held_MD) ** 2)
    by_tables = timed(state, held_MD, beam, quantize.beam_tables(state))[1] if beam > 1 else None
    return {
        "beam": beam,
        "error": float(error / np.var(held_MD, axis=0).mean()),
        "vectors_per_second": rate,
        "vectors_per_second_by_tables": by_tables,
    }


def timed(state, held_MD: np.ndarray, beam: int, tables) -> tuple[jax.Array, float]:
    """Codes, and vectors per second: the best of five."""
    encode = jax.jit(quantize.encode, static_argnames="beam")
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        codes = jax.block_until_ready(encode(state, held_MD[None], beam=beam, tables=tables))
        seconds.append(time.perf_counter() - began)
    return codes, len(held_MD) / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder of audio too")
    parser.add_argument("--out", type=Path, default=Path("runs/latents"), help="the codecs' runs")
    parser.add_argument("--seed", type=int, default=0, help="of the fits and the random vectors")
    arguments = parser.parse_args()
    began = time.perf_counter()
    corpora = {"built-in": None}
    if arguments.data is not None:
        corpora[arguments.data.name] = arguments.data
    normal = np.random.default_rng(arguments.seed).standard_normal((TRAIN + HELD, 32))
    normal = normal.astype(np.float32)
    kinds = {
        f"codec latents, {name}": study_latents(arguments.out / name, TRAIN, HELD, data)
        for name, data in corpora.items()
    } | {"random normal": (normal[:TRAIN], normal[TRAIN:])}
    rows = []
    for kind, (train_MD, held_MD) in kinds.items():
        for rounds in (0, 3):
            state = quantize.fit(
                jax.random.key(arguments.seed), train_MD, LEVELS, SIZE, rounds=rounds
            )
            for beam in BEAMS:
                row = {"vectors": kind, "dim": held_MD.shape[1], "refined": rounds > 0}
                rows.append(row | measure(state, held_MD, beam))
                print(rows[-1])
    results = {
        "rows": rows,
        "seed": arguments.seed,
        **machine.provenance(began),
    }
    files.write_json(HERE / "results.json", results)
    with files.writing(HERE / "RESULTS.md") as path:
        path.write_text(markdown(results))


def markdown(results: dict) -> str:
    """RESULTS.md, from results.json alone."""
    lines = [
        "# Search",
        "",
        f"Held-out error of {LEVELS} levels of {SIZE} codes, as a share of the vectors' variance,",
        f"fitted to {TRAIN:,} vectors and measured on {HELD:,}. Refined: three rounds of encoding",
        "with a beam of 5 and least squares over all codebooks.",
        "",
        "| vectors | D | refined | beam | error | against greedy | vectors/s | by tables |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in results["rows"]:
        first = next(
            r
            for r in results["rows"]
            if (r["vectors"], r["refined"]) == (row["vectors"], row["refined"])
        )
        by_tables = row["vectors_per_second_by_tables"]
        lines.append(
            f"| {row['vectors']} | {row['dim']} | {'yes' if row['refined'] else 'no'} "
            f"| {row['beam']} | {row['error']:.4f} | {row['error'] / first['error'] - 1:+.1%} "
            f"| {row['vectors_per_second']:,.0f} | {f'{by_tables:,.0f}' if by_tables else ''} |"
        )
    lines += [
        "",
        f"Seed {results['seed']}; {machine.sentence(results)}",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
