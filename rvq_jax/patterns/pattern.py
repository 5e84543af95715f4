"""A pattern is one integer table: the sequence step at which each code is predicted."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from rvq_jax.trees import pytree
from rvq_jax.typing import Array, Codes, Tokens


@pytree
@dataclass(frozen=True, eq=False)
class Pattern:
    """Where every code sits in the sequence, and its inverse.

    Build one with `Pattern.of` or a named builder. A pattern is a pytree of its two tables and
    nothing else: passed to a jitted function it is an argument, so that another pattern of the
    same shape runs the same program.
    """

    step_of: Array  # [K, F] int32: the step at which code (k, f) is predicted
    frame_at: Array  # [K, T] int32: the frame whose code level k has at step t, -1 for none

    @classmethod
    def of(cls, step_of: np.ndarray, steps: int | None = None) -> "Pattern":
        """The pattern of a table `[K, F]`, in T = max + 1 steps or more.

        Raises ValueError unless every row is strictly increasing within [0, T).
        """
        step_of = np.asarray(step_of, np.int32)
        if step_of.ndim != 2 or step_of.size == 0:
            raise ValueError(f"step_of must be [levels, frames], got shape {step_of.shape}")
        if (np.diff(step_of, axis=1) <= 0).any():
            level = int(np.argwhere(np.diff(step_of, axis=1) <= 0)[0, 0])
            raise ValueError(f"step_of must increase strictly in frames: level {level} does not")
        least = int(step_of.max()) + 1
        steps = least if steps is None else steps
        if step_of.min() < 0 or steps < least:
            raise ValueError(f"step_of must lie in [0, {steps}), got {step_of.min()}..{least - 1}")
        levels, frames = step_of.shape
        frame_at = np.full((levels, steps), -1, np.int32)
        frame_at[np.arange(levels)[:, None], step_of] = np.arange(frames, dtype=np.int32)
        return cls(step_of, frame_at)

    @property
    def levels(self) -> int:
        return self.step_of.shape[0]

    @property
    def frames(self) -> int:
        return self.step_of.shape[1]

    @property
    def steps(self) -> int:
        return self.frame_at.shape[1]

    @property
    def valid(self) -> Array:
        """`[K, T]` bool: whether level k has a code at step t."""
        return self.frame_at >= 0

    def pad(self, steps: int) -> "Pattern":
        """The same pattern with empty steps at the end, T = steps: patterns padded alike share one
        compiled program. Raises ValueError if it does not fit."""
        return Pattern.of(self.step_of, steps)

    def interleave(self, codes: Codes, fill: int | Array) -> Tokens:
        """Tokens `[B, K, T]` of codes `[B, K, F]`, whatever they are; empty places hold `fill`."""
        _check(codes, (self.levels, self.frames), "codes", "[B, levels, frames]")
        gathered_BKT = _take(codes, jnp.maximum(self.frame_at, 0))
        return jnp.where(self.valid[None], gathered_BKT, fill)

    def deinterleave(self, tokens: Tokens) -> Codes:
        """Codes `[B, K, F]` of tokens `[B, K, T]`; logits `[B, K, T, N]` give `[B, K, F, N]`."""
        _check(tokens, (self.levels, self.steps), "tokens", "[B, levels, steps]")
        return _take(tokens, self.step_of)

    def visible(self) -> np.ndarray:
        """`[K, F, K, F]` bool: whether the prediction of the first code may see the second.

        It sees what earlier steps hold, and nothing of its own step.
        """
        step_of = np.asarray(self.step_of)
        return step_of[None, None] < step_of[:, :, None, None]


def _take(x_BKX: Array, index_KY: Array) -> Array:
    index = index_KY.reshape((1,) + index_KY.shape + (1,) * (x_BKX.ndim - 3))
    return jnp.take_along_axis(x_BKX, index, axis=2)


def _check(array: Array, want: tuple[int, int], name: str, letters: str) -> None:
    if array.ndim < 3 or array.shape[1:3] != want:
        raise ValueError(f"{name} must be {letters} = [B, {want[0]}, {want[1]}], got {array.shape}")
