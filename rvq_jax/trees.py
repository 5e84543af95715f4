"""Dataclasses as pytrees of a type of their own, and leaves by name.

JAX is read where it is used: processes that make batches read files without it.
"""

import dataclasses


def pytree(cls):
    """Registers a dataclass as a pytree of its fields; those with metadata `static` are structure.

    `jax.tree_util.register_dataclass` leaves the type out when it compares structures (JAX 0.10 to
    0.12): of two classes with as many fields `jax.jit` may then run the program of the other.
    """
    import jax

    fields = dataclasses.fields(cls)
    data = tuple(f.name for f in fields if not f.metadata.get("static", False))
    static = tuple(f.name for f in fields if f.metadata.get("static", False))

    def flatten(tree):
        return tuple(getattr(tree, name) for name in data), tuple(getattr(tree, n) for n in static)

    def flatten_with_keys(tree):
        leaves, structure = flatten(tree)
        return tuple(zip(map(jax.tree_util.GetAttrKey, data), leaves, strict=True)), structure

    def unflatten(structure, leaves):
        return cls(**dict(zip(data + static, (*leaves, *structure), strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    cls.__repr__ = one_line
    return cls


def one_line(tree) -> str:
    """A dataclass or a named tuple in a line: of arrays their types and shapes."""
    names = getattr(tree, "_fields", None) or [f.name for f in dataclasses.fields(tree)]
    inner = ", ".join(f"{name}={_shape(getattr(tree, name))}" for name in names)
    return f"{type(tree).__name__}({inner})"


def _shape(value) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    if type(value) in (tuple, list):
        return f"({', '.join(map(_shape, value))})"
    return " ".join(repr(value).split())


def named(tree) -> dict:
    """Leaves by path, 'encoder/downs/0/bias'."""
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
