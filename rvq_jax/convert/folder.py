"""Codec folders of transformers, both ways: config.json and model.safetensors."""

from pathlib import Path

import numpy as np

from rvq_jax import limits
from rvq_jax.convert import dac, encodec, layout, mimi, names, processors, tensors
from rvq_jax.convert.fields import kind_of
from rvq_jax.errors import UserError, shown

KINDS = {"encodec": encodec, "dac": dac, "mimi": mimi}
# What files of some versions have beside the weights, and what nobody needs to compute.
IGNORED = (".inited", ".initialized")


def load(fields: dict, path: str | Path, leaves_of) -> tuple[object, dict[str, np.ndarray]]:
    """The config, and our leaves by name, of a folder with the given config.json.

    leaves_of: a function from a config to the leaves it has, by name with their shapes. Raises
    UserError for another type of model, unknown fields, or tensors that do not fit the config.
    """
    config = config_of(fields, path, leaves_of)
    return config, from_tensors(config, names.canonical(tensors.load_folder(path)), path, leaves_of)


def config_of(fields: dict, path: str | Path, leaves_of) -> object:
    """The config of a codec that a config.json in `path` describes; errors as of `load`."""
    kind = kind_of(fields)
    if kind not in KINDS:
        said = shown(fields.get("model_type"))
        raise UserError(
            f"{path} holds a model of type {said}, not a codec; codecs: {', '.join(KINDS)}"
        )
    where = f"{path}/config.json"
    config = KINDS[kind].from_fields(fields, where)
    limits.laid_out(lambda: leaves_of(config), where)
    return config


def from_tensors(config, found: dict, path: str | Path, leaves_of) -> dict[str, np.ndarray]:
    """Turns tensors under transformers' names into our arrays.

    Running means of a quantizer that was not taught by them become zeros. Codewords of a file that
    has only their running means are computed from those (Mimi).

    Args:
      config: sizes of the codec.
      found: the tensors by name.
      path: file or folder that they are from, for error messages.
      leaves_of: a function from a config to the arrays it has, by name with their shapes.

    Returns:
      Our arrays by name.

    Raises:
      UserError: when the tensors do not fit the config.
    """
    leaves = leaves_of(config)
    places = module_of(config).layout(config)
    found = {name: array for name, array in found.items() if not name.endswith(IGNORED)}
    present = {name: leaf for name, leaf in leaves.items() if name in places}
    found = tensors.take(found, layout.shapes(places, present), path)
    read = layout.read(places, found)
    for name, leaf in leaves.items():
        if name not in places and not name.endswith("vectors"):
            # Running means of a quantizer that was not taught by them.
            read[name] = np.zeros(leaf.shape, np.float32)
    for name in leaves.keys() - read.keys():
        read[name] = _ratio(name, read)
    return read


def save(config, leaves: dict[str, np.ndarray], path: str | Path) -> bool:
    """Writes a folder that transformers reads; False if it has no words for this codec."""
    written = to_tensors(config, leaves)
    if written is None:
        return False
    tensors.save_folder(path, *written, {processors.FILE: processors.of_codec(config)})
    return True


def to_tensors(config, leaves: dict[str, np.ndarray]) -> tuple[dict, dict] | None:
    """The fields and tensors of a codec in transformers' words; None if it has none for it."""
    fields = to_fields(config)
    if fields is None:
        return None
    module = module_of(config)
    places, leaves = module.layout(config), dict(leaves)
    for name in leaves.keys() - places.keys():
        if name.endswith("vectors") and not np.array_equal(leaves[name], _ratio(name, leaves)):
            leaves[name.replace("vectors", "sums")] = leaves[name]
            leaves[name.replace("vectors", "counts")] = np.ones(leaves[name].shape[:-1], np.float32)
    written = layout.write(places, leaves)
    ones = {name: np.ones(1, np.float32) for name in module.constants(config)}
    return fields, written | ones


def to_fields(config) -> dict | None:
    """The config.json of a codec in transformers' words; None if it has none for it."""
    return None if beyond(config) else module_of(config).to_fields(config)


def beyond(config) -> str | None:
    """The field of a codec that transformers' format has no place for, in words; None if none."""
    if any(isinstance(config, module.CONFIG) for module in KINDS.values()):
        return module_of(config).beyond(config)
    return f"transformers' format has no {type(config).__name__}, only {', '.join(KINDS)}"


def module_of(config):
    """The module that knows a config's names."""
    return next(module for module in KINDS.values() if isinstance(config, module.CONFIG))


def _ratio(name: str, leaves: dict) -> np.ndarray:
    """Codewords of a file that has only the running means they are the ratio of (Mimi)."""
    sums, counts = (leaves[name.replace("vectors", other)] for other in ("sums", "counts"))
    return sums / np.maximum(counts, np.float32(1e-5))[..., None]
