"""Signals that tests feed."""

import numpy as np


def noise(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Normal noise, float32."""
    return np.float32(scale) * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
