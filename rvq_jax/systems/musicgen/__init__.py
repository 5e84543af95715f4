"""MusicGen (Copet et al. 2023): captions and melodies → interleaved codes → audio."""

from rvq_jax.systems.musicgen.model import MusicGen

__all__ = ["MusicGen"]
