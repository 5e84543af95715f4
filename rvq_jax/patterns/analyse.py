"""What a pattern costs and what it can at best learn."""

from dataclasses import dataclass

import numpy as np

from rvq_jax.patterns.pattern import Pattern


@dataclass(frozen=True)
class Analysis:
    """Facts of a pattern, and its optimum where the source's distribution is known."""

    steps: int  # forwards of the model for these frames
    together: list[list[tuple[int, int]]]  # per step, the codes (k, f) predicted at once
    bits_per_frame: float | None  # the best any model with this pattern can reach


def analyse(pattern: Pattern, joint: np.ndarray | None = None) -> Analysis:
    """Steps, which codes are predicted together, and the exact optimum in bits per frame.

    joint: probabilities of all sequences, K · F axes of size N, axis k · F + f for code (k, f).
    A model predicts the codes of a step independently of each other given all earlier steps, so
    its best is the sum over codes of H(code | codes of earlier steps), by enumeration; what that
    exceeds the joint's entropy is the price of predicting together.
    Raises ValueError if the joint has another number of axes or does not sum to 1.
    """
    step_of = np.asarray(pattern.step_of)
    levels, frames = step_of.shape
    together = [
        [(int(k), int(f)) for k, f in np.argwhere(step_of == step)] for step in range(pattern.steps)
    ]
    if joint is None:
        return Analysis(pattern.steps, together, None)
    if joint.ndim != levels * frames or not np.isclose(joint.sum(), 1.0):
        raise ValueError(
            f"joint must have levels · frames = {levels * frames} axes and sum to 1, "
            f"got {joint.ndim} axes and sum {joint.sum():.6g}"
        )
    bits, past = 0.0, []
    for codes in together:
        now = [k * frames + f for k, f in codes]
        known = _entropy(joint, past)
        bits += sum(_entropy(joint, [*past, code]) - known for code in now)
        past += now
    return Analysis(pattern.steps, together, bits / frames)


def _entropy(joint: np.ndarray, axes: list[int]) -> float:
    """Entropy in bits of the marginal over these axes."""
    others = tuple(axis for axis in range(joint.ndim) if axis not in axes)
    p = joint.sum(axis=others)
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())
