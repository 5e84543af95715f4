"""Folders of audio ↔ folders of codes: batches of a few static shapes, so that little compiles."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from rvq_jax import files, progress
from rvq_jax.audio import folder as audio_folder
from rvq_jax.audio import io
from rvq_jax.codec import segments
from rvq_jax.errors import LeftOut, UserError, reading, reason_of
from rvq_jax.offline import encode_file, read_write
from rvq_jax.systems.codec import Codec, Coded

BUCKETS = (1, 2, 4, 8, 16, 32)  # seconds
TOGETHER = 32.0  # seconds of audio in a batch


def encode_folder(
    codec: Codec,
    source: str | Path,
    target: str | Path,
    *,
    levels: int | None = None,
    kbps: float | None = None,
    entropy: bool = True,
    chunk: float = encode_file.CHUNK,
    together: float = TOGETHER,
    strict: bool = False,
    replace: bool = True,
) -> list[Path]:
    """Encodes every audio file below a folder to an .rvq file of the same name below another.

    Files of about the same length are encoded together, and get the codes that they get alone. A
    file that cannot be read is left out, with nothing written for it, and reported at the end, when
    all others are done; a place that cannot be written to ends the work at once.

    Args:
      codec: codec to encode with.
      source: folder of the audio files.
      target: folder for the .rvq files.
      levels: number of first levels to encode, as in `encode_file`.
      kbps: bandwidth in kilobits per second, as in `encode_file`.
      entropy: whether codes are entropy coded, or only packed.
      chunk: seconds per step of audio that is too long for a batch.
      together: seconds of audio in a batch, padding included.
      strict: read every file first, and write none if one cannot be read.
      replace: whether files that are there already are replaced; else they are an error.

    Returns:
      The files written.

    Raises:
      UserError: when a file could not be written, there is no file to read, two files would become
        one, or the codec does not offer such levels or kbps.
      LeftOut: when files could not be read.
    """
    levels = encode_file.levels_of(codec, levels, kbps)
    pairs = _pairs(source, target, io.SUFFIXES, ".rvq", io.UNREAD, replace)
    hash, rate = codec.fingerprint(), codec.config.rate

    def read(path: Path):
        audio_SC = encode_file.read_audio(codec, path)
        return _bucket(len(audio_SC) / rate), audio_SC

    def alone(path: Path, audio_SC: np.ndarray, goal: Path) -> None:
        coded = encode_file.encode(codec, audio_SC, levels, chunk)
        encode_file.save(codec, coded, goal, hash, entropy)

    def batch(bucket, audio: list[np.ndarray], goals: list[Path]) -> None:
        size = _size(bucket, together)
        for coded, goal in zip(_encode(codec, bucket, audio, size, levels), goals, strict=False):
            encode_file.save(codec, coded, goal, hash, entropy)

    def size_of(bucket) -> int:
        return _size(bucket, together)

    return _work("encode", source, pairs, read, alone, batch, size_of, strict)


def decode_folder(
    codec: Codec,
    source: str | Path,
    target: str | Path,
    *,
    levels: int | None = None,
    suffix: str = ".wav",
    chunk: float = encode_file.CHUNK,
    together: float = TOGETHER,
    strict: bool = False,
    replace: bool = True,
) -> list[Path]:
    """Decodes every .rvq, .ecdc and .dac file below a folder, the inverse of `encode_folder`.

    Damaged files are left out and reported at the end.

    Args:
      codec: codec that made the files.
      source: folder of the files of codes.
      target: folder for the audio files.
      levels: number of first levels to decode; None for all that a file has.
      suffix: suffix of the audio files, which says their format, such as `.flac`.
      chunk: seconds per step of audio that is too long for a batch.
      together: seconds of audio in a batch, padding included.
      strict: read every file first, and write none if one cannot be read.
      replace: whether files that are there already are replaced; else they are an error.

    Returns:
      The files written.

    Raises:
      UserError: when a file could not be written, there is no file to read, or two files would
        become one.
      LeftOut: when files could not be read.
    """
    pairs = _pairs(source, target, encode_file.CODES, suffix, (), replace)
    hash, rate = codec.fingerprint(), codec.config.rate

    def read(path: Path):
        if path.suffix.lower() == ".dac":
            return None, encode_file.decode(codec, path, hash, levels, chunk)
        coded = read_write.read(path, codec, hash, levels)
        bucket = _bucket(coded.samples / rate)
        return bucket and (bucket, coded.codes.shape[1]), coded

    def alone(path: Path, found, goal: Path) -> None:
        if isinstance(found, Coded):
            found = np.asarray(codec.decode(found, chunk=chunk)[0]), rate
        encode_file.write_audio(goal, *found)

    def batch(key, items: list[Coded], goals: list[Path]) -> None:
        audio = _decode(codec, key[0], items, _size(key[0], together))
        for audio_SC, goal in zip(audio, goals, strict=False):
            encode_file.write_audio(goal, audio_SC, rate)

    def size_of(key) -> int:
        return _size(key[0], together)

    return _work("decode", source, pairs, read, alone, batch, size_of, strict)


def _pairs(
    source,
    target,
    suffixes: tuple[str, ...],
    suffix: str,
    unread: tuple[str, ...],
    replace: bool,
) -> list[tuple[Path, Path]]:
    """Files below one folder and what they become below another, sorted.

    unread: suffixes of files that are to be named as such, of which nothing is made.
    """
    source, target = Path(source), Path(target)
    if not source.is_dir():
        raise UserError(f"folder {source} is not there; check the name")
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file, and {source} a folder; name a folder")
    names = audio_folder.names(source, suffixes + unread)
    if not names:
        raise UserError(f"folder {source} has nothing to read; put {', '.join(suffixes)} files in")
    seen: dict[Path, Path] = {}
    for name in names:
        goal = name.with_suffix(suffix)
        if name.suffix.lower() in unread:
            goal = name.with_name(f"{name.name}{suffix}")
        if goal in seen:
            raise UserError(f"{seen[goal]} and {name} would both become {goal}; rename one")
        seen[goal] = name
    pairs = [(source / name, target / goal) for goal, name in seen.items()]
    for path, goal in pairs:
        if path.suffix.lower() not in unread:
            files.check_file(goal)
            if not replace and os.path.lexists(goal):
                raise UserError(f"{goal} is there already; name OUT to replace it")
    return pairs


def _work(
    word: str,
    source: str | Path,
    pairs: list[tuple[Path, Path]],
    read: Callable,
    alone: Callable,
    batch: Callable,
    size_of: Callable,
    strict: bool,
) -> list[Path]:
    """Reads file after file; each goes alone (key None) or waits for others of its key."""
    waiting, left, done = defaultdict(list), [], []

    def try_to_read(path: Path):
        try:
            with reading(path, "audio" if word == "encode" else "codes", "remove or replace it"):
                return read(path)
        except UserError as error:
            left.append((f"{path.relative_to(source)}", reason_of(error, path)))
            return None

    if strict:
        for path, _ in progress.bar(pairs, desc="read", unit="file"):
            try_to_read(path)
        if left:
            raise LeftOut(left, len(pairs), "nothing is written")
    with progress.bar(total=len(pairs), desc=word, unit="file") as bar:

        def finish(key) -> None:
            items = waiting.pop(key)
            batch(key, [item for item, _ in items], [goal for _, goal in items])
            done.extend(goal for _, goal in items)
            bar.update(len(items))

        for path, goal in pairs:
            found = try_to_read(path)
            if found is None:
                bar.update()
                continue
            key, item = found
            if key is None:
                alone(path, item, goal)
                done.append(goal)
                bar.update()
                continue
            waiting[key].append((item, goal))
            if len(waiting[key]) == size_of(key):
                finish(key)
        for key in list(waiting):
            finish(key)
    if left:
        outcome = "the others are done" if done else "there are no others"
        raise LeftOut(left, len(pairs), outcome)
    return done


def _bucket(seconds: float) -> int | None:
    return next((bucket for bucket in BUCKETS if seconds <= bucket), None)


def _size(bucket: int, together: float) -> int:
    return max(1, int(together // bucket))


def _encode(
    codec: Codec, bucket: int, audio: list[np.ndarray], size: int, levels: int
) -> Iterator[Coded]:
    config = codec.config
    lengths = [len(audio_SC) for audio_SC in audio]
    rows = np.zeros((size, bucket * config.rate, config.channels), np.float32)
    for i in range(size):
        # What fills a batch is a copy: it costs nothing to compile.
        item = min(i, len(audio) - 1)
        rows[i, : lengths[item]] = audio[item]
    ends = [lengths[min(i, len(audio) - 1)] for i in range(size)]
    with progress.compiling("the first batch", repr(codec)):
        together = codec.encode(rows, levels, lengths=ends)
    codes, scales = np.asarray(together.codes), together.scales
    for i, samples in enumerate(lengths):
        places = segments.places(config, samples, rows.shape[1])
        own = None if scales is None else np.asarray(scales)[i : i + 1]
        if config.segment and own is not None:
            own = own[:, : len(segments.frames_of(config, samples))]
        yield Coded(codes[i : i + 1][:, :, places], own, samples)


def _decode(codec: Codec, bucket: int, items: list[Coded], size: int) -> Iterator[np.ndarray]:
    config = codec.config
    samples = bucket * config.rate
    counts = segments.frames_of(config, samples)
    codes = np.zeros((size, items[0].codes.shape[1], sum(counts)), np.int32)
    scales = np.ones((size, len(counts)), np.float32) if config.normalize else None
    filled = [items[min(i, len(items) - 1)] for i in range(size)]
    for i, item in enumerate(filled):
        codes[i][:, segments.places(config, item.samples, samples)] = item.codes[0]
        if scales is not None:
            scales[i, : item.scales.shape[1]] = item.scales[0]
    lengths = np.array([item.samples for item in filled], np.int32)
    with progress.compiling("the first batch", repr(codec)):
        audio = np.asarray(codec.decode(Coded(codes, scales, samples, lengths)))
    for i, item in enumerate(items):
        yield audio[i, : item.samples]
