"""Residual vector quantization in JAX: quantizers, codecs, patterns and token models."""
