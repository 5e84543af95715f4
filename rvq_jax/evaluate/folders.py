"""An evaluation as a folder: codecs and clips read from files, results and audio written beside."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rvq_jax import files, machine
from rvq_jax.audio import io
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import LeftOut, UserError
from rvq_jax.evaluate import codecs, coders, results
from rvq_jax.evaluate import pieces as cutting
from rvq_jax.evaluate import speech as speeches
from rvq_jax.evaluate.embeddings import load_embedding
from rvq_jax.evaluate.heldout import open_heldout, open_model
from rvq_jax.evaluate.pieces import Clip
from rvq_jax.evaluate.points import CodecPoints, CoderPoint, levels_of
from rvq_jax.evaluate.rows import Rows
from rvq_jax.evaluate.settings import GenerationSettings
from rvq_jax.evaluate.tokens import evaluate_tokens
from rvq_jax.lm.precision import Precision
from rvq_jax.systems import generators
from rvq_jax.systems.codec import Codec
from rvq_jax.train.codes import MUSICGENS

LISTENED = 8  # clips that are kept to be listened to


def evaluate_codecs(
    out: Path,
    paths: Sequence[Path],
    data: Path,
    *,
    levels: Sequence[int] | None = None,
    against: Sequence[str] = (),
    signal: str = "music",
    metrics: Sequence[str] | None = None,
    split: str | None = None,
    piece: float = codecs.PIECE,
    batch: int = codecs.BATCH,
    listened: int = LISTENED,
) -> dict:
    """Measures codecs and coders on a folder of audio, going on where an earlier call stopped.

    What was measured is kept in `out`, clip by clip: calls with other codecs or coders add to it.

    Args:
      out: folder of the evaluation; gets rows.jsonl and the audio of some clips.
      paths: codec folders.
      data: folder of audio files.
      levels: numbers of levels to decode; 1, 2, 4 … and all for None.
      against: coders, such as "opus:12".
      signal: "speech" or "music".
      metrics: names of those to measure; all of the signal for None.
      split: of metadata.csv, to take only its files; None for all.
      piece: seconds that are coded and measured at once.
      batch: pieces that a codec takes at once.
      listened: clips whose first piece is kept as audio.

    Returns:
      What results.json holds, but for where it was measured.

    Raises:
      UserError: nothing to compare, unknown coders, levels or metrics, no codec, no audio, no clip
        that can be read, or a folder that cannot be written to.
    """
    if not paths and not against:
        raise UserError("nothing to evaluate: name a codec folder, or coders with --against")
    compared = [CoderPoint(coders.parse(text, signal)) for text in against]
    measures = codecs.measures_of(signal, metrics)
    found = cutting.of_folder(data, split)
    if split is None:
        cutting.check_apart(data, out)
    _check_place(out)
    made = zip(labels(paths), map(Codec.load, paths), strict=True)
    sources: list = [
        CodecPoints(name, codec, levels_of(codec, levels, name), piece, batch)
        for name, codec in made
    ]
    names = [point.name for source in [*sources, *compared] for point in source.points]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"{twice} is given twice; leave one away")
    # A codec of one channel cannot be asked for two: all get the task that all can do.
    mono = any(source.codec.config.channels == 1 for source in sources)
    settings = codecs.Settings(1 if mono else None, piece, batch)
    rows, audio, every = Rows(out), Kept(out, found, listened), [*sources, *compared]
    # Coders first: what they refuse is said before codecs take their time.
    left = codecs.measure([*compared, *sources], found, measures, rows, settings, audio)
    if len(left) == len(found):
        name, why = next(iter(left.items()))
        raise UserError(f"none of {len(found)} files in {data} can be measured on: {name}: {why}")
    done = results.of_codecs(every, found, measures, rows, left, settings)
    done["data"] = {"folder": str(data), "signal": signal, **done["data"]}
    points = [point for source in every for point in source.points]
    keys = {point.name: settings.key(point.key) for point in points}
    done["players"] = audio.players(settings.key(codecs.ORIGINAL), keys)
    return done


def evaluate_models(
    out: Path,
    paths: Sequence[Path],
    data: Path,
    *,
    embeddings: Sequence[Path] = (),
    settings: GenerationSettings | None = None,
    speech: bool = False,
    precision: Precision = "float32",
) -> tuple[dict, LeftOut | None]:
    """Measures token models on held-out clips (see `tokens.evaluate_tokens`).

    Args:
      out: folder of the evaluation; keeps what is generated and encoded.
      paths: folders of token models or of their runs.
      data: held-out codes, a dataset or a folder of audio (see `heldout.open_heldout`).
      embeddings: files or folders of one's own (see `embeddings.load_embedding`).
      settings: how many clips are generated, and how.
      speech: measure what models say too (see `speech.evaluate_speech`), beside the training clips
        of train.npz where the held-out codes lie beside one.
      precision: of the models' weights and caches, as of `MusicGen.load`.

    Returns:
      What results.json holds, but for where it was measured; and files that were left out.

    Raises:
      UserError: no token model, no held-out clips, or what does not fit.
    """
    _check_place(out)
    given = [load_embedding(path) for path in embeddings]
    opened = {n: open_model(p, precision) for n, p in zip(labels(paths), paths, strict=True)}
    models = {name: one.model for name, one in opened.items()}
    if speech:
        speeches.check(models)
    held = open_heldout(data, list(models.values()), out)
    said = None
    if speech:  # first, as what it refuses is said before bits take their time
        own = settings or GenerationSettings()
        said = speeches.evaluate_speech(
            models, held.codes, audio=held.audio, train=_training(data), out=out, settings=own
        )
    done = evaluate_tokens(
        models,
        held.codes,
        audio=held.audio,
        frames={name: one.frames for name, one in opened.items() if one.frames},
        user_embeddings=given,
        out=out,
        source=held.source,
        settings=settings,
    )
    if said is not None:
        done["speech"] = said
    return done, held.left_out


def _training(data: Path) -> CodeSet | None:
    """The training codes beside held-out ones."""
    path = (data if data.is_dir() else data.parent) / "train.npz"
    return CodeSet.load(path) if path.is_file() else None


def _check_place(out: Path) -> None:
    """Raises UserError where results could not be written."""
    files.check_folder(out, None)
    for name in ("results.json", "report.html"):
        files.check_file(out / name)


def are_codecs(paths: Sequence[Path]) -> bool:
    """Whether folders are of codecs, not of token models; raises UserError for some of both."""
    kinds = {_is_codec(path) for path in paths} or {True}
    if len(kinds) > 1:
        raise UserError("codecs and token models are measured by other things; evaluate them apart")
    return kinds.pop()


def _is_codec(path: Path) -> bool:
    fields = files.load_config(files.model_folder(path))
    known = MUSICGENS | generators.KINDS.keys()
    return not {f"{fields.get(name)}" for name in ("model", "model_type")} & known


class Kept:
    """The first piece of some clips, evenly among all, as every point decodes it."""

    def __init__(self, out: Path, clips: Sequence[Clip], listened: int):
        places = np.linspace(0, len(clips) - 1, min(listened, len(clips))).round().astype(int)
        self.clips = [clips[i] for i in dict.fromkeys(places.tolist())]
        self.out = out

    def keep(self, clip: Clip, key: str, audio_SC: np.ndarray, rate: int) -> None:
        """Writes what is made of a clip if it is one of those; arguments of `codecs.Audio.keep`."""
        if clip in self.clips:
            io.write(self._path(clip, key), audio_SC, rate)

    def has(self, clip: Clip, key: str) -> bool:
        """Whether there is nothing left to keep of a clip and a point."""
        return clip not in self.clips or self._path(clip, key).exists()

    def players(self, original: str, keys: dict[str, str]) -> list[dict]:
        """What there is to listen to, as results.json has it.

        original: key of the clips as they were; keys: those of points, by their names.
        """
        made = []
        for clip in self.clips:
            places = {name: self._path(clip, key) for name, key in keys.items()}
            whole, found = (
                self._path(clip, original),
                {n: p for n, p in places.items() if p.exists()},
            )
            if whole.exists() and found:
                systems = {name: self._within(path) for name, path in found.items()}
                made.append(
                    {"file": clip.name, "original": self._within(whole), "systems": systems}
                )
        return made

    def _path(self, clip: Clip, key: str) -> Path:
        return self.out / "audio" / clip.identity[:12] / f"{key}.flac"

    def _within(self, path: Path) -> str:
        return path.relative_to(self.out).as_posix()


def with_provenance(done: dict, command: str, began: float) -> dict:
    """Results with where they come from: the command, commit, versions and machine."""
    return {**done, "command": command, **machine.provenance(began), "date": time.strftime("%F")}


def labels(paths: Sequence[Path]) -> list[str]:
    """Short names that tell folders apart: as much of the end of their paths as that takes."""
    parts = [[p for p in path.absolute().parts if p not in ("/", "model")] for path in paths]
    for count in range(1, 1 + max(map(len, parts), default=0)):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
