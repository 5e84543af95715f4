"""What may be asked of the server: a JSON object, each field within its bounds."""

import difflib
import json
import unicodedata
from collections import Counter
from dataclasses import dataclass, fields

from rvq_jax import limits
from rvq_jax.errors import LINE, UserError, clipped, printable
from rvq_jax.systems.generators import SAMPLING

SHORTEST = 0.1  # seconds
NUMBERS = {"guidance_scale": (0, 20), "temperature": (0, 10), "top_p": (0, 1)}
WHOLE_NUMBERS = {"top_k": (0, 65_536), "seed": (0, 2**32 - 1)}
# Of the limits themselves.
BOUNDS = {
    name: (limits.BOUNDS[f"Limits.{name}"].low, limits.BOUNDS[f"Limits.{name}"].high)
    for name in ("prompt", "seconds", "body", "waiting")
}
EXAMPLE = '{"prompt": "a slow piano"}'


@dataclass(frozen=True)
class Limits:
    """The most that one server takes; what passes a bound is refused with a line that says it.

    Raises UserError if a limit is out of its own bounds.
    """

    prompt: int = 1000
    """Characters of a prompt."""
    seconds: float = 30.0
    """Length of a clip."""
    body: int = 16_384
    """Bytes of a request."""
    waiting: int = 16
    """Requests that wait while one is served."""

    def __post_init__(self):
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"the limit of {name} must be from {low} to {high}, not {value}")


LIMITS = Limits()


@dataclass(frozen=True)
class Request:
    """A clip to generate; the fields are those of `rvq-jax generate`, None for the model's own."""

    prompt: str
    seconds: float
    seed: int
    guidance_scale: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None

    @property
    def sampling(self) -> dict[str, float]:
        """What is asked of how the model samples."""
        asked = {name: getattr(self, name) for name in SAMPLING}
        return {name: value for name, value in asked.items() if value is not None}


class Refused(Exception):
    """A request that is not carried out: the HTTP status, and one line that says why."""

    def __init__(self, status: int, line: str):
        super().__init__(clipped(printable(line), LINE))
        self.status = status


def defaults(limits: Limits) -> dict:
    """Values of the fields that a request leaves out and that are not the model's; the prompt has
    none."""
    return {"seconds": min(10.0, limits.seconds), "seed": 0}


def parse(body: bytes, limits: Limits) -> Request:
    """The request that a body holds; raises Refused if it is not JSON or a field is not valid."""
    try:
        given = json.loads(body.decode(), object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON ({error}); send {EXAMPLE}") from None
    if not isinstance(given, dict):
        raise Refused(422, f"the body is {_shown(given)}, not an object; send {EXAMPLE}")
    known = [field.name for field in fields(Request)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise Refused(422, f"unknown field {_shown(name)}; {hint}")
    if "prompt" not in given:
        raise Refused(422, f"prompt is missing; send {EXAMPLE}")
    _check_prompt(given["prompt"], limits.prompt)
    filled = {**defaults(limits), **given}
    for name, bounds in {"seconds": (SHORTEST, limits.seconds), **NUMBERS}.items():
        if name in filled:
            _check_number(name, filled[name], int | float, "a number", *bounds)
            filled[name] = float(filled[name])
    for name, bounds in WHOLE_NUMBERS.items():
        if name in filled:
            _check_number(name, filled[name], int, "a whole number", *bounds)
    return Request(**filled)


def _each_once(pairs: list[tuple[str, object]]) -> dict:
    """The object of these fields; of a field given twice, who reads it may take either."""
    counts = Counter(name for name, _ in pairs)
    for name, count in counts.items():
        if count > 1:
            raise Refused(422, f"field {_shown(name)} is there {count} times; send it once")
    return dict(pairs)


def _check_prompt(prompt, longest: int) -> None:
    if not isinstance(prompt, str):
        raise Refused(422, f"prompt must be text, not {_shown(prompt)}")
    if not prompt.strip():
        raise Refused(422, "prompt is empty; say what to generate, such as 'a slow piano'")
    if len(prompt) > longest:
        raise Refused(422, f"prompt has {len(prompt)} characters; shorten it to {longest}")
    for i, letter in enumerate(prompt):
        # Halves of a surrogate pair too: JSON can hold them, UTF-8 cannot.
        if unicodedata.category(letter) in ("Cc", "Cs"):
            code = f"U+{ord(letter):04X}"
            raise Refused(422, f"prompt has the control character {code} at {i}; remove it")


def _check_number(name: str, value, kind, words: str, low: float, high: float) -> None:
    """NaN lies in no range, and a bool is an int to Python alone."""
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        raise Refused(422, f"{name} must be {words} from {low:g} to {high:g}, not {_shown(value)}")


def _shown(value) -> str:
    """A value of JSON on one short line."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
