"""What training a codec means: its loss, and codebooks that learn beside the gradient."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax import metrics, quantize
from rvq_jax.codec import losses
from rvq_jax.codec.autoencoder import graph, latents
from rvq_jax.codec.config import CodecConfig
from rvq_jax.quantize import Codebooks
from rvq_jax.train.state import Task
from rvq_jax.typing import Array, Key


@dataclass(frozen=True)
class CodecLossConfig:
    """Weights of the codec's loss (Défossez et al. 2022, §3.4, without the discriminators)."""

    waveform: float = 10.0  # L1 on samples
    mel: float = 0.6  # multi-scale mel
    commitment: float = 0.1  # mean over levels, relative to the latents' spread
    autoencoder_warmup: int = 250  # updates without a quantizer; then codebooks start on latents
    quantizer_dropout: float = 0.5  # share of items trained with a random prefix of the levels
    decay: float = 0.95  # of the codebooks' running means
    expiry: float = 0.1  # share of uniform use below which a code is replaced


class Quantizer(NamedTuple):
    """Codebooks, and whether they have started: before that latents pass as they are."""

    books: Codebooks
    started: Array


def codec_task(config: CodecConfig, weights: CodecLossConfig, codebook_batches: int = 8) -> Task:
    """Reconstruction of batches of audio `[B, S, C]` with mask `[B, S]` (False: padding)."""

    def init(key: Key):
        return nnx.state(config.build(nnx.Rngs(params=key)), nnx.Param)

    def init_codebooks(params, quantizer, batches, key):
        frames = [latents(config, params, batch["audio"]) for batch in batches]
        vectors = jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in frames])
        books = jax.jit(quantize.start)(key, quantizer.books, vectors)
        return Quantizer(books, jnp.array(True))

    def loss(params, quantizer, batch, key):
        model = nnx.merge(graph(config), params)
        audio, mask_BS = batch["audio"], batch["mask"]
        latents_BFD = model.encoder(audio)
        frames = latents_BFD.shape[1]
        # A frame counts if its first sample does.
        mask_BF = mask_BS[:, :: config.hop][:, :frames]
        out = quantize.quantize(
            quantizer.books,
            latents_BFD,
            key=key,
            train=True,
            mask=mask_BF,
            learning=quantize.EMA(weights.decay, weights.expiry),
            dropout=quantize.Dropout(weights.quantizer_dropout),
        )
        latents_BFD = jnp.where(quantizer.started, out.latents, latents_BFD)
        decoded = model.decoder(latents_BFD)[:, : audio.shape[1]] * mask_BS[..., None]
        waveform = losses.l1(audio, decoded)
        mel = losses.multi_scale_mel(audio, decoded, config.rate)
        # Relative to the spread of the latents: in absolute terms the cheapest way to commit would
        # be small latents, and relative to their energy a large constant.
        spread = jax.lax.stop_gradient(jnp.var(latents_BFD, axis=(0, 1)).mean())
        commitment = quantizer.started * out.commitment.mean() / (spread + 1e-6)
        total = weights.waveform * waveform + weights.mel * mel + weights.commitment * commitment
        explained_K = 1.0 - out.stats.residual / (spread * config.dim + 1e-9)
        found = {
            "waveform": waveform,
            "mel": mel,
            "commitment": commitment,
            "use": out.stats.use,
            "entropy": out.stats.entropy,
            "explained": explained_K,
        }
        return total, (Quantizer(out.state, quantizer.started), found)

    def evaluate(params, quantizer, batch):
        model = nnx.merge(graph(config), params)
        audio, mask_BS = batch["audio"], batch["mask"]
        # By the codebooks also where they have not started: so the codec would be saved.
        out = quantize.quantize(quantizer.books, model.encoder(audio))
        decoded = model.decoder(out.latents)[:, : audio.shape[1]] * mask_BS[..., None]
        # Of a crop with padding the losses are means over all of it: that much is not theirs.
        share_B = mask_BS.mean(axis=1)
        waveform_B = jnp.abs(audio - decoded).mean(axis=(1, 2))
        mel_B = jax.vmap(lambda *pair: losses.multi_scale_mel(*pair, config.rate))(
            audio[:, None], decoded[:, None]
        )
        signals = audio.mean(axis=-1), decoded.mean(axis=-1)
        found = {
            "loss": weights.waveform * waveform_B + weights.mel * mel_B,
            "waveform": waveform_B,
            "mel": mel_B,
            "si_sdr": share_B * metrics.si_sdr(*signals, mask_BS),
            "mel_distance": share_B * metrics.mel_distance(*signals, config.rate, mask_BS),
        }
        return {name: x_B.sum() for name, x_B in found.items()}, share_B.sum()

    books = config.quantizer(jax.random.key(0))
    return Task(
        init,
        Quantizer(books, jnp.array(False)),
        loss,
        init_codebooks,
        codebook_batches,
        weights.autoencoder_warmup,
        evaluate=evaluate,
    )
