"""Packages of the extra `metrics`, which only those who ask for their metrics need."""

import contextlib
from collections.abc import Iterator

from rvq_jax.errors import UserError

REMEDY = "pip install 'rvq_jax[metrics]'"


@contextlib.contextmanager
def extra(what: str) -> Iterator[None]:
    """Around imports: a package that is not there becomes a UserError that says what needs it."""
    try:
        yield
    except ImportError as error:
        name = (error.name or f"{error}").split(".")[0]
        raise UserError(f"{what} needs the package {name}: {REMEDY}") from None
