"""MusicGen's published sizes (Copet et al. 2023): 4 levels of 2048 codes at 50 frames a second."""

from rvq_jax.lm.model import LMConfig


def musicgen_small() -> LMConfig:
    """The model called 300M: 420 million parameters, without its T5 and codec."""
    return _sized(dim=1024, layers=24, heads=16)


def musicgen_medium() -> LMConfig:
    """The 1.5B model: 1.84 billion parameters."""
    return _sized(dim=1536, layers=48, heads=24)


def musicgen_large() -> LMConfig:
    """The 3.3B model: 3.26 billion parameters."""
    return _sized(dim=2048, layers=48, heads=32)


def _sized(dim: int, layers: int, heads: int) -> LMConfig:
    """30 seconds of 32 kHz audio at once, conditioned on the states of a t5-base."""
    return LMConfig(
        levels=4,
        codebook_size=2048,
        dim=dim,
        layers=layers,
        heads=heads,
        mlp_dim=4 * dim,
        positions="sinusoidal",
        text_dim=768,
        window=1500,
    )
