"""What may be asked of the server: a JSON object, each field within its bounds."""

import base64
import binascii
import difflib
import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rvq_jax import limits
from rvq_jax.errors import LINE, UserError, clipped, printable
from rvq_jax.systems.options import SAMPLING

SHORTEST = 0.1  # seconds
NUMBERS = {"guidance_scale": (0, 20), "text_guidance_scale": (0, 20)}
NUMBERS |= {"temperature": (0, 10), "top_p": (0, 1)}
WHOLE_NUMBERS = {"top_k": (0, 65_536), "seed": (0, 2**32 - 1)}
# Of the limits themselves.
BOUNDS = {
    name: (limits.BOUNDS[f"Limits.{name}"].low, limits.BOUNDS[f"Limits.{name}"].high)
    for name in ("prompt", "seconds", "body", "waiting", "audio", "takes")
}
ITERATIONS = 100  # of a level at most
FIELDS = "prompt", "seconds", "seed", "takes", *SAMPLING  # of every model
FILES = "voice", "melody", "continue"  # fields that hold an audio file
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
    audio: int = 2_000_000
    """Bytes of an audio file that comes with a request: a voice, a melody, what is continued."""
    takes: int = 4
    """Clips of one request."""

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
    takes: int = 1  # clips, of this seed and those that follow it
    guidance_scale: float | None = None
    text_guidance_scale: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    iterations: tuple[int, ...] | None = None  # of each level
    files: dict[str, bytes] = field(default_factory=dict)  # by `FILES`; in JSON base64, fields
    voice_text: str = ""  # the words in the voice

    @property
    def options(self) -> dict:
        """What is asked of how the model samples."""
        names = (*SAMPLING, "text_guidance_scale", "iterations")
        asked = {name: getattr(self, name) for name in names}
        return {name: value for name, value in asked.items() if value is not None}


class Refused(Exception):
    """A request that is not carried out: the HTTP status, and one line that says why."""

    def __init__(self, status: int, line: str):
        super().__init__(clipped(printable(line), LINE))
        self.status = status


def defaults(limits: Limits, inputs: Sequence[str] = ()) -> dict:
    """Values of the fields that a request leaves out and that are not the model's; the prompt has
    none. inputs: of the model; one that speaks says itself where it ends."""
    seconds = None if "voice" in inputs else min(10.0, limits.seconds)
    return {"seconds": seconds, "seed": 0, "takes": 1}


def body_limit(limits: Limits, inputs: Sequence[str] = ()) -> int:
    """Bytes of a request at most, with an audio file of each kind that is among these inputs."""
    return limits.body + 4 * -(-limits.audio // 3) * len(set(FILES) & set(inputs))


def parse(body: bytes, limits: Limits, inputs: Sequence[str] = ()) -> Request:
    """The request that a body holds.

    Args:
      body: what was sent.
      limits: what a field may be.
      inputs: fields that the model takes beside `FIELDS` (`generators.inputs`).

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
    known = [*FIELDS, *inputs]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise Refused(422, f"unknown field {_shown(name)}; {hint}")
    if "prompt" not in given:
        raise Refused(422, f"prompt is missing; send {EXAMPLE}")
    _check_text("prompt", given["prompt"], limits.prompt)
    filled = {**defaults(limits, inputs), **given}
    if filled.keys() & set(VOICE):
        _check_voice(filled, limits)
    named = [name for name in FILES if name in filled]
    filled["files"] = {name: _audio_file(name, filled.pop(name), limits.audio) for name in named}
    for name, bounds in {"seconds": (SHORTEST, limits.seconds), **NUMBERS}.items():
        own = name == "seconds" and "voice" in inputs and filled[name] is None
        if name in filled and not own:
            _check_number(name, filled[name], int | float, "a number", *bounds)
            filled[name] = float(filled[name])
    for name, bounds in {**WHOLE_NUMBERS, "takes": (1, limits.takes)}.items():
        if name in filled:
            _check_number(name, filled[name], int, "a whole number", *bounds)
    last, most = filled["seed"] + filled["takes"] - 1, WHOLE_NUMBERS["seed"][1]
    if last > most:
        raise Refused(422, f"the last take's seed is {last}, beyond {most}; take a lower seed")
    if "iterations" in filled:
        filled["iterations"] = _iterations(filled["iterations"])
    return Request(**filled)


def _each_once(pairs: list[tuple[str, object]]) -> dict:
    """The object of these fields; of a field given twice, who reads it may take either."""
    counts = Counter(name for name, _ in pairs)
    for name, count in counts.items():
        if count > 1:
            raise Refused(422, f"field {_shown(name)} is there {count} times; send it once")
    return dict(pairs)


def _check_voice(given: dict, limits: Limits) -> None:
    """A voice and its words come together."""
    for name in VOICE:
        if name not in given:
            raise Refused(422, f"{name} is missing; send a voice and the words that are in it")
    _check_text("voice_text", given["voice_text"], limits.prompt)


def _audio_file(name: str, text, most: int) -> bytes:
    """The bytes of an audio file in base64, so many at most."""
    if not isinstance(text, str):
        raise Refused(422, f"{name} must be an audio file in base64, not {_shown(text)}")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(422, f"{name} is not base64; send an audio file in it") from None
    if not 0 < len(data) <= most:
        raise Refused(422, f"{name} has {len(data)} bytes; send an audio file of 1 to {most}")
    return data


def _iterations(given) -> tuple[int, ...]:
    """Iterations of each level, how many of which there are the model says."""
    if not isinstance(given, list) or not given:
        raise Refused(422, f"iterations must be a list of one for each level, not {_shown(given)}")
    for count in given:
        _check_number("iterations", count, int, "whole numbers", 1, ITERATIONS)
    return tuple(given)


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
