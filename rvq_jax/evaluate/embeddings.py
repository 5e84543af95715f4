"""What Fréchet distances are measured in: statistics of log-mel, latents of a codec, the user's."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rvq_jax import metrics
from rvq_jax.codec import autoencoder
from rvq_jax.errors import UserError, reading, shown
from rvq_jax.opening import opened
from rvq_jax.systems.codec import Codec
from rvq_jax.typing import Array, Audio

ARRAY = ".npy"
ROWS = 8  # clips that are encoded at a time


@dataclass(frozen=True)
class Embedding:
    """A function from audio `[B, S, C]` and its rate to vectors `[m, D]` of each clip."""

    name: str
    embed: Callable[[Audio, int], list[np.ndarray]]


@dataclass(frozen=True)
class Vectors:
    """Vectors that were made elsewhere, of clips `[m, D]`."""

    name: str
    real: list[np.ndarray]
    generated: dict[str, list[np.ndarray]]  # by the name of the model; "" for the only one


class Features(NamedTuple):
    """Vectors `[m, D]` of the clips of several sets."""

    name: str  # of the embedding
    real: dict[str, list[np.ndarray]]  # by what the set is for
    generated: dict[str, list[np.ndarray]]  # by the name of the model


def load_embedding(path: str | Path) -> Embedding | Vectors:
    """The user's own embedding: a Python file, or a folder of arrays.

    Args:
      path: a file with `embed(audio_S, rate)`, which gives `[M, D]` of a clip, or `[D]`; or a
        folder with an array of a clip in each `real/*.npy` and `generated/*.npy`, or of several
        models `generated/MODEL/*.npy`.

    Raises:
      UserError: no such file or folder, or what is in it is no embedding.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    if path.suffix != ".py" or not path.is_file():
        raise UserError(
            f"{path} is no embedding; give a Python file with embed(audio_S, rate), or a folder "
            "of real/*.npy and generated/*.npy"
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, "embed", None)):
        raise UserError(f"{path} has no function embed(audio_S, rate); write one")
    return of_function(path.stem, module.embed)


def log_mel() -> Embedding:
    """Statistics of log-mel (see `metrics.frechet_features`)."""
    return Embedding(
        "log-mel statistics",
        lambda audio, rate: [
            metrics.frechet_features(audio_SC.mean(axis=1), rate) for audio_SC in audio
        ],
    )


def codec_latents(codec: Codec) -> Embedding:
    """Means over half a second of the codec's latents before quantization; channels that it codes
    apart have theirs side by side."""
    return Embedding("codec latents", lambda audio, rate: _latents(codec, audio))


def of_function(name: str, function: Callable[[np.ndarray, int], Array]) -> Embedding:
    """An embedding by a function of one clip `[S]` float32, its channels mixed, and its rate, which
    gives vectors `[M, D]` or `[D]`.

    The embedding raises UserError if the function fails, or gives no vectors, NaN, or vectors of
    different lengths.
    """

    def embed(audio: Audio, rate: int) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        for i, audio_SC in enumerate(audio):
            try:
                value = function(np.asarray(audio_SC.mean(axis=1), np.float32), rate)
                vectors = np.asarray(value, np.float64)
            except (Exception, SystemExit) as error:
                what = f"{type(error).__name__}: {error}"
                raise UserError(f"embedding {name} fails on clip {i}: {what}") from error
            found.append(_checked(vectors, f"embedding {name}, clip {i}"))
        return found

    return Embedding(name, embed)


def features_of(
    embedding: Embedding | Vectors, real: dict[str, Audio], generated: dict[str, Audio], rate: int
) -> Features:
    """Vectors of real and of generated clips.

    Args:
      embedding: that makes them, or has them: then the first half of its real clips is the
        reference and as many others are the floor.
      real: audio `[B, S, C]` by what it is for: reference, floor and others.
      generated: audio by the name of the model.
      rate: hertz.

    Raises:
      UserError: vectors that are none, of different lengths, or of no clip of a model.
    """
    if isinstance(embedding, Vectors):
        return _given(embedding, list(generated))
    found = Features(
        embedding.name,
        {name: embedding.embed(audio, rate) for name, audio in real.items()},
        {name: embedding.embed(audio, rate) for name, audio in generated.items()},
    )
    every = [clip for clips in (*found.real.values(), *found.generated.values()) for clip in clips]
    _check_alike(every, f"embedding {embedding.name}")
    return found


def _given(vectors: Vectors, models: list[str]) -> Features:
    """Of vectors that were made elsewhere as many on each side as there are of the fewest."""
    if [*vectors.generated] == [""] and len(models) == 1:
        generated = {models[0]: vectors.generated[""]}
    elif missing := [name for name in models if name not in vectors.generated]:
        raise UserError(
            f"embedding {vectors.name} has no vectors of {missing[0]}; put them into "
            f"generated/{missing[0]}/"
        )
    else:
        generated = {name: vectors.generated[name] for name in models}
    count = max(1, min(len(vectors.real) // 2, *map(len, generated.values())))
    real = {"reference": vectors.real[:count]}
    if len(vectors.real) >= 2 * count:
        real["floor"] = vectors.real[count : 2 * count]
    return Features(vectors.name, real, {name: x[:count] for name, x in generated.items()})


def _latents(codec: Codec, audio: Audio) -> list[np.ndarray]:
    config, params, _ = codec.prepared
    rows, samples, channels = audio.shape
    ways, size = channels // config.channels, max(1, round(0.5 * config.frame_rate))
    found = []
    for begin in range(0, rows, ROWS):
        part = audio[np.minimum(np.arange(begin, begin + ROWS), rows - 1)]
        apart = part.reshape(ROWS, samples, ways, config.channels).swapaxes(1, 2)
        apart = apart.reshape(ROWS * ways, samples, config.channels)
        if config.normalize:
            apart = apart / np.asarray(autoencoder.loudness(apart))[:, None, None]
        latents = np.asarray(autoencoder.latents(config, params, apart))
        latents = latents.reshape(ROWS, ways, *latents.shape[1:]).swapaxes(1, 2)
        latents = latents.reshape(ROWS, latents.shape[1], -1)
        found += [_means(clip, size) for clip in latents[: rows - begin]]
    return found


def _means(latents_FD: np.ndarray, size: int) -> np.ndarray:
    """Means of consecutive parts; what is left at the end counts if there is nothing else."""
    count = max(1, len(latents_FD) // size)
    return np.stack([latents_FD[i * size : (i + 1) * size].mean(0) for i in range(count)])


def _folder(path: Path) -> Vectors:
    real, generated = path / "real", path / "generated"
    if not real.is_dir() or not generated.is_dir():
        raise UserError(f"{path} has no folders real/ and generated/ of {ARRAY} files; make them")
    models = {place.name: place for place in sorted(generated.iterdir()) if place.is_dir()}
    models = models or {"": generated}
    vectors = Vectors(path.name, _arrays(real), {n: _arrays(place) for n, place in models.items()})
    for clips in vectors.generated.values():
        _check_alike(vectors.real + clips, f"{path}")
    return vectors


def _arrays(folder: Path) -> list[np.ndarray]:
    files = sorted(path for path in folder.iterdir() if path.suffix == ARRAY)
    if not files:
        raise UserError(f"{folder} has no {ARRAY} files; write one for each clip")
    found = []
    for path in files:
        with reading(path, "an array of vectors"), opened(path) as file:
            array = np.lib.format.read_array(file, allow_pickle=False).astype(np.float64)
        found.append(_checked(array, f"{path}"))
    return found


def _checked(vectors: np.ndarray, where: str) -> np.ndarray:
    if vectors.ndim not in (1, 2) or 0 in vectors.shape:
        raise UserError(f"{where}: {shown(vectors.shape)} is no vectors; give [M, D] or [D]")
    if not np.isfinite(vectors).all():
        raise UserError(f"{where}: vectors have NaN or infinite numbers")
    return np.atleast_2d(vectors)


def _check_alike(clips: Sequence[np.ndarray], where: str) -> None:
    lengths = sorted({clip.shape[1] for clip in clips})
    if len(lengths) > 1:
        raise UserError(
            f"{where}: vectors have {lengths[0]} and {lengths[-1]} features; make them alike"
        )
