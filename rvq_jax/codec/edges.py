"""Where audio begins and ends, and what a convolution sees beyond: EnCodec's padding rules.

Every layer pads its own input, so what lies beyond the ends differs from layer to layer. Three ways
lead to the same numbers: padding a whole array (`pad`), marking the ends of each item inside a
longer array (`fill`: batches of unequal lengths, windows of a long recording), and remembering the
last inputs (a layer's `step`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rvq_jax.typing import Array

MODES = ("constant", "reflect", "replicate")


class Edges(NamedTuple):
    """Each item's samples are [begin, end) of a longer array, at the rate of the layer's input."""

    begin: Array  # [B] int32, a multiple of every stride to come
    end: Array  # [B] int32

    def down(self, stride: int) -> "Edges":
        """After a strided convolution, whose last window may be part full."""
        return Edges(self.begin // stride, -(-self.end // stride))

    def up(self, stride: int, missing: int = 0) -> "Edges":
        """After a transposed convolution that leaves out the `missing` last steps."""
        return Edges(self.begin * stride, self.end * stride - missing)

    def shift(self, steps: int) -> "Edges":
        """After the first `steps` of the array are cut."""
        return Edges(self.begin - steps, self.end - steps)

    def within(self, steps: int) -> "Edges":
        """The part inside an array: a window's ends stand for those it does not hold."""
        begin = jnp.clip(self.begin, 0, steps)
        return Edges(begin, jnp.clip(self.end, begin, steps))

    def inside(self, steps: int) -> Array:
        """Whether each of an array's steps belongs to the item `[B, steps]`."""
        i_1S = jnp.arange(steps)[None]
        return (self.begin[:, None] <= i_1S) & (i_1S < self.end[:, None])


def padding(samples: int, reach: int, stride: int, causal: bool) -> tuple[int, int]:
    """Computes how much to pad in time for a convolution to give ceil(S / stride) outputs.

    A causal convolution pads on the left, except for what fills the last window. A centred one pads
    on both sides, the smaller half on the right, where what fills the last window is added.

    Args:
      samples: S, steps of the input.
      reach: steps of the input that one output sees.
      stride: steps of the input from one output to the next.
      causal: whether no output may see steps after its own window.

    Returns:
      Steps to add on the left and on the right.
    """
    total = reach - stride
    last = -samples % stride
    if causal:
        return total, last
    right = total // 2
    return total - right, right + last


def pad(x_BSD: Array, left: int, right: int, mode: str) -> Array:
    """Pads an array in time.

    An input too short to be mirrored is first made longer by zeros on the right, which are cut
    again after mirroring.

    Args:
      x_BSD: `[B, S, D]`.
      left: steps to add before the first.
      right: steps to add after the last.
      mode: 'constant' pads with zeros, 'reflect' mirrors the array at its first and last step, and
        'replicate' repeats them.

    Returns:
      `[B, left + S + right, D]`.
    """
    widths = ((0, 0), (left, right), (0, 0))
    if mode == "constant":
        return jnp.pad(x_BSD, widths)
    if mode == "replicate":
        return jnp.pad(x_BSD, widths, mode="edge")
    missing = max(0, max(left, right) + 1 - x_BSD.shape[1])
    y = jnp.pad(x_BSD, ((0, 0), (0, missing), (0, 0)))
    y = jnp.pad(y, widths, mode="reflect")
    return y[:, : y.shape[1] - missing]


def fill(x_BSD: Array, left: int, right: int, stride: int, mode: str, edges: Edges) -> Array:
    """Writes around each item of a longer array what `pad` would put around the item alone.

    Steps further away from an item than the padding hold zeros or garbage, which no window of the
    item reaches.

    Args:
      x_BSD: `[B, S, D]`, with one item in each row.
      left: steps of padding before an item.
      right: steps of padding after an item, without those that fill its last window: their number
        differs from item to item, and is computed here.
      stride: steps from one window to the next.
      mode: 'constant', 'reflect' or 'replicate', as in `pad`.
      edges: where each item begins and ends in `x_BSD`.

    Returns:
      The padded array `[B, left + S + right + stride - 1, D]`, in which an item begins `left` steps
      later than in `x_BSD`.
    """
    longest, edges = right + stride - 1, edges.within(x_BSD.shape[1])
    if mode == "constant":
        x_BSD = jnp.where(edges.inside(x_BSD.shape[1])[..., None], x_BSD, 0)
        return jnp.pad(x_BSD, ((0, 0), (left, longest), (0, 0)))
    # Room on both sides for slices that lie partly outside: a dynamic slice would be moved inside.
    room = left + longest + 1
    inside_BS1 = edges.inside(x_BSD.shape[1])[..., None]
    wide_BSD = jnp.pad(jnp.where(inside_BS1, x_BSD, 0), ((0, 0), (room, room), (0, 0)))

    def around(wide_SD, begin, end):
        def put(wide_SD, source, size, target, flip):
            part_SD = jax.lax.dynamic_slice_in_dim(wide_SD, source, size)
            part_SD = part_SD[::-1] if flip else part_SD
            return jax.lax.dynamic_update_slice_in_dim(wide_SD, part_SD, target, 0)

        first, last = room + begin, room + end
        if mode == "replicate":
            before_SD = jnp.repeat(jax.lax.dynamic_slice_in_dim(wide_SD, first, 1), left, 0)
            after_SD = jnp.repeat(jax.lax.dynamic_slice_in_dim(wide_SD, last - 1, 1), longest, 0)
            wide_SD = jax.lax.dynamic_update_slice_in_dim(wide_SD, before_SD, first - left, 0)
            return jax.lax.dynamic_update_slice_in_dim(wide_SD, after_SD, last, 0)
        # Too short an item is mirrored as if zeros, which are there already, made it longer.
        reach = jnp.maximum(left, right + -(end - begin) % stride)
        last = first + jnp.maximum(end - begin, reach + 1)
        mirrored_SD = put(wide_SD, last - 1 - longest, longest, last, flip=True)
        return put(mirrored_SD, first + 1, left, first - left, flip=True) if left else mirrored_SD

    wide_BSD = jax.vmap(around)(wide_BSD, edges.begin, edges.end)
    return wide_BSD[:, room - left : wide_BSD.shape[1] - room + longest]
