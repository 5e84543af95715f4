"""DAC's published sizes (Kumar et al. 2023)."""

from rvq_jax.codec.dac import DACConfig


def dac_16khz() -> DACConfig:
    """16 kHz, 50 frames per second, 12 levels (6 kbps)."""
    return DACConfig(16_000, ratios=(2, 4, 5, 8), levels=12)


def dac_24khz() -> DACConfig:
    """24 kHz, 75 frames per second, up to 32 levels (24 kbps)."""
    return DACConfig(24_000, ratios=(2, 4, 5, 8), levels=32)


def dac_44khz() -> DACConfig:
    """44.1 kHz, 86 frames per second, 9 levels (7.8 kbps)."""
    return DACConfig()


def dac_44khz_16kbps() -> DACConfig:
    """44.1 kHz, 86 frames per second, 18 levels (15.5 kbps), latents of 128 features only."""
    return DACConfig(dim=128, levels=18)
