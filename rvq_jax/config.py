"""Frozen dataclasses ↔ plain dicts, with errors that name the field."""

import dataclasses
import difflib
import types
import typing

from rvq_jax.errors import UserError

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


def to_dict(config) -> dict:
    """A config as nested dicts of JSON values."""
    return dataclasses.asdict(config)


def from_dict(cls, data: dict, where: str):
    """A config of class `cls` from nested dicts; missing fields keep their defaults.

    Raises UserError for a field the class does not have, with the nearest name it has.
    """
    data = _of_0_1(cls.__name__, data)
    kinds = typing.get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls)}
    values = {}
    for name, value in data.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(fields))}"
            raise UserError(f"{where}: unknown field {name!r}; {hint}")
        if dataclasses.is_dataclass(kinds[name]) and isinstance(value, dict):
            value = from_dict(kinds[name], value, f"{where}: {name}")
        elif not _fits(value, kinds[name]):
            raise UserError(f"{where}: {name} must be {_words(kinds[name])}, got {value!r}")
        values[name] = _tuples(value)
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from error


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


def _fits(value, kind) -> bool:
    """Whether a JSON value can be a field of this type; a whole number is a float too."""
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return any(_fits(value, each) for each in typing.get_args(kind))
    if kind in (str, bool, type(None)):
        return isinstance(value, kind)
    return not (dataclasses.is_dataclass(kind) and not isinstance(value, kind))


def _words(kind) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    if isinstance(kind, types.UnionType):
        return " or ".join(map(_words, typing.get_args(kind)))
    return "None" if kind is type(None) else getattr(kind, "__name__", str(kind))


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
