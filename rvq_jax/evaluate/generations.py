"""Audio that token models generate for the captions of held-out clips, kept from run to run."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jax
import numpy as np

from rvq_jax import files, opening, progress
from rvq_jax.audio import io
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import READING, UserError
from rvq_jax.evaluate.clips import Chosen
from rvq_jax.evaluate.conditions import caption_conditions, melodies
from rvq_jax.evaluate.settings import GenerationSettings
from rvq_jax.lm.decode import row_keys
from rvq_jax.systems.generators import Generator, kind
from rvq_jax.systems.magnet import MAGNeT
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.systems.valle import VALLE
from rvq_jax.typing import Audio

NOTE = "generated.json"
BAR = {"desc": "generate", "unit": "batch", "delay": 2, "leave": False}
STRIDE = 0.6  # of a window that the next one adds, as MusicGen adds 18 s to 30


@dataclass(frozen=True)
class Place:
    """Where the audio of one model is kept: `audio/CLIP/NUMBER.flac` of a folder."""

    folder: Path
    number: int  # of the model, from 1

    def file(self, clip: int) -> str:
        """The path of a clip, relative to the folder."""
        return f"audio/{clip}/{self.number}.flac"


def within(model: Generator, frames: int | None) -> Generator:
    """The model with a window of the crops that it was trained on, where they are known and it has
    none: what is longer is then generated window by window, and no position is beyond them."""
    if frames is None or model.config.window is not None:
        return model
    return replace(model, config=replace(model.config, window=frames))


def stride(model: Generator, frames: int) -> int | None:
    """Frames that every further window of a clip adds; None for a model that makes it at once."""
    window = model.config.window
    if not isinstance(model, MusicGen) or window is None or window >= frames:
        return None
    return max(1, round(STRIDE * window))


def most_frames(model: Generator) -> int | None:
    """Frames of the longest clip that a model makes; None for any: a MusicGen has windows."""
    if isinstance(model, MusicGen):
        return None
    most = [] if model.config.window is None else [model.config.window]
    if isinstance(model, SoundStorm):
        tokens = model.semantic.lm.config.window
        most += [] if tokens is None else [tokens * model.config.semantic_ratio]
    return min(most, default=None)


def generate_clips(
    model: Generator,
    heldout: CodeSet,
    chosen: Chosen,
    settings: GenerationSettings,
    place: Place | None = None,
) -> tuple[Audio, float]:
    """Generates a clip for each caption that is asked, and its melody if the model follows one.

    A clip longer than a MusicGen's window is generated in windows that share two fifths. Semantic
    tokens are never the held-out clip's: a SoundStorm's are those that its semantic model samples.

    Args:
      model: token model with a codec.
      heldout: held-out codes, whose captions and melodies are used.
      chosen: which of them are asked, and for how many frames.
      settings: how codes are sampled.
      place: where to keep the audio, and find what an earlier call with the same arguments kept;
        None keeps nothing.

    Returns:
      Audio `[M, S, C]` as a file of 16 bits holds it, and the real-time factor: seconds of
      computing per second of audio, from captions to samples, in full batches, without compiling.

    Raises:
      UserError: what does not fit the model.
    """
    asked, frames, config = chosen.asked, chosen.frames, model.codec.config
    rows, batch = len(asked), min(settings.batch, len(asked))
    captions = [heldout.captions[i] for i in asked]
    conditions_of = caption_conditions(model, captions)
    keys = row_keys(jax.random.key(settings.seed), rows)
    names = ("guidance_scale", "temperature", "top_k", "top_p")
    options = {name: getattr(settings, name) for name in names}
    options = {name: value for name, value in options.items() if value is not None}
    if (step := stride(model, frames)) is not None:
        options["stride"] = step / config.frame_rate
    note = _Note(place, _key(model, heldout, chosen, settings), rows)
    clips: list[np.ndarray | None] = [note.kept(i) for i in range(rows)]

    def generate(at: np.ndarray) -> tuple[Audio, float]:
        began = time.perf_counter()
        windows = [(int(asked[i]), 0) for i in at]
        conditions = conditions_of(at) | melodies(model, heldout, windows, [frames] * len(at))
        if not conditions or isinstance(model, VALLE):
            # A model that reads no text still asks how many clips there are; one that speaks adds
            # the words of a voice to those of the clip.
            conditions = [captions[i] for i in at]
        try:
            with progress.compiling("the first batch", repr(model)):
                audio = model.generate(conditions, frames / config.frame_rate, keys[at], **options)
        except ValueError as error:
            raise UserError(f"{error}") from error
        return audio, time.perf_counter() - began

    took: list[float] = []
    compiled = False
    for begin in progress.bar(range(0, rows, batch), **BAR):
        here = range(begin, min(begin + batch, rows))
        if all(clips[i] is not None for i in here):
            continue
        # What fills the last batch is a copy: it costs nothing to compile.
        at = np.minimum(np.arange(begin, begin + batch), rows - 1)
        audio, seconds = generate(at)
        took += [seconds] if compiled else []
        compiled = True
        for row, i in enumerate(here):
            clips[i] = note.keep(i, audio[row], config.rate)
    factor = note.real_time_factor
    if took or factor is None:
        at = np.arange(batch)
        if not compiled:
            generate(at)
        took = took or [generate(at)[1]]
        factor = float(np.mean(took)) / (batch * frames / config.frame_rate)
        note.write(factor)
    return np.stack(clips), factor


def as_kept(audio_SC: np.ndarray) -> np.ndarray:
    """Audio as a flac of 16 bits gives it back, so that what is measured of it is always one."""
    return np.clip(np.round(audio_SC * 32768.0), -32768, 32767).astype(np.float32) / 32768.0


class _Note:
    """What is said of a model's files: what made them, so that others are not taken for them."""

    def __init__(self, place: Place | None, key: str, rows: int):
        self._place, self._key, self.real_time_factor = place, key, None
        if place is None:
            return
        said = self._read().get(f"{place.number}", {})
        if said.get("key") == key:
            factor = said.get("real_time_factor")
            self.real_time_factor = factor if isinstance(factor, float) else None
            return
        for i in range(rows):
            (place.folder / place.file(i)).unlink(missing_ok=True)
        self.write(None)

    def write(self, factor: float | None) -> None:
        if self._place is not None:
            mine = {f"{self._place.number}": {"key": self._key, "real_time_factor": factor}}
            files.write_json(self._place.folder / "audio" / NOTE, self._read() | mine)

    def kept(self, i: int) -> np.ndarray | None:
        """Clip i, if it is there and whole."""
        if self._place is None:
            return None
        try:
            return io.read(self._place.folder / self._place.file(i))[0]
        except UserError:
            return None

    def keep(self, i: int, audio_SC: np.ndarray, rate: int) -> np.ndarray:
        """Writes clip i; what it is now."""
        if self._place is not None:
            io.write(self._place.folder / self._place.file(i), audio_SC, rate)
        return as_kept(audio_SC)

    def _read(self) -> dict:
        try:
            found = json.loads(opening.read_bytes(self._place.folder / "audio" / NOTE))
        except READING:
            return {}
        if not isinstance(found, dict):
            return {}
        return {name: said for name, said in found.items() if isinstance(said, dict)}


def _key(model: Generator, heldout: CodeSet, chosen: Chosen, settings: GenerationSettings) -> str:
    """Of all that the audio depends on."""
    parts = [files.fingerprint(files.named(model.params)).hex(), model.codec.fingerprint().hex()]
    if model.text is not None:
        parts.append(files.fingerprint(model.text.tensors).hex())
    if isinstance(model, SoundStorm | VALLE):
        lm = model.first.lm if isinstance(model, VALLE) else model.semantic.lm
        parts += [files.fingerprint(files.named(lm.params)).hex(), repr(lm.config)]
    if isinstance(model, MAGNeT):
        parts.append(repr(model.defaults))
    parts += [repr(model.config), kind(model), heldout.describe()["contents"]]
    words = json.dumps([parts, chosen.asked.tolist(), chosen.frames, asdict(settings)])
    return hashlib.sha256(words.encode()).hexdigest()
