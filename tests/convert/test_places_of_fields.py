"""Every field of a config has a place in transformers' format, or an error that names it."""

import dataclasses
import itertools
import math

import config_changes
import jax
import pytest
import small_codecs
import small_folders
from config_changes import BASES, CHANGES, KEPT, NAMED, ROWS, changed
from refusals import refused

import rvq_jax as rj
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.filterbank import FilterbankConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.convert import encodec, folder, musicgen, t5
from rvq_jax.lm.t5 import T5Config
from rvq_jax.systems import exporting
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.musicgen import folder as musicgen_folder


@pytest.mark.parametrize("kind", CHANGES)
def test_the_table_has_every_field(kind):
    first = {next(iter(changes)) for changes, _ in CHANGES[kind]}
    assert first == config_changes.names(BASES[kind])


def said(kind: str, config):
    """What transformers' format has no place for, and what comes back of the rest."""
    if kind == "musicgen":
        reason, fields = musicgen.beyond(config, "delay"), musicgen.to_fields(config, "delay")
        if fields is None:
            return reason, None
        text = t5.to_fields(T5Config(dim=config.text_dim))
        codec = folder.to_fields(config_changes.ENCODEC)
        return reason, musicgen.from_fields(musicgen.whole(config, fields, text, codec), "F").lm
    reason, fields = folder.beyond(config), folder.to_fields(config)
    return reason, fields and folder.module_of(config).from_fields(fields, "F")


@pytest.mark.parametrize(
    ("kind", "changes", "fate"), ROWS, ids=[f"{kind} {changes}" for kind, changes, _ in ROWS]
)
def test_a_field_comes_back_or_is_named(kind, changes, fate):
    config = changed(BASES[kind], changes)
    assert config != BASES[kind]
    reason, back = said(kind, config)
    if fate == NAMED:
        assert f"has no {next(iter(changes))} " in reason and back is None
        return
    assert reason is None
    if kind == "encodec" and not config.bandwidths:
        # Written as the bandwidth of all levels.
        back = dataclasses.replace(back, bandwidths=())
    assert back == (config if fate == KEPT else BASES[kind])


@pytest.mark.parametrize("levels", [1, 7, 29, 128])
def test_bandwidths_that_are_not_set_are_of_all_levels(levels):
    """Whatever the frame rate and the codes: rounding takes no level away."""
    for frame_rate, bits in itertools.product(range(1, 400, 7), range(1, 15)):
        seanet = SEANetConfig(ratios=(2,))
        config = CodecConfig(2 * frame_rate, seanet, levels, 2**bits)
        fields = encodec.to_fields(config)
        per_level = frame_rate * bits / 1000
        assert encodec.from_fields(fields, "F").levels == levels
        assert math.isclose(fields["target_bandwidths"][0], levels * per_level)


def test_a_codec_of_another_kind_is_named():
    assert "FilterbankConfig" in folder.beyond(FilterbankConfig())
    codec = rj.Codec.init(small_codecs.CONFIGS["own"], jax.random.key(0))
    refused(lambda: exporting.codec(codec, "F"), "F: ", "codebook_size 17", "stablehlo")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> MusicGen:
    return small_folders.published("text", tmp_path_factory.mktemp("words"))


def test_a_part_of_a_musicgen_is_named(text):
    """And the field of its codec; all of these have a folder of our own."""
    dac = rj.Codec.init(dataclasses.replace(config_changes.DAC), jax.random.key(0))
    none = changed(text.codec.config, {"seanet.norm": "none"})
    stereo = changed(text.codec.config, {"seanet.channels": 2})
    made = {
        "pattern 'flatten'": {"pattern": "flatten"},
        "codec DACConfig": {"codec": dac},
        "a text encoder alone": {"codec": None},
        "a codec": {"text": None},
        "text_dim 12": {"codec": None, "text": None},
        "its codec: transformers' format has no seanet.norm 'none'": {
            "codec": rj.Codec.init(none, jax.random.key(0))
        },
        "of a stereo codec": {
            "codec": rj.Codec.init(stereo, jax.random.key(0)),
            "pattern": "stereo_partial_delay",
        },
    }
    for words, change in made.items():
        model = dataclasses.replace(text, **change)
        refused(lambda m=model: exporting.musicgen(m, "F"), "F: ", words)
    refused(lambda: exporting.musicgen(small_folders.own(), "F"), "text_dim None", "--text")
    parts = text.config, text.pattern, text.codec, text.text
    assert musicgen_folder.beyond(*parts) is None
