"""Audio is read to its real end, whatever number its header has, and never beyond reason."""

import io as memory
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from refusals import refused
from signals import noise

from rvq_jax.audio import folder, io

CASES = Path(__file__).parents[3] / "shared" / "cases" / "audio"
RATE, COUNT = 16_000, 70_000  # more than a block
SOUND = np.clip(noise(COUNT, 1, scale=0.1), -0.9, 0.9)


def coded(format: str, subtype: str | None = None, samples: int = COUNT) -> bytes:
    buffer = memory.BytesIO()
    soundfile.write(buffer, SOUND[:samples], RATE, format=format, subtype=subtype)
    return buffer.getvalue()


def changed(data: bytes, at: int, number: int, size: int, order="little") -> bytes:
    return data[:at] + number.to_bytes(size, order) + data[at + size :]


def of_flac(count: int) -> bytes:
    """A flac that promises so many samples: the last 36 bits of 5 bytes."""
    data = coded("FLAC")
    upper = (data[21] & 0xF0) << 32
    return changed(data, 21, upper | count, 5, "big")


WAV, AU, AIFF, FLAC = (coded(format) for format in ("WAV", "AU", "AIFF", "FLAC"))
DATA = WAV.index(b"data") + 4
SSND, COMM = AIFF.index(b"SSND") + 4, AIFF.index(b"COMM") + 10
WHOLE = {
    "flac": FLAC,
    "flac of unknown length": of_flac(0),
    "flac that promises fewer": of_flac(1000),
    "wav of a recorder that crashed": changed(changed(WAV, DATA, 0, 4), 4, 0, 4),
    "wav whose data alone is 0": changed(WAV, DATA, 0, 4),
    "wav of a pipe": changed(WAV, DATA, 2**32 - 1, 4),
    "wav of another pipe": changed(WAV, DATA, 2**31 - 1, 4),
    "au of 0": changed(AU, 8, 0, 4, "big"),
    "au of a pipe": changed(AU, 8, 2**32 - 1, 4, "big"),
    "au that promises fewer": changed(AU, 8, 1000, 4, "big"),
    "aiff of a pipe": changed(changed(AIFF, SSND, 0, 4), COMM, 0, 4, "big"),
    "aiff that promises fewer": changed(AIFF, COMM, 1000, 4, "big"),
    "RF64 under another name": coded("RF64"),
    "sphere": coded("NIST"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_all_that_is_there_is_read(tmp_path, name):
    (tmp_path / "a.wav").write_bytes(WHOLE[name])
    audio_SC, rate = io.read(tmp_path / "a.wav")
    assert rate == RATE
    np.testing.assert_allclose(audio_SC, SOUND, atol=2**-15)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_streams_that_follow_one_another_in_an_ogg(tmp_path, subtype):
    parts = [coded("OGG", subtype, samples) for samples in (9_000, 5_000, 7_000)]
    (tmp_path / "a.ogg").write_bytes(b"".join(parts))
    alone = []
    for part in parts:
        (tmp_path / "one.ogg").write_bytes(part)
        alone.append(io.read(tmp_path / "one.ogg")[0])
    np.testing.assert_array_equal(io.read(tmp_path / "a.ogg")[0], np.concatenate(alone))
    buffer = memory.BytesIO()
    soundfile.write(buffer, SOUND[:900], 8_000, format="OGG")
    (tmp_path / "a.ogg").write_bytes(parts[0] + buffer.getvalue())
    refused(lambda: io.read(tmp_path / "a.ogg"), "a.ogg", "changes its rate")


CUT = ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3", "NIST", "SVX"]
CUT += ["VOC"]


@pytest.mark.parametrize("part", [0.5, 0.97])
@pytest.mark.parametrize("format", CUT)
def test_a_cut_file_is_refused_in_every_format(tmp_path, format, part):
    data = coded(format)
    (tmp_path / "a.wav").write_bytes(data[: int(len(data) * part)])
    refused(lambda: io.read(tmp_path / "a.wav"), "a.wav", "remove or replace it")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (of_flac(2**36 - 1), (f"{COUNT} of {2**36 - 1} samples",)),
        (of_flac(COUNT + 1), ("truncated",)),
        (changed(WAV, DATA, 2**31 - 2**16 - 2, 4), ("truncated",)),
        (changed(WAV, DATA, 3 * 2**30, 4), ("truncated",)),
        (changed(coded("W64"), 96, 2**62, 8), ("truncated",)),
        (changed(WAV, 22, 0, 2), ("Channel count is zero",)),
        (changed(WAV, 24, 1, 4), ("rate of 1 Hz",)),
        (WAV[:DATA] + bytes(4), ("no samples",)),
        (coded("XI", "DPCM_16"), ("no audio but XI",)),
        (coded("MAT5", "PCM_16"), ("no audio but MAT5",)),
    ],
    ids=range(10),
)
def test_what_a_header_claims_is_told_and_not_believed(tmp_path, data, words):
    (tmp_path / "a.wav").write_bytes(data)
    tracemalloc.start()
    refused(lambda: io.read(tmp_path / "a.wav"), "a.wav", *words)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 << 20


def test_what_is_no_file_is_told_at_once(tmp_path):
    """A pipe would keep its reader waiting for ever, a device would never end."""
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "link.wav").symlink_to("nowhere")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    (tmp_path / "song.m4a").write_bytes(b"")
    for name, *words in (
        ("pipe.wav", "pipe or a device"),
        ("zero.wav", "pipe or a device"),
        ("folder.wav", "folder"),
        ("link.wav", "not there", "nowhere"),
        ("loop.wav", "not there"),
        ("song.m4a", "format that cannot be read", ".flac"),
        ("x" * 300 + ".wav", "not there"),
        ("nul\0.wav", "not there"),
    ):
        refused(lambda name=name: io.read(tmp_path / name), *words)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(WAV)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    refused(lambda: io.read(tmp_path / "a.wav"), "a.wav", "Permission denied")


@pytest.mark.parametrize("suffix", io.WRITTEN)
def test_a_name_that_is_no_text_is_written_and_read(tmp_path, suffix):
    path = tmp_path / os.fsdecode(b"caf\xe9" + suffix.encode())
    io.write(path, SOUND[:2000], RATE)
    assert len(io.read(path)[0]) == 2000 and os.listdir(tmp_path) == [path.name]


def test_names_of_a_folder(tmp_path):
    """Of linked folders too, of every format that holds audio; hidden ones not."""
    root, other = tmp_path / "root", tmp_path / "other"
    (root / "sub").mkdir(parents=True)
    other.mkdir()
    suffixes = ["wav", "WAVE", "flac", "opus", "oga", "aiff", "aif", "w64", "caf", "au", "m4a"]
    wanted = [Path(f"x.{suffix}") for suffix in suffixes]
    for name in [*wanted, "notes.txt", ".hidden.wav", "sub/y.wav"]:
        (root / name).write_bytes(b"")
    (other / "z.mp3").write_bytes(b"")
    (root / "linked").symlink_to(other)
    (other / "back").symlink_to(root)  # a loop
    (root / "dangling.wav").symlink_to("nowhere")
    wanted += [Path("sub/y.wav"), Path("linked/z.mp3"), Path("dangling.wav")]
    strange = os.fsdecode(b"caf\xe9.wav")
    (root / strange).write_bytes(b"")
    assert folder.names(root) == sorted([*wanted, Path(strange)])
    assert folder.names(root, (".mp3",)) == [Path("linked/z.mp3")]


def test_every_format_that_is_named_is_read(tmp_path):
    formats = {".wave": "WAV", ".oga": "OGG", ".opus": "OGG", ".aiff": "AIFF", ".aif": "AIFF"}
    formats |= {".aifc": "AIFF", ".au": "AU", ".snd": "AU", ".w64": "W64", ".rf64": "RF64"}
    formats |= {".caf": "CAF", ".voc": "VOC", ".mp2": "MP3", ".wav": "WAV", ".flac": "FLAC"}
    formats |= {".mp3": "MP3", ".ogg": "OGG"}
    assert {*formats} == {*io.SUFFIXES}
    for suffix, format in formats.items():
        data = coded(format, "OPUS" if suffix == ".opus" else None, 2000)
        (tmp_path / f"a{suffix}").write_bytes(data)
        audio_SC, rate = io.read(tmp_path / f"a{suffix}")
        assert (len(audio_SC), rate) == (2000, RATE), suffix


def test_a_wav_too_long_for_its_numbers(tmp_path, monkeypatch):
    """It becomes an RF64; where its length was not said it is refused, and nothing is left."""
    monkeypatch.setattr(io, "WAV_BYTES", 2 * 5000)
    for samples, format in ((5000, "WAV"), (5001, "RF64")):
        io.write(tmp_path / "a.wav", SOUND[:samples], RATE)
        assert soundfile.info(tmp_path / "a.wav").format == format
        np.testing.assert_allclose(io.read(tmp_path / "a.wav")[0], SOUND[:samples], atol=2**-14)
    before = (tmp_path / "a.wav").read_bytes()

    def unsaid():
        with io.writing(tmp_path / "a.wav", RATE, 1) as add:
            add(SOUND[:4000])
            add(SOUND[:1001])

    refused(unsaid, "a.wav", "4 GiB", ".flac")
    assert os.listdir(tmp_path) == ["a.wav"] and (tmp_path / "a.wav").read_bytes() == before


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not at hand")
def test_the_shared_cases():
    counts = {"unknown_length.flac": 1149}
    for path in CASES.iterdir():
        if path.name in counts:
            assert len(io.read(path)[0]) == counts[path.name]
        else:
            refused(lambda path=path: io.read(path), path.name)
