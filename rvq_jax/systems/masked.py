"""What SoundStorm and MAGNeT share: folders, prompts, lengths, and the decode of a request."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from rvq_jax import config as configs
from rvq_jax import files, limits
from rvq_jax.errors import UserError, shown
from rvq_jax.lm import forms
from rvq_jax.lm import precision as precisions
from rvq_jax.lm.conditions import Conditions
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.precision import Precision
from rvq_jax.lm.sampling import Sampling
from rvq_jax.lm.schedule import Timetable
from rvq_jax.patterns import BUCKET
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.decoding.devices import Rows, place_params
from rvq_jax.systems.decoding.masked import Rescorer, generate_masked
from rvq_jax.systems.musicgen import checks, folder
from rvq_jax.systems.text_encoder import TextEncoder
from rvq_jax.typing import Audio, Codes, Key

GENERATION = "generation"  # in config.json


class Parts(NamedTuple):
    """What a folder of a masked model holds."""

    config: MaskedLMConfig
    params: nnx.State  # with lists of layers (`rvq_jax.lm.forms`)
    codec: Codec | None
    text: TextEncoder | None
    generation: object = None  # a dataclass: how it decodes where nothing else is asked for


class Request(NamedTuple):
    """What is to be generated."""

    forced: np.ndarray  # [B, K, F] int32, -1 where a code is to be sampled
    lengths: np.ndarray  # [B], frames of each row


def load(
    path: str | Path,
    kind: str,
    generation: type | None = None,
    precision: Precision = "float32",
    mesh: Mesh | None = None,
) -> Parts:
    """The parts of a folder that `save` wrote.

    Args:
      path: the folder.
      kind: of the model.
      generation: the dataclass of how a model of this kind decodes, whose defaults stand for what
        the folder does not say.
      precision: as of `MusicGen.load`.
      mesh: as of `MusicGen.load`.

    Returns:
      The parts.

    Raises:
      UserError: if it is not of this kind, a part is missing, or weights do not fit or are not
        finite.
    """
    path = files.model_folder(path)
    data = files.load_config(path)
    have = data.pop("model", data.get("model_type"))
    if have != kind:
        have = have if isinstance(have, str) else "model of unknown kind"
        raise UserError(f"{path} holds a {have}, not a {kind}")
    where, alone = f"{path}/config.json", data.pop(folder.ALONE, False) is True
    decoding = None
    if generation is not None:
        said = data.pop(GENERATION, {})
        if not isinstance(said, dict):
            raise UserError(f"{where}: {GENERATION} must be an object, got {shown(said)}")
        decoding = configs.from_dict(generation, said, f"{where}: {GENERATION}")
    config = configs.from_dict(MaskedLMConfig, data, where)
    limits.laid_out(lambda: files.named(forms.abstract(config)), where)
    params = files.load_weights(path, forms.abstract(config))
    folder.check_finite(files.named(params), path)
    codec = None if alone else Codec.load(path / "codec")
    text = TextEncoder.load(path / "text") if config.text_dim else None
    params = place_params(params, precision, mesh)
    return Parts(precisions.computed(config, precision), params, codec, text, decoding)


def save(path: Path, kind: str, parts: Parts) -> None:
    """Writes a folder's parts; path: a folder that is being written. Raises UserError for a model
    in fewer bits."""
    precisions.check_whole(parts.params, "saved")
    data = {"model": kind, **configs.to_dict(parts.config)}
    if parts.codec is None:
        data[folder.ALONE] = True
    if parts.generation is not None:
        data[GENERATION] = configs.to_dict(parts.generation)
    files.save_folder(path, data, parts.params)
    if parts.codec is not None:
        parts.codec.save(path / "codec")
    if parts.text is not None:
        parts.text.save(path / "text")


def request(
    config: MaskedLMConfig,
    codec: Codec | None,
    rows: int,
    seconds: float | Sequence[float],
    prompt: Codes | Audio | None = None,
) -> Request:
    """What is asked for, in frames.

    Args:
      config: of the model.
      codec: its codec.
      rows: B.
      seconds: the same for all rows or one for each.
      prompt: what is kept: audio `[B, S, C]`, or codes `[B, K', F']` of all levels or of the first
        ones, -1 where one is to be sampled: the beginning, or any other places.

    Returns:
      Frames and codes of each row.

    Raises:
      ValueError: no codec, seconds that are none or beyond the crops that the model was trained on,
        a prompt that does not fit, or is of no codes of this model.
    """
    if codec is None:
        raise ValueError("this model has no codec: sample codes by systems.decoding.masked")
    frame_rate = codec.config.frame_rate
    lengths = checks.frames(seconds, frame_rate)
    if lengths.shape not in ((), (1,), (rows,)):
        raise ValueError(f"seconds must be one number, or {rows}, one for each row")
    lengths = np.broadcast_to(lengths, (rows,))
    total = int(lengths.max())
    if config.window is not None and total > config.window:
        raise ValueError(
            f"{total / frame_rate:.3g} s is beyond the model's window of "
            f"{config.window / frame_rate:.3g} s: ask for less, and continue it with its end as "
            "the prompt"
        )
    forced = np.full((rows, config.levels, total), -1, np.int32)
    if prompt is None:
        return Request(forced, lengths)
    prompt = np.asarray(prompt)
    checks.prompt(prompt, rows, codec.config.channels)
    if np.issubdtype(prompt.dtype, np.floating):
        prompt = np.asarray(codec.encode(prompt).codes)[:, : config.levels]
    _, levels, frames = prompt.shape
    if levels > config.levels:
        raise ValueError(f"the prompt has {levels} levels, the model {config.levels}")
    if frames > total:
        raise ValueError(f"the prompt has {frames} frames, the audio {total}")
    forced[:, :levels, :frames] = prompt
    checks.codes(config, forced, least=-1)
    return Request(forced, lengths)


def checked(config: MaskedLMConfig, iterations: Sequence[int]) -> tuple[int, ...]:
    """Iterations of every level; raises ValueError for another number of levels."""
    if len(iterations) != config.levels:
        raise ValueError(f"iterations are of {config.levels} levels, got {len(iterations)}")
    return tuple(iterations)


def sample(
    config: MaskedLMConfig,
    params: nnx.State,
    table: Timetable,
    conditions: Conditions,
    keys: Key,
    asked: Request,
    sampling: Sampling,
    rescorer: Rescorer | None = None,
) -> Codes:
    """Codes `[B, K, F]` of a request, in one program of all iterations.

    Near lengths share a program: frames are padded to a multiple of a bucket, and semantic tokens
    with them.

    Args:
      config: of the model.
      params: with lists of layers.
      table: the iterations.
      conditions: of B rows.
      keys: `[B]`.
      asked: what is to be generated.
      sampling: top-k and top-p.
      rescorer: as of `generate_masked`.

    Returns:
      Codes; after the end of its row a code means nothing.
    """
    frames = asked.forced.shape[2]
    padded = frames + -frames % BUCKET
    forced = np.pad(asked.forced, [(0, 0), (0, 0), (0, padded - frames)], constant_values=-1)
    inside_BF = np.arange(padded)[None] < asked.lengths[:, None]
    forced = np.where(inside_BF[:, None], forced, -1)
    if "semantic" in conditions:
        wanted = config.semantic_tokens(padded)
        conditions = conditions | {"semantic": _widened(conditions["semantic"], wanted)}
    rows = Rows.of(params, len(forced))
    if rescorer is not None:
        rescorer = rescorer._replace(conditions=rows.place(rescorer.conditions))
    args = rows.place((conditions, keys, forced, asked.lengths))
    with rows.running():
        found = generate_masked(config, params, table, *args, sampling=sampling, rescorer=rescorer)
    return np.asarray(found.codes)[: rows.count, :, :frames]


def pieces(audio: Audio, codec: Codec, chunk: float) -> Iterator[Audio]:
    """Audio `[B, S, C]` in pieces of so many seconds; raises ValueError unless above 0."""
    checks.seconds(chunk, "chunk")
    samples = max(1, round(chunk * codec.config.rate))
    for begin in range(0, audio.shape[1], samples):
        yield audio[:, begin : begin + samples]


def _widened(tokens, wanted: int):
    """A condition of tokens `[B, L]` with so many of them, those added without any meaning."""
    more = [(0, 0), (0, wanted - tokens.states.shape[1])]
    return tokens._replace(states=np.pad(tokens.states, more), mask=np.pad(tokens.mask, more))
