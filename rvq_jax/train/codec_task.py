"""What training a codec means: its loss, and codebooks that learn beside the gradient."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax import quantize
from rvq_jax.codec import losses
from rvq_jax.codec.codec import Autoencoder, CodecConfig, autoencoder_graph, latents
from rvq_jax.train.state import Task
from rvq_jax.typing import Key


@dataclass(frozen=True)
class CodecLossConfig:
    """Weights of the codec's loss (Défossez et al. 2022, §3.4, without the discriminators)."""

    waveform: float = 10.0  # L1 on samples
    mel: float = 1.0  # multi-scale mel
    commitment: float = 1.0  # mean over levels, relative to the latents' energy
    dropout: float = 0.5  # share of items trained with a random prefix of the levels
    decay: float = 0.99  # of the codebooks' running means
    expiry: float = 0.1  # share of uniform use below which a code is replaced


def codec_task(config: CodecConfig, weights: CodecLossConfig, start_batches: int = 8) -> Task:
    """Reconstruction of batches of audio `[B, S, C]` with mask `[B, S]` (False: padding)."""

    def init(key: Key):
        return nnx.state(Autoencoder(config, nnx.Rngs(params=key)), nnx.Param)

    def start(params, codebooks, batches, key):
        frames = [latents(config, params, batch["audio"]) for batch in batches]
        vectors = jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in frames])
        return jax.jit(quantize.start)(key, codebooks, vectors)

    def loss(params, codebooks, batch, key):
        model = nnx.merge(autoencoder_graph(config), params)
        audio, mask_BS = batch["audio"], batch["mask"]
        latents_BFD = model.encoder(audio)
        frames = latents_BFD.shape[1]
        # A frame counts if its first sample does.
        mask_BF = mask_BS[:, :: config.hop][:, :frames]
        out = quantize.quantize(
            codebooks,
            latents_BFD,
            key=key,
            train=True,
            mask=mask_BF,
            dropout=weights.dropout,
            decay=weights.decay,
            expiry=weights.expiry,
        )
        decoded = model.decoder(out.latents)[:, : audio.shape[1]] * mask_BS[..., None]
        waveform = losses.l1(audio, decoded)
        mel = losses.multi_scale_mel(audio, decoded, config.rate)
        # Relative to the energy, or a small latent would be the cheapest way to commit.
        energy = jax.lax.stop_gradient(out.stats.energy[0]) / config.seanet.dim
        commitment = out.commitment.mean() / (energy + 1e-6)
        total = weights.waveform * waveform + weights.mel * mel + weights.commitment * commitment
        explained_K = 1.0 - out.stats.residual / (out.stats.energy[0] + 1e-9)
        metrics = {
            "waveform": waveform,
            "mel": mel,
            "commitment": commitment,
            "use": out.stats.use,
            "entropy": out.stats.entropy,
            "explained": explained_K,
        }
        return total, (out.state, metrics)

    books = quantize.init(jax.random.key(0), config.levels, config.size, config.seanet.dim)
    return Task(init, books, loss, start, start_batches)
