"""Which way to predict K levels: all systems on the built-in codec's tokens of real audio.

Six patterns, a depth transformer, MAGNeT (alone, and helped by the model of delay) and SoundStorm
with the semantic model its tokens come from; 1.8 million weights each, the same updates, the same
sweep of learning rates by one half of the held-out recordings, the winner with three seeds, bits
and generated audio by the other half. A finished training is not done again.

Command:  rvq-jax data build FOLDER --out runs/music --codes builtin --semantic kmeans
          python experiments/prediction/run.py --codes runs/music
          and of another corpus, at the rates that were chosen there, two seeds:
          python experiments/prediction/run.py --codes runs/speech --rates-of music --seeds 0 1
Time:     an hour and a half on two cores, without a sweep twenty minutes a seed
Expect:   RESULTS.md
"""

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np
import report
import systems
from systems import LEVELS, MAGNET, NETWORKS, RATES, SOUNDSTORM, STAGE

from rvq_jax import files, machine
from rvq_jax.data.codes import CodeSet
from rvq_jax.evaluate.bits import clip_bits, semantic_bits
from rvq_jax.evaluate.settings import GenerationSettings
from rvq_jax.evaluate.tokens import evaluate_tokens
from rvq_jax.study.codecs import builtin_codec
from rvq_jax.systems.generators import Generator, forwards
from rvq_jax.systems.magnet import MAGNeT
from rvq_jax.systems.musicgen import MusicGen

HERE = Path(__file__).parent
PIECES = 64, 96  # held-out ones that rates are chosen by, and that the tables are of
# Without guidance, so that what is heard is what bits are of; else as each kind was published.
SETTINGS = GenerationSettings(clips=48, seconds=1.2, guidance_scale=1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Helped(MAGNeT):
    """A MAGNeT that is never without its autoregressive helper."""

    helper: MusicGen | None = None
    rescore_weight: float = 0.0
    hybrid_seconds: float = 0.0

    def generate(self, *args, **options) -> np.ndarray:
        """As of `MAGNeT`, helped."""
        how = {"rescore": self.rescore_weight, "hybrid": self.hybrid_seconds}
        return super().generate(*args, **options, autoregressive=self.helper, **how)


HELP = {
    f"{MAGNET}, rescored .5": {"rescore_weight": 0.5},
    f"{MAGNET}, rescored .9": {"rescore_weight": 0.9},
    f"{MAGNET}, hybrid .4 s": {"hybrid_seconds": 0.4},
}


def prepare(source: Path, out: Path) -> tuple[Path, Path, CodeSet, CodeSet]:
    """The first levels of a code cache, in a folder of their own.

    Args:
      source: folder that `rvq-jax data build --codes builtin --semantic kmeans` wrote.
      out: of the study.

    Returns:
      The cache that is trained on, the folder of the codec of so many levels, and held-out codes of
      different recordings: those that rates are chosen by, and those that the tables are of.
    """
    codec = builtin_codec(LEVELS)
    if not (out / "codec").exists():
        codec.save(out / "codec")
    fingerprint = codec.fingerprint().hex()

    def first(codes: CodeSet) -> CodeSet:
        cut = [codes_KF[:LEVELS] for codes_KF in codes.codes]
        return dataclasses.replace(codes, codes=cut, codec=fingerprint)

    (out / "data").mkdir(parents=True, exist_ok=True)
    if not (out / "data" / "train.npz").exists():
        first(CodeSet.load(source / "train.npz")).save(out / "data" / "train.npz")
    heldout = first(CodeSet.load(source / "heldout.npz"))
    recordings = [name.rpartition("#")[0] or name for name in heldout.names]
    order = np.random.default_rng(0).permutation(sorted(set(recordings)))
    for_rates = set(order[: len(order) // 2])
    sides = [], []
    for i in np.random.default_rng(1).permutation(len(heldout)):
        if heldout.codes[i].shape[1] >= systems.FRAMES:
            sides[recordings[i] not in for_rates].append(int(i))
    choose, tell = (
        heldout.rows(sorted(side[:most])) for side, most in zip(sides, PIECES, strict=True)
    )
    return out / "data" / "train.npz", out / "codec", choose, tell


def bits(name: str, model, heldout: CodeSet) -> float:
    """Bits per frame of what a network predicts, or a bound on them."""
    if name == STAGE:
        found = semantic_bits(model, heldout)
    else:
        found = clip_bits(model, heldout, systems.FRAMES)
    return float(found.levels.sum() / found.frames.sum())


def helping(model: Generator) -> int:
    """Forwards of a model's helper for a clip."""
    if not isinstance(model, Helped):
        return 0
    if model.rescore_weight:
        return sum(model.iterations)
    return forwards(model.helper, int(model.frames(model.hybrid_seconds)))


def study(
    source: Path, out: Path, updates: int, short: int, seeds: list[int], rates_of: str | None
) -> dict:
    """The sweep, the trainings and what comes of them; rates_of: a corpus whose sweep it was."""
    train, codec, choose, tell = prepare(source, out)
    best: dict[str, float] = {}

    def folder(name: str, rate: float, seed: int, updates: int) -> Path:
        return out / "models" / f"{name},updates={updates},rate={rate:g},seed={seed}"

    def model(name: str, rate: float, seed: int, updates: int):
        its = rate, seed, updates
        stage = folder(STAGE, best[STAGE], seed, updates) / "model" if name == SOUNDSTORM else None
        run = systems.run_of(name, *its)
        return systems.trained(folder(name, *its), train, codec, name, run, stage)

    sweep: dict[str, dict] = {}
    if rates_of is not None:
        sweep = json.loads((HERE / f"corpus={rates_of}.json").read_text())["sweep"]
        best |= {name: row["best"] for name, row in sweep.items()}
    for name in NETWORKS if rates_of is None else ():
        found = {rate: bits(name, model(name, rate, 0, short), choose) for rate in RATES}
        best[name] = min(found, key=found.get)
        sweep[name] = {"bits": {f"{r:g}": b for r, b in found.items()}, "best": best[name]}
        print(name, sweep[name], flush=True)
    results = []
    for seed in seeds:
        networks = {name: model(name, best[name], seed, updates) for name in NETWORKS}
        del networks[STAGE]
        models: dict[str, Generator] = {
            name: Helped(**vars(networks[MAGNET]), helper=networks["delay"], **how)
            for name, how in HELP.items()
        } | networks
        crops = dict.fromkeys(models, systems.FRAMES)
        settings = dataclasses.replace(SETTINGS, seed=seed)
        place = out / f"generated,seed={seed}"
        found = evaluate_tokens(models, tell, frames=crops, out=place, settings=settings)
        for row in found["models"]:
            row["forwards"] += helping(models[row["name"]])
        results.append(found)
    return {
        "corpus": source.name,
        "updates": updates,
        "updates_of_sweep": short,
        "parameters": {name: systems.parameters(name) for name in NETWORKS},
        "train": CodeSet.load(train).describe(),
        "rates_of": rates_of,
        "sweep": sweep,
        "seeds": results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", type=Path, required=True, help="what data build wrote")
    parser.add_argument("--updates", type=int, default=600, help="of every last training")
    parser.add_argument("--out", type=Path, default=Path("runs/prediction"), help="run folder")
    parser.add_argument("--sweep-updates", type=int, default=400, help="of those in the sweep")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="two or more")
    parser.add_argument("--rates-of", help="a corpus whose sweep there was; none sweeps")
    arguments = parser.parse_args()
    began = time.perf_counter()
    os.nice(5)
    out = arguments.out / arguments.codes.name
    lengths, how = (arguments.updates, arguments.sweep_updates), arguments.rates_of
    results = study(arguments.codes, out, *lengths, arguments.seeds, how)
    results |= machine.provenance(began)
    path = HERE / f"corpus={results['corpus']}.json"
    files.write_json(path, results)
    every = [json.loads(path.read_text()) for path in sorted(HERE.glob("corpus=*.json"))]
    report.write(HERE, every)


if __name__ == "__main__":
    main()
