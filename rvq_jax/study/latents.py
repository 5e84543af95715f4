"""Latents of the study's codec: what quantizers are compared on, apart from any training."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from rvq_jax.codec.autoencoder import latents
from rvq_jax.data import builder, loader
from rvq_jax.study.quickstart import StudyConfig
from rvq_jax.systems.codec import Codec
from rvq_jax.train.runs import train_codec


def study_latents(
    folder: Path, train: int, heldout: int, data: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out latents `[M, D]`, as many as asked for or as there are.

    Of the codec that the quickstart trains on a folder of audio, or on the built-in corpus for
    None; trained in `folder`, or found there.
    """
    run = StudyConfig().codec
    channels = run.codec.seanet.channels
    dataset = builder.build(data, folder / "dataset", run.codec.rate, channels, run.codec.hop)
    split = builder.open_split(dataset, "train")
    codec = train_codec(folder / "codec", split, run)
    return vectors(codec, split, train), vectors(
        codec, builder.open_split(dataset, "heldout"), heldout
    )


def vectors(codec: Codec, source, count: int) -> np.ndarray:
    """`count` latents `[M, D]` of records of audio, evenly from all whole two-second windows."""
    config = codec.config
    samples = 2 * config.rate // config.hop * config.hop
    parts = []
    for batch in tqdm(loader.segments(source, samples, 32), desc="latents", unit="batch"):
        full_B = batch["mask"].all(axis=1)
        latents_BFD = np.asarray(latents(config, codec.params, batch["audio"]))
        parts.append(latents_BFD[full_B].reshape(-1, latents_BFD.shape[-1]))
    every_MD = np.concatenate(parts)
    return every_MD[:: max(1, len(every_MD) // count)][:count]
