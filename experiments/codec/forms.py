"""Which form of codec learns waveforms on a processor: EnCodec's SEANet, or filterbanks.

Both have about four million weights and the same latents, 48 numbers at 50 frames per second; no
quantizer stands between. They see the same crops under the same losses, those with which the
built-in codec begins, for the same processor seconds. What counts is L1 relative to that of
silence, over the last tenth of the updates: 1 where nothing of the waveform is learned.

Command:  python experiments/codec/forms.py --data runs/audio_16khz --corpus runs/corpus
Time:     five minutes on two cores
Expect:   filterbanks make four times as many updates, and are below 1 where the SEANet is not
"""

import argparse
import time
from pathlib import Path

import heldout
import jax
import numpy as np
import sections
from tqdm import tqdm

from rvq_jax import machine
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.filterbank import FilterbankConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.data import builder, loader
from rvq_jax.train import sharding
from rvq_jax.train.runs.batches import one_device
from rvq_jax.train.state import OptimizerConfig, make_program
from rvq_jax.train.tasks.codec import Recipe, codec_task
from rvq_jax.train.tasks.codec_losses import CodecLossConfig

BATCH, SAMPLES = 8, 16_000
SEANET = SEANetConfig(
    dim=48,
    filters=24,
    ratios=(2, 4, 5, 8),
    residual_layers=2,
    dilation_base=3,
    true_skip=True,
    lstm_layers=1,
    pad_mode="constant",
)
FORMS = {
    "SEANet": CodecConfig(seanet=SEANET, levels=8, codebook_size=1024),
    "filterbanks": FilterbankConfig(),
}


def train(config, source, rate: float, seconds: float) -> dict:
    """What a codec without quantizer reaches in so many processor seconds."""
    loss = CodecLossConfig(waveform=200.0, mel=0.6, commitment=0.0, autoencoder_warmup=10**9)
    optimizer = OptimizerConfig(rate, 100, "constant", b1=0.8, b2=0.99, weight_decay=0.0)
    task = codec_task(Recipe(config, loss, optimizer=optimizer))
    program = make_program(task, optimizer, 1, mesh := one_device())
    state = program.init(jax.random.key(0), task.aux, None)
    batches, found, began = loader.batches(source, loader.cut_audio(SAMPLES), BATCH, 0), [], 0.0
    with tqdm(desc=type(config).__name__, unit="update") as bar:
        while not found or time.process_time() - began < seconds:
            batch = next(batches)
            state, metrics = program.step(state, sharding.place_batch(batch, mesh))
            found.append(float(metrics["waveform"]) / np.abs(batch["audio"]).mean())
            began = began or time.process_time()  # after the first, which compiles
            bar.update()
    size = sum(x.size for x in jax.tree.leaves(state.params))
    last = found[-max(1, len(found) // 10) :]
    return {"rate": rate, "weights": size, "updates": len(found), "l1": float(np.mean(last))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="dataset of rvq-jax data build")
    parser.add_argument("--corpus", type=Path, required=True, help="what corpus.py made")
    parser.add_argument("--seconds", type=float, default=40.0, help="of a processor, for each")
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3])
    arguments = parser.parse_args()
    heldout.check_training(arguments.data, arguments.corpus)
    source, began = builder.open_split(arguments.data, "train"), time.perf_counter()
    lines = [
        "# SEANet or filterbanks, on a processor",
        "",
        f"{arguments.seconds:.0f} processor seconds each, without a quantizer, at the best of the "
        f"rates {', '.join(f'{rate:g}' for rate in arguments.rates)}; L1 relative to silence.",
        "",
        "| form | million weights | rate | updates | L1 |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, config in FORMS.items():
        tried = [train(config, source, rate, arguments.seconds) for rate in arguments.rates]
        best = min(tried, key=lambda one: one["l1"])
        size, rate = f"{best['weights'] / 1e6:.1f}", f"{best['rate']:g}"
        lines.append(f"| {name} | {size} | {rate} | {best['updates']} | {best['l1']:.2f} |")
    lines += ["", machine.sentence(machine.provenance(began))]
    sections.write("forms", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
