"""The study's codec and its latents: what codes and quantizers are compared on."""

from pathlib import Path

import numpy as np

from rvq_jax import progress
from rvq_jax.codec.autoencoder import latents
from rvq_jax.data import builder, loader
from rvq_jax.study.quickstart import StudyConfig
from rvq_jax.systems.codec import Codec
from rvq_jax.train.runs import train_codec


def study_codec(folder: Path, data: Path | None = None) -> tuple[Codec, Path]:
    """The codec that the quickstart trains on a folder of audio, and the dataset made of it.

    On the built-in corpus for None. Trained in `folder`, or found there.
    """
    run = StudyConfig().codec
    sizes = run.codec.rate, run.codec.channels, run.codec.hop
    dataset = builder.build(data, folder / "dataset", *sizes)
    return train_codec(folder / "codec", builder.open_split(dataset, "train"), run), dataset


def study_latents(
    folder: Path, train: int, heldout: int, data: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Encodes training and held-out audio to latents, with the codec of `study_codec`.

    Args:
      folder: folder in which the codec and the dataset are made, or found.
      train: number of latents of the training set, at most.
      heldout: number of latents of held-out audio, at most.
      data: folder of audio files; None for the built-in corpus.

    Returns:
      Training and held-out latents, each `[M, D]`.
    """
    codec, dataset = study_codec(folder, data)
    counts = {"train": train, "heldout": heldout}
    return tuple(vectors(codec, builder.open_split(dataset, x), n) for x, n in counts.items())


def vectors(codec: Codec, source, count: int) -> np.ndarray:
    """`count` latents `[M, D]` of records of audio, evenly from all whole two-second windows."""
    config = codec.config
    samples = 2 * config.rate // config.hop * config.hop
    parts = []
    for batch in progress.bar(loader.segments(source, samples, 32), desc="latents", unit="batch"):
        full_B = batch["mask"].all(axis=1)
        latents_BFD = np.asarray(latents(config, codec.params, batch["audio"]))
        parts.append(latents_BFD[full_B].reshape(-1, latents_BFD.shape[-1]))
    every_MD = np.concatenate(parts)
    return every_MD[:: max(1, len(every_MD) // count)][:count]
