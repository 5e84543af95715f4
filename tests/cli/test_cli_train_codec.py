"""`rvq-jax train` of a codec: what does not go together is one line, and nothing is left behind."""

import dataclasses

import jax
import pytest
from command import refuses, run
from small_codec_runs import DAC, JUDGES, RATE, RUNS, Sounds, run_of, sounds
from small_runs import log_of, one_window

from rvq_jax.codec import discriminators
from rvq_jax.codec.discriminators import DiscriminatorsConfig
from rvq_jax.data import builder
from rvq_jax.errors import UserError
from rvq_jax.systems import discriminators as judges
from rvq_jax.systems.codec import Codec
from rvq_jax.train.runs.codec_checks import check

CONFIG = """
from small_codec_runs import RUNS

def get_config():
    return RUNS[{kind!r}]
"""
OTHER_RATE = Sounds(sounds())
OTHER_RATE.rate = 16_000
FOLDER = "--init-from FOLDER"
MISTAKES = {
    "stereo into mono": ("encodec", "", sounds(2), ["2 channels", "--channels 1"]),
    "mono into stereo": ("stereo", "", sounds(1), ["1 channels", "--channels 2"]),
    "data of another rate": ("encodec", "", OTHER_RATE, ["16000 Hz", "--rate 8000"]),
    "judges of another rate": (
        "encodec",
        "--adversarial.discriminators.rate 16000",
        sounds(),
        ["16000 Hz", "8000", "adversarial.discriminators.rate"],
    ),
    "mono judges of stereo": (
        "stereo",
        "--adversarial.discriminators.stft.channels 1",
        sounds(2),
        ["1 channels", "has 2", "stft.channels"],
    ),
    "judges of no size": (
        "encodec",
        "--adversarial.discriminators.stft.filters 0",
        sounds(),
        ["--adversarial.discriminators.stft.filters must be"],
    ),
    "judges of windows that hear nothing": (
        "encodec",
        "--adversarial.discriminators.stft.windows 1",
        sounds(),
        ["--adversarial.discriminators.stft.windows must be"],
    ),
    "judges mistyped": (
        "encodec",
        "--adversarial.discriminators.stft.filter 3",
        sounds(),
        ["did you mean '--adversarial.discriminators.stft.filters'"],
    ),
    "no weight": (
        "encodec",
        "--adversarial.weight 0 --adversarial.features 0",
        sounds(),
        ["adversarial.weight and adversarial.features"],
    ),
    "no loss": (
        "dac",
        "--loss.waveform 0 --loss.mel 0 --adversarial.weight 0 --adversarial.features 0",
        sounds(),
        ["loss.waveform"],
    ),
    "spikes": ("encodec", "--loop.spike 4", sounds(), ["loop.spike"]),
    "a decoder of nothing": ("encodec", "--trained decoder", sounds(), ["--init-from"]),
    "no folder": ("encodec", "--init-from gone", sounds(), ["gone", "not a model folder"]),
    "another kind": ("dac", FOLDER, sounds(), ["holds a Codec, the config trains a DAC"]),
    "another size": (
        "encodec",
        f"{FOLDER} --codec.levels 3",
        sounds(),
        ["codec.levels is 3, but 2", "leave it out"],
    ),
    "judges of another size": (
        "encodec",
        f"{FOLDER} --adversarial.discriminators.stft.filters 3",
        sounds(),
        ["other discriminators", "stft.filters: 2 there, 3 here"],
    ),
    "features of nothing": ("mimi", "--features gone", sounds(), ["loss.distillation"]),
    "distillation of nothing": ("mimi", "--loss.distillation 1", sounds(), ["features"]),
    "features that are not there": (
        "mimi",
        "--features gone --loss.distillation 1",
        sounds(),
        ["gone", "not there"],
    ),
    "features of clips that are mixed": (
        "mimi",
        "--features gone --loss.distillation 1 --augmentation.mix 0.5",
        sounds(),
        ["augmentation.mix"],
    ),
    "crops longer than segments": ("stereo", "--seconds 0.1", sounds(2), ["segments of 0.064 s"]),
    "prefixes of more levels": ("encodec", "--loss.prefixes 1 5", sounds(), ["prefixes", "2"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A codec with its discriminators."""
    path = tmp_path_factory.mktemp("begin") / "codec"
    Codec.init(RUNS["encodec"].codec, jax.random.key(0)).save(path)
    config = JUDGES.discriminators
    judges.save(config, discriminators.init_params(config, jax.random.key(1)), path)
    return path


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name, capsys, tmp_path, monkeypatch, folder):
    kind, flags, data, say = MISTAKES[name]
    monkeypatch.setattr(builder, "open_split", lambda path, split: data)
    (tmp_path / "config.py").write_text(CONFIG.format(kind=kind))
    flags = flags.replace("FOLDER", str(folder)).split()
    words = ["train", tmp_path / "config.py", "--data", tmp_path, "--out", tmp_path / "out"]
    refuses(capsys, *words, "--loop.evaluate-every", "0", "--batch", "8", *flags, say=say)
    assert not (tmp_path / "out").exists()


def test_judges_of_no_kind_are_not_said_to_have_no_weight():
    judged = dataclasses.replace(JUDGES, discriminators=DiscriminatorsConfig(RATE, None))
    with pytest.raises(UserError, match="of no kind"):
        check(run_of(adversarial=judged), sounds())


def test_discriminators_of_a_folder_go_on(tmp_path, folder):
    """A run without any takes the codec alone; others begin with those that are kept there."""
    found = judges.load(folder, JUDGES.discriminators)
    fresh = discriminators.init_params(JUDGES.discriminators, jax.random.key(1))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(fresh), strict=True):
        assert (a == b).all()
    assert DAC.norm == "weight_norm"


@pytest.mark.slow
@pytest.mark.parametrize("given", ["silence", "short"])
def test_silence_and_clips_shorter_than_a_crop_train(given, capsys, tmp_path, monkeypatch):
    """No update is skipped, and a codec is left."""
    data, held = sounds(), sounds(begin=50)
    for i, record in enumerate([*data, *held] if given == "silence" else []):
        record["audio"][:] = 0.0 if i else 1e-4
    for record in [*data, *held] if given == "short" else []:
        record["audio"] = record["audio"][:100]
    monkeypatch.setattr(builder, "open_split", lambda path, split: {"train": data}.get(split, held))
    (tmp_path / "config.py").write_text(CONFIG.format(kind="encodec"))
    words = ["train", tmp_path / "config.py", "--data", tmp_path, "--out", tmp_path / "out"]
    words += ["--batch", "8", "--loop.evaluate-every", "3"]
    with one_window():
        code, _, lines = run(capsys, *words, "--json")
    assert (code, lines) == (0, [])
    assert {line["skipped"] for line in log_of(tmp_path / "out")} == {0}
