"""Frozen dataclasses ↔ plain dicts, with errors that name the field."""

import dataclasses
import difflib
import types
import typing

from rvq_jax import limits
from rvq_jax.errors import READING, UserError, shown

# Fields of folders that version 0.1 wrote, by the class that they are of: their names today.
NAMES_OF_0_1 = {
    "LMConfig": {"size": "codebook_size", "hidden": "mlp_dim", "melody": "melody_bins"},
    "CodecConfig": {"size": "codebook_size"},
    "DACConfig": {"size": "codebook_size"},
    "MimiConfig": {"size": "codebook_size"},
    "TransformerConfig": {"hidden": "mlp_dim"},
    "T5Config": {"hidden": "mlp_dim"},
}
# Of these it wrote 0 where there is none.
ABSENT_IN_0_1 = {"LMConfig": {"text_dim", "melody_bins", "window"}, "CodecConfig": {"segment"}}
# What is recomputed in a backward pass was once all or nothing.
REMAT = {False: "nothing", True: "everything"}


def to_dict(config) -> dict:
    """A config as nested dicts of JSON values."""
    return dataclasses.asdict(config)


def from_dict(cls, data: dict, where: str):
    """A config of class `cls` from nested dicts; missing fields keep their defaults.

    Raises UserError for a field the class does not have, with the nearest name it has, and for
    values out of their bounds (see `rvq_jax.limits`), before anything is computed with them.
    """
    data = renewed(_of_0_1(cls.__name__, data))
    kinds = limits.kinds(cls)
    values = {}
    for name, value in data.items():
        if name not in kinds:
            raise UserError(f"{where}: unknown field {shown(name)}{nearest(name, kinds)}")
        part = next((k for k in parts(kinds[name]) if dataclasses.is_dataclass(k)), None)
        if part is not None and isinstance(value, dict):
            value = from_dict(part, value, f"{where}: {name}")
        else:
            limits.check_field(cls, name, value, where)
            value = tuple(value) if isinstance(value, list) else value
        values[name] = value
    return make(cls, where, **values)


def renewed(data: dict) -> dict:
    """Fields of a config that was written to JSON, with the values that they have today."""
    named = {n: remat(x) if n == "remat" else x for n, x in data.items()}
    return {n: renewed(x) if isinstance(x, dict) else x for n, x in named.items()}


def remat(value):
    """The name of what is recomputed, of a bool too; anything else as it is."""
    return REMAT[value] if isinstance(value, bool) else value


def make(cls, where: str, **values):
    """A config of class `cls`; raises UserError, with `where`, for fields it cannot have."""
    try:
        made = cls(**values)
    except READING as error:
        raise UserError(f"{where}: {error}") from None
    limits.check(made, where)
    return made


def parts(kind) -> tuple:
    """The types of a union, or the one type."""
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def nearest(name: str, known) -> str:
    """A known name to suggest in place of an unknown one, or all of them."""
    near = difflib.get_close_matches(name[:80], known, n=1)
    return f", did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"


def _of_0_1(kind: str, data: dict) -> dict:
    """Fields as this version has them, of any version."""
    names, absent = NAMES_OF_0_1.get(kind, {}), ABSENT_IN_0_1.get(kind, ())
    data = {names.get(name, name): value for name, value in data.items()}
    return {name: None if name in absent and value == 0 else value for name, value in data.items()}


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Each field in which two configs differ, as 'lm.layers: 4 there, 6 here'."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            lines.append(f"{prefix}{name}: {a} there, {b} here")
    return lines
