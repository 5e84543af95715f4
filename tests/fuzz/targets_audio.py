"""Readers of audio files and metadata.csv."""

import io as memory
import struct
from pathlib import Path

import numpy as np
import soundfile
from harness import NUMBERS, Target

from rvq_jax.audio import io
from rvq_jax.data import folder

SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, (1500, 2))
NAMES = ("s1.wav", "s2.wav", "s3.wav", "caf\u00e9.wav")
WORDS = (
    "file",
    "caption",
    "label",
    "split",
    "train",
    "test",
    "s1.wav",
    "./s2.wav",
    "caf\u00e9.wav",
)
WORDS += (
    ",",
    '"',
    '""',
    "\n",
    "\r\n",
    "\r",
    ";",
    "\0",
    "\u2028",
    " ",
    "x" * 99,
    "..",
    "/",
    "\x1b[31m",
)


def coded(formats: tuple[tuple[str, str | None], ...]) -> list[bytes]:
    """The same sound, of one and two channels, in formats with their subtypes."""
    found = []
    for channels in (1, 2):
        for format, subtype in formats:
            buffer = memory.BytesIO()
            sound = SOUND[:, :channels]
            soundfile.write(buffer, sound, 16_000, format=format, subtype=subtype)
            found.append(buffer.getvalue())
    return found


def number(data: bytes, rng: np.random.Generator, at: int, width: int, order: str) -> bytes:
    value = int(rng.choice(NUMBERS)) if rng.integers(2) else int(rng.integers(300))
    return data[:at] + (value % 256**width).to_bytes(width, order) + data[at + width :]


def chunk(data: bytes, rng: np.random.Generator, order: str) -> bytes:
    """Another number behind the name of a chunk, or a chunk more, twice or without its end."""
    names = [b"RIFF", b"fmt ", b"data", b"fact", b"ds64", b"COMM", b"SSND", b".snd", b"riff"]
    places = [at for name in names if (at := data.find(name)) >= 0]
    at = int(rng.choice(places)) if places else 0
    match int(rng.integers(4)):
        case 0:
            return number(data, rng, at + 4, 4, order)
        case 1:
            return number(
                data, rng, at + int(rng.integers(4, 40)), int(rng.choice([1, 2, 4])), order
            )
        case 2:
            extra = b"LIST" + struct.pack("<I", int(rng.choice([0, 1, 4, 2**32 - 1]))) + b"INFO"
            return data[:at] + extra + data[at:]
        case _:
            return data[:at] + data[at : at + 24] + data[at:]


def wav(data: bytes, rng: np.random.Generator) -> bytes:
    return chunk(data, rng, "big" if data[:4] in (b"FORM", b".snd", b"RIFX") else "little")


def flac(data: bytes, rng: np.random.Generator) -> bytes:
    """Another field of its first block, or frames that are missing, twice or changed places."""
    if rng.integers(2):
        at = 8 + int(rng.integers(18))
        return number(data, rng, at, int(rng.choice([1, 2, 3, 5])), "big")
    at, size = (int(x) for x in rng.integers(42, len(data), 2))
    part = data[at : at + size]
    return data[:at] + part * int(rng.integers(3)) + data[at + size :]


def mp3(data: bytes, rng: np.random.Generator) -> bytes:
    """Frames left out, doubled or of another header; tags between; other counts in the header."""
    starts = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] >= 0xE2]
    at = int(rng.choice(starts)) if starts else 0
    match int(rng.integers(5)):
        case 0:
            return number(data, rng, at + int(rng.integers(1, 4)), 1, "big")
        case 1:
            tag = b"ID3\x03\0\0" + bytes(rng.integers(0, 200, 4).tolist())
            return data[:at] + tag + bytes(int(rng.integers(200))) + data[at:]
        case 2:
            places = [p for word in (b"Xing", b"Info", b"LAME") if (p := data.find(word)) >= 0]
            place = int(rng.choice(places)) if places else 0
            return number(data, rng, place + int(rng.integers(4, 28)), 4, "big")
        case 3:
            return data[at:] + data[: int(rng.integers(len(data)))]
        case _:
            return data[:at] + data[at + int(rng.integers(900)) :]


def ogg(data: bytes, rng: np.random.Generator) -> bytes:
    """Another field of a page's header, or pages left out, doubled or joined."""
    starts, at = [], -1
    while (at := data.find(b"OggS", at + 1)) >= 0:
        starts.append(at)
    at = int(rng.choice(starts)) if starts else 0
    match int(rng.integers(4)):
        case 0:
            return number(
                data, rng, at + int(rng.integers(4, 27)), int(rng.choice([1, 4, 8])), "little"
            )
        case 1:
            return data[:at] + data[at + int(rng.integers(600)) :]
        case 2:
            return data + data[at:]
        case _:
            return data[:at] + data[: int(rng.integers(200))] + data[at:]


def table(data: bytes, rng: np.random.Generator) -> bytes:
    """Names, quotes and ends of lines where there were none, and the other way round."""
    text = data.decode(errors="replace")
    for _ in range(int(rng.integers(1, 4))):
        at, size = int(rng.integers(len(text) + 1)), int(rng.integers(6))
        word = str(rng.choice(np.array(WORDS, object)))
        text = text[:at] + word + text[at + size :]
    return text.encode()


def tables(place: Path) -> list[bytes]:
    rows = ["file,caption,label,split", 's1.wav,"a, b",x,train', "s2.wav,c,y,test"]
    rows += ['caf\u00e9.wav,"two\nlines",z,', "s3.wav,,,valid", ""]
    return [
        "\n".join(rows).encode(),
        b"file_name,text\r\ns1.wav,a\r\ns2.wav,b\r\n",
        b"file\ns1.wav\ns2.wav\n",
    ]


def scan(path: Path) -> list:
    for name in NAMES:
        (path.parent / name).touch()
    return folder.scan(path.parent)


WAVS = (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16"))
WAVS += (("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"))
KINDS = {
    "wav": (WAVS, wav),
    "flac": ((("FLAC", "PCM_16"),), flac),
    "mp3": ((("MP3", None),), mp3),
    "ogg": ((("OGG", "VORBIS"), ("OGG", "OPUS")), ogg),
}
TARGETS = {
    name: Target(lambda _, formats=formats: coded(formats), f"a.{name}", io.read, mutate)
    for name, (formats, mutate) in KINDS.items()
}
TARGETS["metadata.csv"] = Target(tables, "metadata.csv", scan, table)
