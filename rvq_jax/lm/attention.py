"""Attention of whole sequences: XLA's form, or kernels of libraries that keep no scores in memory.

XLA's form is the oracle, and what runs wherever there is no kernel. Which one a program holds is
settled when it is traced, by the devices of the mesh that it is traced for: a plan for TPUs made
on a laptop holds the kernel, and no program holds both.
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from rvq_jax.axes import MESH, meshed, spec
from rvq_jax.typing import Array

Form = Literal["auto", "xla", "fused"]
NAME = "attention"  # of what the backward pass may keep (see `stack.scan_layers`)
CAUSAL = "causal_attention"  # and the number of steps: the name of XLA's form in a program
LEAST = 256  # steps and positions below which scores are small, and a kernel pays nothing
BLOCK = 512  # of queries and of keys at most; both are padded to blocks of whole lanes
LANES = 128


def attend(
    q_BTHE: Array,
    k_BSGE: Array,
    v_BSGE: Array,
    *,
    causal: bool = False,
    mask: Array | None = None,
    seen_BS: Array | None = None,
    form: Form = "auto",
) -> Array:
    """Attends from queries to keys and values (Vaswani et al. 2017).

    Args:
      q_BTHE: queries.
      k_BSGE: keys, of G heads of which each serves H / G neighbouring queries.
      v_BSGE: values.
      causal: a query sees the positions up to its own; S is T then.
      mask: what else hides, `[B or 1, H or 1, T or 1, S]` bool; such masks have no kernel.
      seen_BS: positions that are no padding, of which no query sees any; None for all. What comes
        of a query that stands on padding is not defined.
      form: XLA's form, a kernel wherever there is one (on a CPU interpreted, slowly), or by what
        the program is traced for: kernels on TPUs and GPUs where sequences are long.

    Returns:
      `[B, T, H, E]`.
    """
    made = _kernel(q_BTHE, k_BSGE, causal, mask, seen_BS, form)
    if made is None:
        return checkpoint_name(_xla(q_BTHE, k_BSGE, v_BSGE, causal, mask, seen_BS), NAME)
    given = [q_BTHE, k_BSGE, v_BSGE] + ([] if seen_BS is None else [seen_BS])
    if meshed():
        # A kernel is one device's: each has its own rows and heads.
        mesh = jax.sharding.get_abstract_mesh()
        axes = [("batch", None, "heads", None)] * 3 + [("batch", None)]
        specs = tuple(spec(a, x.shape, mesh) for a, x in zip(axes, given, strict=False))
        if specs[0] != specs[1]:  # heads of keys that the mesh does not divide
            return checkpoint_name(_xla(q_BTHE, k_BSGE, v_BSGE, causal, mask, seen_BS), NAME)
        made = jax.shard_map(made, in_specs=specs, out_specs=specs[0], check_vma=False)
    return made(*given)


def device() -> tuple[str, str]:
    """Platform and kind of the devices that a program is traced for: those of its mesh, else of
    this process."""
    found = jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
    return found.platform, found.device_kind


def _kernel(q_BTHE, k_BSGE, causal: bool, mask, seen_BS, form: Form):
    """A function of queries, keys, values and what is seen; None where XLA's form is taken."""
    mesh = jax.sharding.get_abstract_mesh()
    whole = not meshed() or set(MESH) <= set(mesh.auto_axes)
    if form == "xla" or mask is not None or not whole:
        return None
    platform, kind = device()
    short = min(q_BTHE.shape[1], k_BSGE.shape[1]) < LEAST
    # Without a mesh there is no telling where a program will run.
    if form == "auto" and (mesh.empty or platform == "cpu" or short):
        return None
    if platform == "gpu":
        # Cards before Ampere, which cuDNN's kernel is not for, have names of other words.
        fits = kind.startswith("NVIDIA") and q_BTHE.dtype in (jnp.bfloat16, jnp.float16)
        return _cudnn if fits and causal and seen_BS is None else None
    return functools.partial(_splash, causal=causal, interpret=platform == "cpu")


def _xla(q_BTHE, k_BSGE, v_BSGE, causal: bool, mask, seen_BS) -> Array:
    seen = None if seen_BS is None else seen_BS[:, None, None, :]
    mask = seen if mask is None else mask if seen is None else mask & seen
    return _named(q_BTHE.shape[1] if causal else 0)(q_BTHE, k_BSGE, v_BSGE, mask)


@functools.cache
def _named(steps: int):
    """XLA's form, causal over so many steps if any; its name says so in programs."""

    def made(q_BTHE, k_BSGE, v_BSGE, mask):
        causal = steps > 0
        return jax.nn.dot_product_attention(q_BTHE, k_BSGE, v_BSGE, mask=mask, is_causal=causal)

    made.__name__ = f"{CAUSAL}_{steps}" if steps else "attention"
    return jax.jit(made)


def _cudnn(q_BTHE: Array, k_BSGE: Array, v_BSGE: Array) -> Array:
    """cuDNN's, which refuses odd numbers of steps: zeros after the end, which no query sees."""
    steps = q_BTHE.shape[1]
    given = (_padded(x, 1, -steps % LANES) for x in (q_BTHE, k_BSGE, v_BSGE))
    y_BTHE = jax.nn.dot_product_attention(*given, is_causal=True, implementation="cudnn")
    return checkpoint_name(y_BTHE[:, :steps], NAME)


def _splash(
    q_BTHE: Array,
    k_BSGE: Array,
    v_BSGE: Array,
    seen_BS: Array | None = None,
    *,
    causal: bool,
    interpret: bool,
) -> Array:
    """JAX's splash attention for TPUs, which leaves out blocks that a causal mask hides."""
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    steps, positions = q_BTHE.shape[1], k_BSGE.shape[1]
    block_q, block_kv = _block(steps), _block(positions)
    more_q, more_kv = -steps % block_q, -positions % block_kv
    segments = None
    if seen_BS is not None or (more_kv and not causal):
        # Queries see the keys of their own segment: 1, where padding is of 0.
        rows = len(q_BTHE)
        seen_BS = jnp.ones((rows, positions), bool) if seen_BS is None else seen_BS
        own_BT = jnp.ones((rows, steps + more_q), jnp.int32)
        segments = SegmentIds(own_BT, _padded(seen_BS.astype(jnp.int32), 1, more_kv))
    q_BHTE = _padded(q_BTHE * q_BTHE.shape[-1] ** -0.5, 1, more_q).swapaxes(1, 2)
    k_BGSE, v_BGSE = (_padded(x, 1, more_kv).swapaxes(1, 2) for x in (k_BSGE, v_BSGE))
    made = _made(q_BHTE.shape[1], q_BHTE.shape[2], k_BGSE.shape[2], causal, interpret)
    y_BHTE = jax.vmap(made, in_axes=(0, 0, 0, None if segments is None else 0))(
        q_BHTE, k_BGSE, v_BGSE, segments
    )
    return y_BHTE.swapaxes(1, 2)[:, :steps]


def _made(heads: int, steps: int, positions: int, causal: bool, interpret: bool):
    """The kernel of padded sequences, its tables of blocks made in numpy."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    mask = (splash.CausalMask if causal else splash.FullMask)((steps, positions))
    q, kv = _block(steps), _block(positions)
    sizes = splash.BlockSizes(
        block_q=q, block_kv=kv, block_q_dkv=q, block_kv_dkv=kv, use_fused_bwd_kernel=True
    )  # fmt: skip
    return splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=sizes,
        residual_checkpoint_name=NAME,
        interpret=interpret,
    )


def _block(steps: int) -> int:
    """The size of as few even blocks as hold all steps."""
    return math.ceil(steps / math.ceil(steps / BLOCK) / LANES) * LANES


def _padded(x: Array, axis: int, more: int) -> Array:
    """x with zeros after its end."""
    if not more:
        return x
    return jnp.pad(x, [(0, more * (at == axis)) for at in range(x.ndim)])
