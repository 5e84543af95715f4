"""Coders by name: what is refused, and at which rate each codes. tests/parity has what they do."""

import sys

import numpy as np
import pytest
from refusals import refused

from rvq_jax.evaluate import coders


@pytest.mark.parametrize("text", ["opus:6", "opus:510", "opus:12.5", "mp3:8", "mp3:320"])
def test_a_name_is_read_back(text):
    coder = coders.parse(text, "speech")
    assert coder.name == text and text.startswith(coder.kind) and coder.signal == "speech"
    assert coders.parse(coder.name, "speech") == coder


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("oggs:6", ("'oggs:6'", "opus:6 or mp3:8")),
        ("", ("''", "opus:6 or mp3:8")),
        ("6", ("'6'", "no coder")),
        ("opus", ("Opus has bitrates from 6 to 510 kbps",)),
        ("opus:", ("Opus has bitrates",)),
        ("opus:six", ("'opus:six'", "6 to 510")),
        ("opus:5.9", ("6 to 510",)),
        ("opus:511", ("6 to 510",)),
        ("opus:nan", ("6 to 510",)),
        ("opus:-6", ("6 to 510",)),
        ("mp3:inf", ("MP3 has bitrates from 8 to 320 kbps",)),
        ("mp3:321", ("8 to 320",)),
        ("mp3:\x1b[2J" + "9" * 9999, ("8 to 320",)),
    ],
)
def test_what_is_no_coder_is_refused(text, words):
    refused(lambda: coders.parse(text), *words)


@pytest.mark.parametrize(
    ("text", "rate", "channels", "want"),
    [
        ("opus:6", 8000, 1, 8000),
        ("opus:6", 16_000, 1, 16_000),
        ("opus:6", 22_050, 2, 24_000),
        ("opus:6", 44_100, 1, 48_000),
        ("opus:6", 192_000, 1, 48_000),
        ("mp3:320", 44_100, 2, 44_100),
        ("mp3:320", 96_000, 1, 48_000),
        # Of few bits the band is less, as LAME's own program has it.
        ("mp3:8", 44_100, 1, 16_000),
        ("mp3:32", 44_100, 1, 22_050),
        ("mp3:48", 44_100, 1, 32_000),
        ("mp3:64", 44_100, 1, 44_100),
        ("mp3:32", 44_100, 2, 16_000),
        ("mp3:64", 44_100, 2, 24_000),
        ("mp3:96", 44_100, 2, 32_000),
        ("mp3:32", 16_000, 1, 16_000),
        ("mp3:32", 8000, 1, 16_000),
    ],
)
def test_audio_is_coded_at_a_rate_that_the_coder_has(text, rate, channels, want):
    assert coders.parse(text).inner_rate(rate, channels) == want


def test_a_bitrate_that_a_rate_or_mono_never_has_is_refused():
    refused(lambda: coders.parse("opus:257").inner_rate(48_000, 1), "opus:257", "256 kbps")
    assert coders.parse("opus:257").inner_rate(48_000, 2) == 48_000
    refused(lambda: coders.parse("mp3:161").inner_rate(16_000, 1), "16000 Hz", "160 kbps")
    assert coders.parse("mp3:160").inner_rate(16_000, 1) == 16_000


def test_without_its_package_a_coder_is_refused_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    audio = np.zeros((10, 1), np.float32)
    for text, label in (("opus:6", "Opus"), ("mp3:32", "MP3")):
        refused(lambda text=text: coders.parse(text).code(audio, 48_000), label, "av: pip install")
