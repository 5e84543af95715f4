"""Models in a line, for whoever looks at one: sizes, and no arrays."""

import jax


def one_line(model, *facts: str) -> str:
    """A model's class, what is to be said of it, and how many parameters it has.

    Args:
      model: has `config`, with levels and codebook_size, and `params`.
      *facts: what is said beside these.

    Returns:
      A line, such as "MusicGen(4 levels of 2048 codes, delay, 420 M parameters)".
    """
    config = model.config
    count = sum(getattr(leaf, "size", 0) for leaf in jax.tree.leaves(model.params))
    codes = f"{config.levels} level{'s' * (config.levels != 1)} of {config.codebook_size} codes"
    said = ", ".join([codes, *facts, f"{count / 1e6:.3g} M parameters"])
    return f"{type(model).__name__}({said})"


def parts(model, *names: str) -> list[str]:
    """The parts of a model in a line each, by the names of its fields; absent ones are named."""
    found = [(name, getattr(model, name)) for name in names]
    return [f"no {name}" if part is None else repr(part) for name, part in found]


def public(model) -> list[str]:
    """The names of a model that are meant for its users, for `dir` and tab completion."""
    return [name for name in object.__dir__(model) if not name.startswith("_")]
