"""Audio ↔ latents, and the codec: encoder, residual quantizer, decoder."""

from rvq_jax.codec.codec import Codec, CodecConfig, Coded

__all__ = ["Codec", "CodecConfig", "Coded"]
