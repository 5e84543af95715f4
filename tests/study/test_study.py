"""The study end to end, small: a folder of sounds in, a report that a browser opens out."""

import dataclasses
import itertools
import json

import browser
import jax
import numpy as np
import pytest
import soundfile
from tiers import slow, wide

from rvq_jax import builtin, patterns
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.data import builder
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.lm.model import LMConfig
from rvq_jax.study import StudyConfig, study
from rvq_jax.study.quickstart import SIX
from rvq_jax.systems.codec import Codec
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import CodecRun, LMRun
from rvq_jax.train.tasks.codec_losses import CodecLossConfig

# In place of the built-in codec, whose programs take long to compile.
CODEC = CodecConfig(
    16_000,
    SEANetConfig(filters=4, dim=8, ratios=(16, 20), lstm_layers=0, norm="none"),
    levels=3,
    codebook_size=8,
)
SMALL = StudyConfig(
    patterns=("flatten", "delay"),
    levels=2,
    model=LMRun(
        lm=LMConfig(dim=16, layers=1, heads=2, mlp_dim=32, caption_bytes=16),
        loop=LoopConfig(steps=4, checkpoint_every=2),
        batch=4,
        frames=20,
    ),
    clips=2,
    seconds=0.8,  # two windows
    top_k=4,
)
TRAINED = dataclasses.replace(
    SMALL,
    seeds=(0, 1),
    train_codec=True,
    codec=CodecRun(
        codec=dataclasses.replace(CODEC, levels=2),
        loss=CodecLossConfig(autoencoder_warmup=2),
        loop=LoopConfig(steps=4, checkpoint_every=2),
        batch=4,
    ),
)
CONFIGS = {
    "two patterns": SMALL,
    "a codec of its own": TRAINED,
    "six": dataclasses.replace(TRAINED, patterns=SIX),
}


SIZES = {name: LMConfig(**{name: 7}) for name in ("levels", "codebook_size")}
REFUSED = [
    ({"model": dataclasses.replace(SMALL.model, lm=SIZES["levels"])}, "lm.levels is 7, .* is 2"),
    ({"model": dataclasses.replace(SMALL.model, lm=SIZES["codebook_size"])}, "is 7, .* is 8"),
    ({"levels": 4}, "levels is 4, and the built-in codec has 3"),
    ({"seeds": ()}, "at least one"),
]


@pytest.fixture(scope="module", autouse=True)
def small_builtin(tmp_path_factory):
    """A small codec in place of the built-in one."""
    place = tmp_path_factory.mktemp("codec") / "builtin"
    codec = Codec.init(CODEC, jax.random.key(1))
    # As large as its latents, that codes differ.
    codec = Codec(CODEC, codec.params, jax.tree.map(lambda x: 0.3 * x, codec.quantizer))
    codec.save(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtin, "FOLDER", place)
        yield codec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recordings of several rates, channel counts and formats."""
    place = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    for i, (rate, channels, suffix) in enumerate(
        [(16_000, 1, "wav"), (22_050, 2, "flac"), (8_000, 1, "ogg"), (48_000, 2, "wav")]
    ):
        t = np.arange(2 * rate) / rate
        tone = np.sin(2 * np.pi * 220 * (i + 1) * t) + 0.1 * rng.normal(size=t.size)
        audio = np.stack([0.3 * tone] * channels, axis=1)
        soundfile.write(place / f"tone_{i}.{suffix}", audio, rate)
    return place


@pytest.fixture(scope="module", params=["two patterns", slow("a codec of its own"), wide("six")])
def config(request):
    return CONFIGS[request.param]


@pytest.fixture(scope="module")
def run(config, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "study"
    return out, study(out, folder, config, "test")


def test_results_hold_what_they_promise(run, config):
    out, results = run
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(results))
    assert [row["pattern"] for row in results["patterns"]] == list(config.patterns)
    for row in results["patterns"]:
        assert row["steps"] == patterns.named(row["pattern"], 2, 20).steps
        assert row["bits_per_frame"]["mean"] == pytest.approx(sum(row["bits_by_level"]))
        assert row["bits_per_frame"]["mean"] == pytest.approx(row["interval"]["mean"])
        assert len(row["bits_per_frame"]["values"]) == len(config.seeds)
        # Untrained, a code costs about its log2 N = 3 bits.
        assert 3 < row["bits_per_frame"]["mean"] < 9
        assert row["generate_seconds"] > 0 and row["real_time_factor"] > 0
        assert row["frechet_distance"] >= 0
    levels = results["codec"]["levels"]
    assert [level["level"] for level in levels] == [1, 2]
    assert {"si_sdr_db", "mel_distance", "energy_explained", "use"} <= set(levels[0])
    compared = {frozenset((pair["a"], pair["b"])) for pair in results["pairs"]}
    assert compared == set(map(frozenset, itertools.combinations(config.patterns, 2)))
    # Bits of every clip by its frames are those of all.
    means = {row["pattern"]: row["bits_per_frame"]["mean"] for row in results["patterns"]}
    for pair in results["pairs"]:
        assert pair["mean"] == pytest.approx(means[pair["a"]] - means[pair["b"]])
    assert "flatten" in (out / "results.md").read_text()


def test_the_report_opens_in_a_browser(run):
    out, results = run
    text = (out / "report.html").read_text()
    players = sum(len(group["players"]) for group in results["samples"])
    for group in results["samples"]:
        assert group["players"][0]["label"] == "original" and len(group["players"]) > 1
        for player in group["players"]:
            assert soundfile.info(out / player["file"]).duration == pytest.approx(0.8)
    assert text.count("<audio") == players > 0
    # The original of a caption is the clip whose codes have it.
    held = builder.open_split(out / "dataset", "heldout")
    names = CodeSet.load(out / "codes" / "heldout.npz").names
    assert names == [held[i]["name"] for i in range(len(held))]
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text
    seen = browser.inspect(out / "report.html")
    if seen is not None:  # Chromium is there
        assert seen["players"] == seen["playable"] == players
        assert seen["images"] == seen["drawn"] > 5


def test_started_again_it_ends_at_once_with_the_same_numbers(run, config, folder):
    out, results = run
    again = study(out, folder, config, "test")
    for old, new in zip(results["patterns"], again["patterns"], strict=True):
        assert old["bits_per_frame"] == new["bits_per_frame"]
        assert old["frechet_distance"] == new["frechet_distance"]
    assert results["codec"] == again["codec"]


def test_another_config_in_the_same_folder(run, config, folder):
    other = dataclasses.replace(config, top_k=5)
    with pytest.raises(UserError, match="top_k: 4 there, 5 here"):
        study(run[0], folder, other, "test")


def test_the_built_in_codec_is_not_trained(run, config, small_builtin):
    out, results = run
    assert (out / "codec").exists() == config.train_codec == ("codec" in results["curves"])
    assert results["codec"]["name"].startswith(builtin.VERSION) != config.train_codec
    codes = CodeSet.load(out / "codes" / "train.npz")
    if not config.train_codec:  # the first of its levels
        record = builder.open_split(out / "dataset", "train")[0]["audio"]
        wanted = small_builtin.encode(record[None], levels=2).codes[0]
        np.testing.assert_array_equal(codes.codes[0][:, : wanted.shape[1]], wanted)


@pytest.mark.parametrize("changes, say", REFUSED)
def test_what_does_not_fit_the_codec_is_refused(folder, tmp_path, changes, say):
    with pytest.raises(UserError, match=say):
        study(tmp_path / "run", folder, dataclasses.replace(SMALL, **changes), "test")
    assert not (tmp_path / "run").exists()
