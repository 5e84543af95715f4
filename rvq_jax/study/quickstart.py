"""`rvq-jax quickstart`: which interleaving pattern for this audio, and what does it cost?"""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from rvq_jax import builtin, files, metrics, opening, patterns
from rvq_jax import machine as machines
from rvq_jax.audio import io
from rvq_jax.codec.config import CodecConfig
from rvq_jax.data import builder, loader
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import READING, UserError
from rvq_jax.lm.model import LMConfig
from rvq_jax.study import codecs, models, report
from rvq_jax.systems.codec import Codec
from rvq_jax.train import log
from rvq_jax.train.codes import cached_codes
from rvq_jax.train.loop import LoopConfig, open_run
from rvq_jax.train.runs import CodecRun, LMRun, train_codec
from rvq_jax.train.state import OptimizerConfig

RESULTS = ("results.json", "results.md", "report.html", "wall.json", "samples/x.flac")
HEARD = 2  # captions whose generated audio is in the report
SIX = ("parallel", "delay", "partial_delay", "flatten", "partial_flatten", "coarse_first")


@dataclass(frozen=True)
class StudyConfig:
    """Everything the study can vary; the defaults end within 5 minutes on two cores."""

    patterns: tuple[str, ...] = SIX
    seeds: tuple[int, ...] = (0,)  # one token model per pattern and seed; 0 1 2 for a full study
    levels: int = 4  # the first ones of the built-in codec's
    train_codec: bool = False  # train a codec on the data, to take in place of the built-in one
    codec: CodecRun = field(
        default_factory=lambda: CodecRun(loop=LoopConfig(steps=1000, checkpoint_every=250))
    )
    model: LMRun = field(
        default_factory=lambda: LMRun(
            # Its levels and codebook_size become the codec's.
            lm=LMConfig(dim=128, layers=1, mlp_dim=256),
            loop=LoopConfig(steps=300, checkpoint_every=150),
            # Strong decay: minutes of audio are seen ten times over, and at 0.1 flatten and delay
            # overfit them.
            optimizer=OptimizerConfig(learning_rate=8e-3, weight_decay=0.5),
            frames=60,
        )
    )
    clips: int = 8  # generated per pattern, to be measured
    seconds: float = 4.0  # of each clip in the report, at most
    guidance_scale: float = 2.0  # classifier-free
    top_k: int = 64


def study(out: str | Path, data: str | Path | None, config: StudyConfig, command: str) -> dict:
    """Runs the whole study: which interleaving pattern for this audio, and what does it cost?

    Started again after an interruption it goes on where it was.

    Args:
      out: folder for all that the study writes.
      data: folder of audio files; None for the built-in corpus.
      config: everything that the study can vary.
      command: the command line that asked for the study, which results.json keeps.

    Returns:
      What results.json holds.

    Raises:
      UserError: when anything is wrong with the input or the folder.
    """
    out = Path(out)
    if config.train_codec:
        files.check_folder(out / "codec" / "model")
    for name in RESULTS:
        files.check_file(out / name)
    spent = _stopwatch(out)
    names = tuple(patterns.canonical(name) for name in config.patterns)
    codec = None if config.train_codec else codecs.builtin_codec(config.levels)
    sizes = config.codec.codec if codec is None else codec.config
    config = _sized(config, sizes)
    rate, hop = sizes.rate, sizes.hop
    origin = {"data": "built-in" if data is None else str(Path(data).resolve())}
    origin["version"] = None if codec is None else builtin.VERSION
    stated = origin | dataclasses.asdict(config)
    if (out / "config.json").exists():
        open_run(out, stated)
    # A new run begins with its data: bad input leaves no folder behind.
    dataset = builder.build(data, out / "dataset", rate, sizes.channels, hop, captioned=True)
    open_run(out, stated)
    train = builder.open_split(dataset, "train")
    heldout = builder.open_split(dataset, "heldout")

    if codec is None:
        codec = train_codec(out / "codec", train, config.codec)
        codec.save(out / "codec" / "model")
    codes = cached_codes(out / "codes" / "train.npz", codec, train, "codes")
    held_codes = cached_codes(out / "codes" / "heldout.npz", codec, heldout, "held-out")
    levels = codecs.by_level(codec, heldout, codes)
    spent()

    rows, params = models.train_and_score(
        out / "models", codec, codes, held_codes, config.model, names, config.seeds
    )
    spent()
    samples = _reconstructions(out, codec, heldout, config)
    captions = _captions(held_codes, config.clips)
    groups = _asked(out, held_codes, heldout, captions[:HEARD], config.seconds, rate)
    real = _real_features(heldout, config.model.frames * hop, rate)
    for name in names:
        row = models.generate_and_compare(
            config.model,
            name,
            params[name],
            codec,
            captions,
            real,
            config.guidance_scale,
            config.top_k,
        )
        rows[name] |= row
        audio = models.heard(
            config.model,
            name,
            params[name],
            codec,
            captions[: len(groups)],
            config.seconds,
            config.guidance_scale,
            config.top_k,
        )
        for i, group in enumerate(groups):
            group["players"].append(_player(out, f"generated{i}_{name}", name, audio[i], rate))

    used = metrics.code_counts(codes.codes, codes.codebook_size)
    results = {
        "command": command,
        "commit": machines.commit(),
        "machine": machines.machine(),
        "versions": machines.versions(),
        "seeds": list(config.seeds),
        "data": {
            "name": origin["data"] if data is None else Path(data).name,
            "rate": rate,
            "clips": len(train) + len(heldout),
            "train_minutes": _minutes(codes),
            "heldout_minutes": _minutes(held_codes),
        },
        "codec": {
            "name": _codec_name(config),
            "parameters": _count(codec.params),
            "hop": hop,
            "frame_rate": codec.config.frame_rate,
            "codebook_size": codec.config.codebook_size,
            **_training(out, config),
            "levels": levels,
        },
        "language_model": {
            "parameters": _count(params[names[0]]),
            "layers": config.model.lm.layers,
            "dim": config.model.lm.dim,
            "batch": config.model.batch,
            "updates": config.model.loop.steps,
        },
        "patterns": [rows[name] for name in names],
        "pairs": models.compared(rows, held_codes),
        "information": {
            "levels": metrics.between_levels(codes.codes, codes.codebook_size).tolist(),
            "lags": metrics.between_lags(codes.codes, codes.codebook_size).tolist(),
        },
        "code_counts": used.tolist(),
        "curves": _curves(out, names, config),
        "samples": samples + groups,
        "date": time.strftime("%F"),
    }
    results["wall_seconds"] = spent()
    results["peak_memory_gb"] = machines.peak_memory_gb()
    files.write_json(out / "results.json", results)
    with files.writing(out / "results.md") as path:
        path.write_text(report.markdown(results), encoding="utf-8", errors="backslashreplace")
    report.write(out, results)
    return results


def _sized(config: StudyConfig, codec: CodecConfig) -> StudyConfig:
    """The study with its token model at the codec's sizes: others than the defaults are refused."""
    if not config.patterns or not config.seeds:
        raise UserError("the study needs at least one pattern and one seed")
    lm, unset = config.model.lm, StudyConfig().model.lm
    for name in ("levels", "codebook_size"):
        stated, wanted = getattr(lm, name), getattr(codec, name)
        if stated not in (wanted, getattr(unset, name)):
            raise UserError(
                f"model.lm.{name} is {stated}, and the codec's is {wanted}; leave it away"
            )
    lm = dataclasses.replace(lm, levels=codec.levels, codebook_size=codec.codebook_size)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, lm=lm))


def _stopwatch(out: Path) -> Callable[[], float]:
    """A function that notes the study's seconds so far, over all processes that worked on it.

    A process that is killed counts up to its last note; a finished study counts no further.
    """
    began, path = time.perf_counter(), out / "wall.json"
    earlier = 0.0
    # What cannot be read counts for nothing: it is a number in a report.
    with contextlib.suppress(*READING):
        stated = float(json.loads(opening.read_bytes(path)))
        earlier = stated if math.isfinite(stated) else 0.0

    def spent() -> float:
        if (out / "results.json").exists():
            return earlier
        seconds = earlier + time.perf_counter() - began
        files.write_json(path, seconds)
        return seconds

    return spent


def _captions(codes: CodeSet, count: int) -> list[str]:
    """Held-out captions, each once, repeated if there are fewer than `count`."""
    unique = list(dict.fromkeys(codes[i]["caption"] for i in range(len(codes))))
    return [unique[i % len(unique)] for i in range(count)]


def _real_features(heldout, samples: int, rate: int) -> np.ndarray:
    """Fréchet features of held-out audio in windows as long as the generated clips."""
    parts = []
    for batch in loader.segments(heldout, samples, 8):
        full = batch["mask"].all(axis=1)
        parts += [metrics.frechet_features(x.mean(axis=1), rate) for x in batch["audio"][full]]
    if not parts:
        raise UserError(
            f"no held-out clip is {samples / rate:.1f} s long, as generated clips are; "
            "add longer clips to the valid or test split"
        )
    return np.concatenate(parts)


def _reconstructions(out: Path, codec: Codec, heldout, config: StudyConfig) -> list[dict]:
    """Players of three held-out clips: the original, and decoded from 1, 2, … K levels."""
    rate = codec.config.rate
    samples = round(config.seconds * rate)
    groups, seen = [], set()
    for i in range(len(heldout)):
        record = heldout[i]
        clip = record["name"].split("#")[0]
        if clip in seen or len(groups) == 3:
            continue
        seen.add(clip)
        audio = record["audio"][:samples]
        coded = codec.encode(audio[None])
        players = [_player(out, f"heldout{len(groups)}_original", "original", audio, rate)]
        for k in range(codec.config.levels):
            decoded = codec.decode(coded._replace(codes=coded.codes[:, : k + 1]))[0]
            name = f"heldout{len(groups)}_levels{k + 1}"
            label = f"{k + 1} level{'s' if k else ''}"
            players.append(_player(out, name, label, np.asarray(decoded), rate))
        groups.append(
            {
                "group": "reconstruction",
                "title": clip,
                "caption": record["caption"],
                "players": players,
            }
        )
    return groups


def _asked(
    out: Path, codes: CodeSet, heldout, captions: list[str], seconds: float, rate: int
) -> list[dict]:
    """A group for each caption that generated audio is heard for, with the held-out clip that it is
    of."""
    groups = []
    for i, caption in enumerate(dict.fromkeys(captions)):
        audio = heldout[codes.captions.index(caption)]["audio"][: round(seconds * rate)]
        players = [_player(out, f"generated{i}_original", "original", audio, rate)]
        said = {"title": caption, "caption": "", "players": players}
        groups.append({"group": "generation", **said})
    return groups


def _player(out: Path, name: str, label: str, audio: np.ndarray, rate: int) -> dict:
    file = f"samples/{name}.flac"
    io.write(out / file, audio, rate)
    return {"label": label, "file": file}


def _curves(out: Path, names: tuple, config: StudyConfig) -> dict:
    """Loss over updates of the codec, if it was trained, and of each pattern's first seed."""
    runs = {"codec": out / "codec"} if config.train_codec else {}
    runs |= {n: out / "models" / f"pattern={n},seed={config.seeds[0]}" for n in names}
    return {
        name: [[line["step"], line.get("loss")] for line in log.read(folder / "metrics.jsonl")]
        for name, folder in runs.items()
    }


def _codec_name(config: StudyConfig) -> str:
    if config.train_codec:
        return "trained here"
    words = ["provisional"] * builtin.PROVISIONAL + ["the first levels of it"]
    return f"{builtin.VERSION} ({', '.join(words)})"


def _training(out: Path, config: StudyConfig) -> dict:
    """What training the codec took, as its log says; nothing of the built-in one."""
    if not config.train_codec:
        return {"train_seconds": 0.0, "updates": 0}
    lines = log.read(out / "codec" / "metrics.jsonl")
    seconds = max([line["seconds"] for line in lines], default=0.0)
    return {"train_seconds": seconds, "updates": config.codec.loop.steps}


def _minutes(codes: CodeSet) -> float:
    return sum(c.shape[1] for c in codes.codes) / codes.frame_rate / 60


def _count(params) -> int:
    return sum(x.size for x in jax.tree.leaves(params))
