"""Whether discriminators make a codec better at the same bitrate, size and number of updates.

What both published recipes hear, in small: EnCodec's losses (MS-STFT discriminators, hinge,
gradients balanced at the output) and DAC's (discriminators of periods and bands, least squares,
fixed weights), each with discriminators and on its spectral losses alone. All runs go on from the
same codec, one of filterbanks whose codebooks are running means: on a processor a SEANet's or a
DAC's own update is ten times as dear. Every side has the same sweep of learning rates on the first
seed, of which the lowest mel distance on the corpus's own held-out clips is taken, and its seeds at
that; they differ in crops and in the discriminators they begin with. Then the balancer: with the
adversarial weight at 100, gradients balanced and summed. A run that was stopped goes on, one that
is done is not done again.

Command:  python experiments/codec/recipes.py --data DATASET --corpus runs/corpus
Needs:    pip install 'rvq_jax[metrics]'; a dataset of 16 kHz, mono, of the corpus of corpus.py
Time:     18 runs of minutes each, two hours on two cores
Expect:   with discriminators DNSMOS and Fréchet distance are better beyond the spread, PESQ is no
          worse; summed gradients at weight 100 lose the signal, balanced ones do not
"""

import argparse
import dataclasses
import os
import time
from pathlib import Path
from typing import NamedTuple

import heldout
import jax
import numpy as np
import recipes_report
import sections

from rvq_jax import files, machine
from rvq_jax.audio import io, resample
from rvq_jax.codec.discriminators import (
    DiscriminatorsConfig,
    MultiBandConfig,
    MultiPeriodConfig,
    MultiScaleSTFTConfig,
)
from rvq_jax.data import builder
from rvq_jax.evaluate import distances, embeddings, folders
from rvq_jax.systems.codec import Codec
from rvq_jax.train import log
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.optimizers import OptimizerConfig
from rvq_jax.train.runs.codec import FilterbankRun, fit_codec
from rvq_jax.train.tasks.adversarial import AdversarialConfig
from rvq_jax.train.tasks.codec_losses import CodecLossConfig

HERE = Path(__file__).parent
RATE = 16_000
SIGNALS = ("speech", "music")
WINDOWS = (1024, 512, 256)


class Arm(NamedTuple):
    """One side of a comparison, at one learning rate."""

    recipe: str
    variant: str
    rate: float
    seed: int

    @property
    def place(self) -> str:
        """The folder of its run."""
        return f"{self.recipe}_{self.variant}_{self.rate:g}_{self.seed}".replace(" ", "-")


def encodec(adversarial: float, features: float, balanced: bool = True) -> FilterbankRun:
    """EnCodec's losses, with these weights of what discriminators say."""
    judges = MultiScaleSTFTConfig(filters=8, windows=WINDOWS)
    return FilterbankRun(
        loss=CodecLossConfig(
            waveform=0.1, mel=1.0, mel_kind="encodec", balanced=balanced, commitment=5.0
        ),
        adversarial=AdversarialConfig(
            DiscriminatorsConfig(RATE, judges), weight=adversarial, features=features
        ),
    )


def dac(adversarial: float, features: float) -> FilterbankRun:
    """DAC's losses, with these weights of what discriminators say."""
    judges = DiscriminatorsConfig(
        RATE,
        stft=None,
        periods=MultiPeriodConfig(filters=(8, 16, 32, 64, 64)),
        bands=MultiBandConfig(filters=8, windows=WINDOWS),
    )
    return FilterbankRun(
        loss=CodecLossConfig(waveform=0.0, mel=15.0, mel_kind="dac", commitment=4.0),
        adversarial=AdversarialConfig(judges, "least_squares", adversarial, features, False),
    )


def alone(run: FilterbankRun) -> FilterbankRun:
    """A run without discriminators."""
    return dataclasses.replace(run, adversarial=AdversarialConfig())


# What a run is, by recipe and variant; weights are the published ones.
RUNS = {
    ("EnCodec", "adversarial"): lambda: encodec(3.0, 3.0),
    ("EnCodec", "spectral"): lambda: alone(encodec(0.0, 0.0)),
    ("DAC", "adversarial"): lambda: dac(1.0, 2.0),
    ("DAC", "spectral"): lambda: alone(dac(0.0, 0.0)),
    ("weight 100", "balanced"): lambda: encodec(100.0, 3.0),
    ("weight 100", "summed"): lambda: encodec(100.0, 3.0, balanced=False),
}
COMPARED = [key for key in RUNS if key[0] != "weight 100"]


def config_of(arm: Arm, arguments) -> FilterbankRun:
    """A run's config: both networks at the arm's rate, with the same schedule."""
    run = RUNS[arm.recipe, arm.variant]()
    betas = {"b1": 0.8, "b2": 0.99} if arm.recipe == "DAC" else {"b1": 0.5, "b2": 0.9}
    optimizer = OptimizerConfig(learning_rate=arm.rate, weight_decay=0.0, **betas)
    updates = arguments.updates
    return dataclasses.replace(
        run,
        init_from=str(arguments.begin),
        adversarial=dataclasses.replace(run.adversarial, optimizer=optimizer),
        optimizer=optimizer,
        loop=LoopConfig(updates, seed=arm.seed, checkpoint_every=updates, evaluate_every=updates),
        batch=8,
        seconds=0.5,
    )


def train(arm: Arm, arguments) -> Path:
    """The folder of a run whose codec is there, trained if it was not."""
    folder = arguments.out / arm.place
    if not (folder / "codec" / "config.json").exists():
        print(f"{arm.recipe}, {arm.variant}, rate {arm.rate:g}, seed {arm.seed}", flush=True)
        source, held = (builder.open_split(arguments.data, split) for split in ("train", "heldout"))
        run = config_of(arm, arguments)
        fit_codec(folder / "run", source, run, heldout=held).save(folder / "codec")
    return folder


def log_of(folder: Path) -> list[dict]:
    """Lines of a run's log."""
    return log.read(folder / "run" / "metrics.jsonl")


def heldout_mel(folder: Path) -> float:
    """Mel distance of a run's last evaluation, infinite for one that lost the signal."""
    found = [line["heldout"]["mel_distance"] for line in log_of(folder) if "heldout" in line]
    return found[-1] if np.isfinite(found[-1]) else np.inf


def judged(folder: Path, run: FilterbankRun) -> dict | None:
    """How discriminators fared over the last fifth of a run; None without any.

    Their loss is over that of one that says the same of real and of decoded audio: 0 where they
    tell all apart, 1 where nothing.
    """
    lines = [line for line in log_of(folder) if "discriminators" in line]
    if not run.adversarial.on:
        return None
    judges = run.adversarial.discriminators
    if run.adversarial.loss == "hinge":
        same = 2.0
    else:
        same = 0.5 * (len(judges.periods.periods) + len(judges.bands.windows))
    last = lines[-max(1, len(lines) // 5) :]
    means = {
        name: float(np.mean([line[name] for line in last]))
        for name in ("discriminators", "real_score", "decoded_score", "adversarial", "features")
    }
    return {"loss": means.pop("discriminators") / same, **means}


def frechet(codec: Codec, folder: Path) -> float:
    """Fréchet distance of log-mel statistics between pieces and what a codec makes of them."""
    real, decoded, embedding = [], [], embeddings.log_mel()
    for path in sorted(folder.glob("*.flac")):
        audio_SC, rate = io.read(path)
        audio_SC = resample.to_rate(resample.to_channels(audio_SC, 1), rate, RATE)
        back_SC = np.asarray(codec.decode(codec.encode(audio_SC[None])))[0]
        for found, one in ((real, audio_SC), (decoded, back_SC)):
            found += embedding.embed(np.nan_to_num(np.asarray(one))[None], RATE)
    return distances.distance(*distances.reduced([real, decoded], real=1)).mean


def measure(arm: Arm, arguments) -> dict:
    """What is measured of a run that is done: scores by signal, and what its log says."""
    folder, run = arguments.out / arm.place, config_of(arm, arguments)
    codec, scores = Codec.load(folder / "codec"), {}
    for signal in SIGNALS:
        data = arguments.pieces / signal
        done = folders.evaluate_codecs(
            folder / signal,
            [folder / "codec"],
            data,
            levels=[codec.config.levels],
            signal=signal,
            listened=0,
        )
        (system,) = done["systems"]
        scores[signal] = {name: x["mean"] for name, x in system["scores"].items()}
        scores[signal]["frechet"] = frechet(codec, data)
    return {
        **arm._asdict(),
        "kbps": system["kbps"],
        "parameters": sum(x.size for x in jax.tree.leaves(codec.params)),
        "seconds": log_of(folder)[-1]["seconds"],
        "scores": scores,
        "judged": judged(folder, run),
    }


def study(arguments) -> dict:
    """The sweep of rates, the seeds at the best of each, and the runs of the balancer."""
    sweep, arms = [], []
    for recipe, variant in COMPARED:
        tried = [Arm(recipe, variant, rate, 0) for rate in arguments.rates]
        found = [heldout_mel(train(arm, arguments)) for arm in tried]
        sweep += [{**arm._asdict(), "mel": mel} for arm, mel in zip(tried, found, strict=True)]
        best = arguments.rates[int(np.argmin(found))]
        arms += [Arm(recipe, variant, best, seed) for seed in range(arguments.seeds)]
    rate = next(arm.rate for arm in arms if arm[:2] == ("EnCodec", "adversarial"))
    arms += [Arm(*key, rate, 0) for key in RUNS if key not in COMPARED]
    for arm in arms:
        train(arm, arguments)
    return {"sweep": sweep, "runs": [measure(arm, arguments) for arm in arms]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="dataset of rvq-jax data build")
    parser.add_argument("--corpus", type=Path, required=True, help="what corpus.py made")
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"), help="of all runs")
    parser.add_argument("--begin", default="builtin", help="codec that all runs go on from")
    parser.add_argument("--updates", type=int, default=500, help="of every run")
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3])
    parser.add_argument("--seeds", type=int, default=3, help="of every side")
    arguments = parser.parse_args()
    arguments.pieces = arguments.corpus / "heldout"
    began = time.perf_counter()
    os.nice(10)
    clips = heldout.check_training(arguments.data, arguments.corpus)
    begun = Codec.load(arguments.begin).fingerprint().hex()
    results = {"updates": arguments.updates, "clips": clips, "begun": begun, **study(arguments)}
    results |= machine.provenance(began)
    files.write_json(HERE / "recipes.json", results)
    sections.write("recipes", recipes_report.markdown(results))


if __name__ == "__main__":
    main()
