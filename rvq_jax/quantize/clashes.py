"""Options that clash: each error names the two."""

from rvq_jax.quantize.arrangements import Bottleneck, Grouped, Split, State, Strided
from rvq_jax.quantize.implicit import QINCo
from rvq_jax.quantize.learn import EMA, Frozen, Gradient, Learning, follows
from rvq_jax.quantize.lookups import Projected, Shared
from rvq_jax.quantize.scalar import FSQ, LFQ
from rvq_jax.quantize.state import Codebooks, Lookup


def learning_rule(state: State, learning: Learning | None, per_level: bool) -> Learning:
    """The rule to learn by; raises ValueError naming two options that clash."""
    lookups = _lookups(state)
    if learning is None:
        means = all(isinstance(x, Codebooks | Shared) for x in lookups)
        learning = EMA() if means else Gradient()
    # Innermost first: what a projection cannot do is said of what it holds.
    for lookup in reversed(lookups):
        name = type(lookup).__name__
        if follows(learning) and lookup.books is None:
            option = "EMA" if isinstance(learning, EMA) else f"Gradient(expiry={learning.expiry})"
            raise ValueError(
                f"{option} and {name} clash: it has no codebooks of means; use Gradient()"
            )
        learns = not isinstance(learning, Frozen)
        if isinstance(lookup, Projected) and learns and not per_level:
            raise ValueError(
                f"{name} and per_level=False clash: no gradient would reach its maps; "
                "use per_level=True"
            )
    return learning


def allow_beam(state: State, option: str) -> None:
    """Raises ValueError unless every level picks from a table of vectors in the latent space."""
    if isinstance(state, Strided):
        raise ValueError(f"{option} and Strided clash: a prefix of codes covers several frames")
    for lookup in _lookups(state):
        if not lookup.euclidean:
            raise ValueError(
                f"{option} and {type(lookup).__name__} clash: "
                "it needs tables of vectors in the latent space"
            )


def allow_sampling(state: State, temperature: float) -> None:
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, got {temperature}")
    for lookup in _lookups(state):
        if isinstance(lookup, FSQ | LFQ | QINCo):
            raise ValueError(
                f"temperature={temperature} and {type(lookup).__name__} clash: "
                "it has no table of codewords to draw from"
            )


def _lookups(state: State) -> list[Lookup]:
    match state:
        case Grouped():
            return _lookups(state.one)
        case Split():
            return _lookups(state.first) + _lookups(state.rest)
        case Bottleneck():
            return _lookups(state.inner)
        case Strided():
            return _lookups(state.books)
        case Projected():
            return [state, state.inner]
        case _:
            return [state]
