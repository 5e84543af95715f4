"""From conditions to the features that the layers of a token model read."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx

from rvq_jax.axes import place
from rvq_jax.lm.conditions import Condition, Conditions, ConditionSpec
from rvq_jax.lm.stack import layers, scan_layers
from rvq_jax.lm.transformer import Block, LayerNorm, sinusoids, weight
from rvq_jax.typing import Array


class Features(NamedTuple):
    """Conditions as the layers read them."""

    prefix: Array | None  # [B, P, D] before the codes, P = 0 without one; None without conditions
    prefix_mask: Array | None  # [B, P] bool
    cross: tuple[Array, Array] | None  # features [B, L, D] to attend to, and their mask [B, L]
    frames: Array | None  # [B, F, D], added to what is fed at each frame


class CaptionEncoder(nnx.Module):
    """Bytes `[B, L]` to features `[B, L, D]`: embedding, positions, bidirectional blocks.

    Padding is masked, so a caption's features do not depend on the length it is padded to. An
    empty caption gives zeros: the null condition of classifier-free guidance.
    """

    def __init__(self, dim: int, heads: int, count: int, rngs: nnx.Rngs, *, stacked: bool):
        self.embed = weight(rngs, (257, dim), (None, "embed"), 1)

        def make(rngs):
            return Block(dim, heads, 4 * dim, rngs, cross=False)

        # None at all have no stack: there are no arrays without numbers in a checkpoint.
        self.blocks = layers(count, make, rngs, stacked=stacked and count > 0)
        self.norm = LayerNorm(dim)

    def __call__(self, given: Condition, dtype=jnp.float32) -> tuple[Array, Array]:
        """Features `[B, L, D]`, zero where the mask `[B, L]` is False, and the mask."""
        text_BL = jnp.where(given.kept[:, None], given.states, 0)
        mask_BL = text_BL > 0
        x_BLD = self.embed[...][text_BL] + sinusoids(text_BL.shape[1], self.embed.shape[1])[None]
        x_BLD = x_BLD.astype(dtype)
        x_BLD = scan_layers(self.blocks, x_BLD, lambda block, x: block(x, seen_BS=mask_BL))
        return self.norm(x_BLD) * mask_BL[..., None].astype(dtype), mask_BL


class StateReader(nnx.Module):
    """States that were made elsewhere to features of the model's width."""

    def __init__(self, spec: ConditionSpec, dim: int, dtype: str, rngs: nnx.Rngs):
        self.null = spec.null
        self.project = linear(spec.dim, dim, dtype, rngs) if spec.projects(dim) else None

    def __call__(self, given: Condition, dtype=jnp.float32) -> tuple[Array, Array]:
        """Features `[B, L, D]` and the mask `[B, L]`.

        What is dropped stays in the mask, unlike padding: attention to zeros gives zeros, and a
        prefix keeps its places.
        """
        states_BLE, kept_B11 = given.states, given.kept[:, None, None]
        if self.null == "first_bin":
            first = jnp.arange(states_BLE.shape[-1]) == 0
            states_BLE = jnp.where(kept_B11, states_BLE, first[None, None].astype(states_BLE.dtype))
        states_BLE = states_BLE.astype(dtype)
        x_BLD = states_BLE if self.project is None else self.project(states_BLE)
        if self.null == "zeros":
            x_BLD = jnp.where(given.mask[..., None] & kept_B11, x_BLD, 0)
        return x_BLD, given.mask


class TokenReader(nnx.Module):
    """Tokens at a rate that divides the frames': an embedding of each, repeated."""

    def __init__(self, spec: ConditionSpec, dim: int, rngs: nnx.Rngs):
        self.repeat = spec.repeat
        self.embed = weight(rngs, (spec.vocab, dim), ("vocab", "embed"), 1)

    def __call__(self, given: Condition, dtype=jnp.float32) -> tuple[Array, Array]:
        """Features `[B, L · repeat, D]`, zero where there is no token, and the mask."""
        mask_BL = given.mask & given.kept[:, None] & (given.states >= 0)
        table_VD = place(self.embed[...], None, None)
        x_BLD = table_VD[jnp.clip(given.states, 0, len(table_VD) - 1)].astype(dtype)
        x_BLD = jnp.where(mask_BL[..., None], x_BLD, 0)
        return jnp.repeat(x_BLD, self.repeat, axis=1), jnp.repeat(mask_BL, self.repeat, axis=1)


def readers(config, rngs: nnx.Rngs, *, stacked: bool) -> nnx.Dict:
    """A reader of each condition by its name.

    Args:
      config: with conditions, dim, heads, caption_layers and dtype.
      rngs: of the initial weights.
      stacked: as of `stack.layers`.

    Returns:
      The readers.
    """

    def reader(spec: ConditionSpec) -> nnx.Module:
        if spec.vocab is not None:
            return TokenReader(spec, config.dim, rngs)
        if spec.dim is None:
            layers = config.caption_layers
            return CaptionEncoder(config.dim, config.heads, layers, rngs, stacked=stacked)
        return StateReader(spec, config.dim, config.dtype, rngs)

    return nnx.Dict({spec.name: reader(spec) for spec in config.conditions})


def linear(size: int, dim: int, dtype: str, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear layer with a bias, its parameters with logical axis names.

    Args:
      size: features that go in.
      dim: D, features that come out.
      dtype: of what it computes; parameters stay float32.
      rngs: of the initial weights.

    Returns:
      The layer.
    """
    kernel = nnx.with_metadata(nnx.initializers.lecun_normal(), axes=(None, "embed"))
    bias = nnx.with_metadata(nnx.initializers.zeros_init(), axes=("embed",))
    return nnx.Linear(
        size, dim, dtype=jnp.dtype(dtype), kernel_init=kernel, bias_init=bias, rngs=rngs
    )


def read(
    readers: dict[str, nnx.Module],
    specs: Sequence[ConditionSpec],
    conditions: Conditions,
    dtype: str,
    *,
    attend_padding: bool = False,
) -> Features:
    """Features of all conditions, each read in its way.

    Args:
      readers: as of the function `readers`, by the name of each condition.
      specs: how each is read; prefixes follow one another in this order.
      conditions: by name, of B rows.
      dtype: of the features.
      attend_padding: padding is attended to as well, as audiocraft does.

    Returns:
      The features of each way.

    Raises:
      ValueError: other names than those of the specs.
    """
    if conditions.keys() != {spec.name for spec in specs}:
        names = ", ".join(spec.name for spec in specs)
        raise ValueError(f"the model is conditioned on {names}; got {', '.join(conditions)}")
    found: dict[str, list] = {"cross": [], "prefix": [], "frame": []}
    for spec in specs:
        x_BLD, mask_BL = readers[spec.name](conditions[spec.name], dtype)
        if attend_padding:
            mask_BL = jnp.ones_like(mask_BL)
        found[spec.mechanism].append((x_BLD, mask_BL))
    joined = {mechanism: _joined(parts) for mechanism, parts in found.items()}
    some = next((part for parts in found.values() for part in parts), None)
    prefix = joined["prefix"] or ((None, None) if some is None else tuple(x[:, :0] for x in some))
    frames = sum(x_BFD for x_BFD, _ in found["frame"]) if found["frame"] else None
    return Features(*prefix, joined["cross"], frames)


def _joined(parts: list[tuple[Array, Array]]) -> tuple[Array, Array] | None:
    """Features and masks one after another; None if there are none."""
    if len(parts) < 2:
        return parts[0] if parts else None
    return tuple(jnp.concatenate(x, axis=1) for x in zip(*parts, strict=True))
