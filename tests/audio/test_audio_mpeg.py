"""MPEG audio: every frame's samples come out, whatever a header says, as many as ffmpeg gives."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from refusals import refused
from signals import noise

from rvq_jax.audio import io, mpeg

CASES = Path(__file__).parents[3] / "shared" / "cases" / "mp3"
SKIP = 576 + 529  # samples of silence: the encoder's delay, and the decoder's
FRAME = 1152


def coded(samples: int, rate: int = 44_100, channels: int = 1, seed: int = 0) -> bytes:
    """An mp3 of LAME, with its header frame."""
    import io as memory

    buffer = memory.BytesIO()
    tone = 0.3 * np.sin(np.arange(samples) / 9)[:, None] + noise(samples, 1, seed=seed, scale=0.05)
    soundfile.write(buffer, np.repeat(tone, channels, 1), rate, format="MP3")
    return buffer.getvalue()


def frames(data: bytes) -> list[bytes]:
    places, _ = mpeg._places(data, "")
    return [data[at : at + size] for at, size in places]


def id3(size: int) -> bytes:
    return b"ID3\x03\0\0" + bytes([0, 0, size >> 7, size & 127]) + bytes(size)


def counting(data: bytes, count: int, size: int | None = None) -> bytes:
    """The same file whose header frame counts other frames, or bytes."""
    at = next(data.index(word) for word in (b"Xing", b"Info") if word in data) + 8
    size = int.from_bytes(data[at + 4 : at + 8], "big") if size is None else size
    return data[:at] + count.to_bytes(4, "big") + size.to_bytes(4, "big") + data[at + 8 :]


def silent(head: str, size: int, count: int) -> bytes:
    """Frames without a sound, of which only the four bytes of the header are not zero."""
    return count * (bytes.fromhex(head) + bytes(size - 4))


A, B = coded(30_000), coded(9_000, seed=1)
ALL, OTHER = frames(A)[1:], frames(B)[1:]
BARE = b"".join(ALL)
FREE = b"".join(f[:2] + bytes([f[2] & 0x0F]) + f[3:] for f in frames(silent("fffb9064", 417, 9)))
# Name: bytes, samples, and whether ffmpeg gives as many.
FILES = {
    "with a header": (A, 30_000, True),
    "without a header": (BARE, FRAME * len(ALL), True),
    "stereo": (coded(9_000, channels=2), 9_000, True),
    "MPEG 2": (coded(9_000, 22_050), 9_000, True),
    "tagged": (id3(300) + A + b"TAG" + bytes(125), 30_000, True),
    "two tags": (id3(300) + id3(20) + A, 30_000, True),
    "zeros before": (bytes(100) + BARE, FRAME * len(ALL), True),
    "counts too few": (counting(A, 3), 30_000, True),
    "counts none": (counting(A, 0), FRAME * len(ALL) - SKIP, True),
    "joined": (A + A, FRAME * (2 * len(ALL) + 1) - SKIP, True),
    "joined bare": (BARE + BARE, FRAME * 2 * len(ALL), True),
    "joined, the first bare": (BARE + B, FRAME * (len(ALL) + len(OTHER) + 1), True),
    "joined behind a tag": (A + id3(70) + A, FRAME * 2 * len(ALL) - SKIP, True),
    "joined three times": (A + B + A, FRAME * (2 * len(ALL) + len(OTHER) + 2) - SKIP, True),
    # ffmpeg loses the frame behind the tag.
    "a tag between frames": (BARE + id3(70) + BARE, FRAME * 2 * len(ALL), False),
    "an old tag between frames": (BARE + b"TAG" + bytes(125) + BARE, FRAME * 2 * len(ALL), False),
    "zeros between frames": (BARE + bytes(99) + BARE, FRAME * 2 * len(ALL), True),
    "from the middle": (BARE[1000:], None, True),
    "layer I": (silent("ffff9064", 312, 20), 384 * 20, True),
    "layer II": (silent("fffdA064", 626, 20), FRAME * 20, True),
    "layer II of growing frames": (
        silent("fffd1064", 104, 20) + silent("fffdA064", 626, 20),
        46_080,
        True,
    ),
    # ffmpeg does not read free format.
    "free format": (FREE, FRAME * 9, False),
}


@pytest.mark.parametrize("name", FILES)
def test_every_frame_is_read(tmp_path, name):
    data, want, as_ffmpeg = FILES[name]
    path = tmp_path / ("a.mp2" if "II" in name else "a.mp3")
    path.write_bytes(data)
    audio_SC, _ = io.read(path)
    if want is not None:
        assert len(audio_SC) == want
    if as_ffmpeg and shutil.which("ffmpeg"):
        words = ["ffmpeg", "-v", "quiet", "-i", path, "-f", "f32le", "-c:a", "pcm_f32le", "-"]
        out = subprocess.run(words, capture_output=True, check=True).stdout
        theirs_SC = np.frombuffer(out, "<f4").reshape(-1, audio_SC.shape[1])
        assert len(audio_SC) == len(theirs_SC)
        # Where a header counts wrong, ffmpeg cuts the padding out of the middle.
        if name not in ("counts too few", "from the middle"):
            np.testing.assert_allclose(audio_SC, theirs_SC, atol=1e-3)


def test_joined_files_hold_what_each_holds(tmp_path):
    for name, data in (("a", A), ("b", B), ("both", A + B)):
        (tmp_path / f"{name}.mp3").write_bytes(data)
    a, b, both = (io.read(tmp_path / f"{name}.mp3")[0] for name in ("a", "b", "both"))
    np.testing.assert_allclose(both[: len(a)], a, atol=1e-6)
    begin = FRAME * (len(ALL) + 1)  # without SKIP, as often as the second begins with it
    np.testing.assert_allclose(both[begin + 600 : begin + len(b)], b[600:], atol=1e-3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (counting(A, 1000), ("truncated", f"{len(ALL)} of 1000 frames")),
        (A[: len(A) // 2], ("truncated",)),
        (b"".join(frames(A)[:-1]), (f"{len(ALL) - 1} of {len(ALL)} frames",)),
        (BARE[:-100], ("truncated", "last frame")),
        (A + coded(9_000, 22_050), ("changes from 44100 Hz", "22050")),
        (
            A + b"ID3\x04\0\0\0\0\0\x05" + bytes(5) + coded(9_000, 22_050),
            ("changes from 44100 Hz",),
        ),
        (A + bytes(99) + coded(9_000, 22_050), ("changes from 44100 Hz", "22050")),
        (BARE + coded(9_000, channels=2), ("1 channels to 44100 and 2",)),
        (b"\xff\xfb" * 999, ("cannot be read as audio",)),
        (id3(100), ("cannot be read as audio",)),
        (b"", ("cannot be read as audio",)),
    ],
)
def test_what_is_missing_or_changes_is_refused(tmp_path, data, words):
    (tmp_path / "a.mp3").write_bytes(data)
    refused(lambda: io.read(tmp_path / "a.mp3"), "a.mp3", *words)


def test_a_decoder_that_speaks_is_not_heard(tmp_path, capfd):
    """Of a single frame libmpg123 complains on standard error, where an error is one line."""
    (tmp_path / "a.mp3").write_bytes(ALL[0])
    refused(lambda: io.read(tmp_path / "a.mp3"), "a.mp3")
    assert capfd.readouterr() == ("", "")


def test_a_picture_in_a_tag_is_no_frame(tmp_path):
    """A tag can hold anything, also what looks like frames of another kind."""
    picture = silent("ffff9064", 312, 3)
    tag = id3(len(picture))[:10] + picture
    (tmp_path / "a.mp3").write_bytes(tag + A)
    assert len(io.read(tmp_path / "a.mp3")[0]) == 30_000


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not at hand")
def test_the_shared_case():
    assert len(io.read(CASES / "joined.mp3")[0]) == 444_719
