"""Names of a package whose modules are imported when the names are first asked for."""

import importlib
import sys
from collections.abc import Callable


def names(package: str, places: dict[str, str]) -> tuple[Callable[[str], object], Callable]:
    """What a package needs as its `__getattr__` and `__dir__` (PEP 562).

    Args:
      package: its name.
      places: of each public name the module that has it, or that it is.

    Returns:
      Both functions; `dir` lists the public names alone.
    """

    def find(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(places[name])
        found = module if module.__name__ == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, found)
        return found

    return find, lambda: sorted(sys.modules[package].__all__)
