"""Shapes of what token models are trained on and generate from, without any data."""

import jax
from jax.sharding import SingleDeviceSharding

from rvq_jax.lm import forms
from rvq_jax.lm.conditions import Condition, Conditions
from rvq_jax.lm.precision import Precision, cast
from rvq_jax.train.tasks.lm import PREFIX

TOKENS = 64  # that captions are padded to where a frozen encoder reads them
PROMPTS = 8  # that `rvq-jax generate` makes at a time


def batch_shapes(lm, batch: int, frames: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch of crops of codes with the conditions of a model.

    Args:
      lm: config of the model.
      batch: B.
      frames: F.

    Returns:
      Shapes by the names that `loader.cut_codes` gives.
    """

    def array(*shape, dtype="float32"):
        return jax.ShapeDtypeStruct((batch, *shape), dtype)

    others = lm.condition_shapes(frames, TOKENS)
    found = {
        "index": array(dtype="int32"),
        "codes": array(lm.levels, frames, dtype="int32"),
        "mask": array(frames, dtype="bool"),
    }
    text = others.pop("text", None)
    if text is not None and len(text) == 1:
        found["text"] = array(*text, dtype="int32")
    elif text is not None:
        found |= {"states": array(*text), "text_mask": array(text[0], dtype="bool")}
    if "melody" in others:
        found["melody"] = array(*others.pop("melody"))
    return found | {
        f"{PREFIX}{name}": array(*shape, dtype=kind(shape)) for name, shape in others.items()
    }


def decoding_shapes(
    lm, frames: int, device, precision: Precision = "float32", prompts: int = PROMPTS
) -> tuple:
    """Shapes of what generation of some clips takes on one device.

    The model is whole there.

    Args:
      lm: config of the model.
      frames: F.
      device: where all of it is.
      precision: of its parameters.
      prompts: B.

    Returns:
      Of parameters, conditions, a key, forced codes and lengths; and a function that places other
      trees of shapes, or arrays, on the device.
    """
    place = SingleDeviceSharding(device)

    def array(*shape, dtype="float32"):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    def placed(tree):
        return jax.tree.map(lambda x: array(*x.shape, dtype=x.dtype), tree)

    conditions: Conditions = {}
    for name, shape in lm.condition_shapes(frames, TOKENS).items():
        states = array(prompts, *shape, dtype=kind(shape))
        mask, kept = array(prompts, shape[0], dtype="bool"), array(prompts, dtype="bool")
        conditions[name] = Condition(states, mask, kept)
    key = placed(jax.eval_shape(lambda: jax.random.key(0)))
    forced = array(prompts, lm.levels, frames, dtype="int32")
    lengths = array(prompts, dtype="int32")
    params = jax.eval_shape(lambda params: cast(params, precision), forms.abstract(lm))
    return placed(params), conditions, key, forced, lengths, placed


def kind(shape: tuple[int, ...]) -> str:
    """The type of a condition of this shape `[L]` or `[L, E]`: tokens and bytes, or states."""
    return "int32" if len(shape) == 1 else "float32"
