"""The study's codec half: the built-in one, and what each level is worth."""

import dataclasses
import math

import numpy as np

from rvq_jax import builtin, metrics, progress, quantize
from rvq_jax.codec.autoencoder import latents
from rvq_jax.data import loader
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.systems.codec import Codec


def builtin_codec(levels: int) -> Codec:
    """The built-in codec with the first of its levels alone; raises UserError if it has fewer."""
    codec = Codec.load(builtin.WORD)
    if levels > codec.config.levels:
        raise UserError(f"levels is {levels}, and the built-in codec has {codec.config.levels}")
    config = dataclasses.replace(codec.config, levels=levels)
    return Codec(config, codec.params, codec.quantizer.first(levels))


def by_level(codec: Codec, heldout, train_codes: CodeSet, batches: int = 12) -> list[dict]:
    """Measures what each level of a codec is worth.

    Held-out audio is read in whole windows of two seconds, in batches of eight.

    Args:
      codec: codec to measure, with K levels.
      heldout: random access to records of held-out audio.
      train_codes: codes of the training set, of which the use of each level is counted.
      batches: number of batches to read at most.

    Returns:
      K dicts, one for each number of levels: kbps, and SI-SDR in dB and mel distance of audio that
      is decoded from so many levels; of the last of them the share of the latents' energy that it
      explains, and use, entropy in bits and perplexity of its codes.
    """
    config = codec.config
    samples = 2 * config.rate // config.hop * config.hop
    rows = [{"si_sdr_db": [], "mel_distance": [], "residual": []} for _ in range(config.levels)]
    weights, energies = [], []
    walk = list(zip(range(batches), loader.segments(heldout, samples, 8), strict=False))
    for _, batch in progress.bar(walk, desc="reconstruction", unit="batch"):
        audio, mask_BS = batch["audio"], batch["mask"]
        # Whole windows only: a short tail would weigh as much as a window.
        full_B = mask_BS.all(axis=1)
        if not full_B.any():
            continue
        audio = audio[full_B]
        latents_BFD = latents(config, codec.params, audio)
        stats = quantize.quantize(codec.quantizer, latents_BFD).stats
        coded = codec.encode(audio)
        weights.append(len(audio))
        energies.append(float(stats.energy[0]))
        for k, row in enumerate(rows):
            decoded = codec.decode(coded._replace(codes=coded.codes[:, : k + 1]))
            pair = [np.asarray(x).mean(axis=2) for x in (audio, decoded)]
            row["si_sdr_db"].append(float(metrics.si_sdr(*pair).mean()))
            row["mel_distance"].append(float(metrics.mel_distance(*pair, config.rate).mean()))
            row["residual"].append(float(stats.residual[k]))
    energy = np.average(energies, weights=weights)
    use = metrics.code_use(train_codes.codes, config.codebook_size)
    before, table = energy, []
    for k, row in enumerate(rows):
        after = np.average(row["residual"], weights=weights)
        bits = math.log2(config.codebook_size) * config.frame_rate * (k + 1)
        table.append(
            {
                "level": k + 1,
                "kbps": bits / 1000,
                "si_sdr_db": float(np.average(row["si_sdr_db"], weights=weights)),
                "mel_distance": float(np.average(row["mel_distance"], weights=weights)),
                "energy_explained": float((before - after) / energy),
                **use[k],
            }
        )
        before = after
    return table
