"""What may be asked of the server: a JSON object, each field within its bounds."""

import base64
import binascii
import difflib
import json
import unicodedata
from collections import Counter
from dataclasses import dataclass, fields

from rvq_jax import limits
from rvq_jax.errors import LINE, UserError, clipped, printable

SHORTEST = 0.1  # seconds
NUMBERS = {"guidance_scale": (0, 20), "temperature": (0, 10), "top_p": (0, 1)}
WHOLE_NUMBERS = {"top_k": (0, 65_536), "seed": (0, 2**32 - 1)}
# Of the limits themselves.
BOUNDS = {
    name: (limits.BOUNDS[f"Limits.{name}"].low, limits.BOUNDS[f"Limits.{name}"].high)
    for name in ("prompt", "seconds", "body", "waiting", "voice")
}
VOICE = "voice", "voice_text"
EMPTY = {
    "prompt": "say what to generate, such as 'a slow piano'",
    "voice_text": "say what is said in the voice",
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
    voice: int = 1_000_000
    """Bytes of the audio file of a voice, of a model that speaks in one."""

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
    seconds: float | None  # at most, for what a model says; None: as long as it was trained on
    seed: int
    guidance_scale: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    voice: bytes | None = None  # an audio file of someone to speak as; base64 in JSON
    voice_text: str = ""  # the words in it

    @property
    def sampling(self) -> dict[str, float]:
        """What is asked of how the model samples."""
        from rvq_jax.systems.generators import SAMPLING

        asked = {name: getattr(self, name) for name in SAMPLING}
        return {name: value for name, value in asked.items() if value is not None}


class Refused(Exception):
    """A request that is not carried out: the HTTP status, and one line that says why."""

    def __init__(self, status: int, line: str):
        super().__init__(clipped(printable(line), LINE))
        self.status = status


def defaults(limits: Limits, speaks: bool = False) -> dict:
    """Values of the fields that a request leaves out and that are not the model's; the prompt has
    none. speaks: of a model that does, which says itself where it ends."""
    return {"seconds": None if speaks else min(10.0, limits.seconds), "seed": 0}


def body_limit(limits: Limits, speaks: bool = False) -> int:
    """Bytes of a request at most, with a voice if the model speaks in one."""
    return limits.body + (4 * -(-limits.voice // 3) if speaks else 0)


def parse(body: bytes, limits: Limits, speaks: bool = False) -> Request:
    """The request that a body holds.

    Args:
      body: what was sent.
      limits: what a field may be.
      speaks: whether the model does, and takes a voice.

    Returns:
      The request.

    Raises:
      Refused: it is not JSON, or a field is not valid.
    """
    try:
        given = json.loads(body.decode(), object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON ({error}); send {EXAMPLE}") from None
    if not isinstance(given, dict):
        raise Refused(422, f"the body is {_shown(given)}, not an object; send {EXAMPLE}")
    known = [f.name for f in fields(Request) if speaks or f.name not in VOICE]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise Refused(422, f"unknown field {_shown(name)}; {hint}")
    if "prompt" not in given:
        raise Refused(422, f"prompt is missing; send {EXAMPLE}")
    _check_text("prompt", given["prompt"], limits.prompt)
    filled = {**defaults(limits, speaks), **given}
    if filled.keys() & set(VOICE):
        filled["voice"] = _voice(filled, limits)
    for name, bounds in {"seconds": (SHORTEST, limits.seconds), **NUMBERS}.items():
        own = name == "seconds" and speaks and filled[name] is None
        if name in filled and not own:
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


def _voice(given: dict, limits: Limits) -> bytes:
    """The audio file of a voice, whose words come with it."""
    for name in VOICE:
        if name not in given:
            raise Refused(422, f"{name} is missing; send a voice and the words that are in it")
    _check_text("voice_text", given["voice_text"], limits.prompt)
    voice = given["voice"]
    if not isinstance(voice, str):
        raise Refused(422, f"voice must be an audio file in base64, not {_shown(voice)}")
    try:
        data = base64.b64decode(voice, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(422, "voice is not base64; send an audio file in it") from None
    if not 0 < len(data) <= limits.voice:
        raise Refused(
            422, f"voice has {len(data)} bytes; send an audio file of 1 to {limits.voice}"
        )
    return data


def _check_text(name: str, text, longest: int) -> None:
    if not isinstance(text, str):
        raise Refused(422, f"{name} must be text, not {_shown(text)}")
    if not text.strip():
        raise Refused(422, f"{name} is empty; {EMPTY[name]}")
    if len(text) > longest:
        raise Refused(422, f"{name} has {len(text)} characters; shorten it to {longest}")
    for i, letter in enumerate(text):
        # Halves of a surrogate pair too: JSON can hold them, UTF-8 cannot.
        if unicodedata.category(letter) in ("Cc", "Cs"):
            code = f"U+{ord(letter):04X}"
            raise Refused(422, f"{name} has the control character {code} at {i}; remove it")


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
