"""What a field may be: every number has a bound, and what is out of it is one line."""

import dataclasses
import functools
import importlib
import math
import pkgutil
import typing
from pathlib import Path

import pytest
from command import refuses
from refusals import refused
from tiers import slow

import rvq_jax.convert
from rvq_jax import cli, files, limits
from rvq_jax import config as configs
from rvq_jax.audio.augment import Augmentation
from rvq_jax.cli.terminal import parse
from rvq_jax.cli.train import load_config
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.dac import DACConfig
from rvq_jax.codec.discriminators import DiscriminatorsConfig
from rvq_jax.codec.filterbank import FilterbankConfig
from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.codec.transformer import TransformerConfig
from rvq_jax.errors import READING, UserError
from rvq_jax.lm import forms
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.t5 import T5Config
from rvq_jax.systems.magnet import Decoding
from rvq_jax.systems.published_codecs import Descript
from rvq_jax.train.runs import CodecRun, LMRun

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
OWNERS = (CodecRun, LMRun, Descript, Augmentation, Decoding)
MODELS = (CodecConfig, DACConfig, FilterbankConfig, MimiConfig, DiscriminatorsConfig)
MODELS += (LMConfig, MaskedLMConfig, T5Config)
# Out of all bounds, whatever is counted.
NEVER = (-1, math.inf, -math.inf, math.nan, 1e30, 10**30, 10**400, -(10**400))
# Of another kind than a number.
OTHERS = ("x", "\x1b[2J", "1", True, [], [[1]], {}, {"a": 1}, "a" * 10**6, [1] * 10**6)


def foreign() -> list[type]:
    """The dataclasses in which the fields of other projects are read."""
    names = [module.name for module in pkgutil.iter_modules(rvq_jax.convert.__path__)]
    found = [importlib.import_module(f"rvq_jax.convert.{name}") for name in names]
    every = [item for module in found for item in vars(module).values() if isinstance(item, type)]
    own = [item for item in every if item.__module__.startswith("rvq_jax.convert")]
    return [c for c in own if dataclasses.is_dataclass(c) and c.__dataclass_params__.frozen]


def classes(cls: type) -> set[type]:
    """A dataclass and those inside of it."""
    kinds = limits.kinds(cls).values()
    inner = [part for kind in kinds for part in configs.parts(kind)]
    return {cls}.union(*(classes(part) for part in inner if dataclasses.is_dataclass(part)))


def numbers(cls: type) -> dict[str, object]:
    """The fields that are a number, may be one, or hold some; with their types."""

    def scalars(kind) -> set:
        inner = typing.get_args(kind) or (kind,)
        return {kind} if inner == (kind,) else set().union(*map(scalars, inner))

    return {n: k for n, k in limits.kinds(cls).items() if scalars(k) & {int, float}}


EVERY = sorted(
    set().union(*map(classes, [*map(cli.load, cli.COMMANDS), *MODELS, *OWNERS, *foreign()])),
    key=lambda cls: (cls.__module__, cls.__name__),
)


def outside(found: limits.Bound) -> list:
    """What no field of the bound may be; decibels may be negative."""
    return [value for value in NEVER if value != -1 or found.low > -1]


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_number_has_a_bound(cls):
    """And each value out of it, or of another kind, is one line with the field's name."""
    assert [name for name in numbers(cls) if limits.bound(cls, name) is None] == []
    for name, kind in numbers(cls).items():
        found = limits.bound(cls, name)
        assert math.isfinite(found.low) and math.isfinite(found.high)
        many = any(typing.get_origin(part) is tuple for part in configs.parts(kind))
        for value in outside(found):
            value = [value] * max(1, found.length[0]) if many else value
            refused(lambda n=name, v=value: limits.check_field(cls, n, v, "f"), f"{name} must be")
        for value in OTHERS:
            if not (many and value == [] and found.length[0] == 0):
                refused(
                    lambda n=name, v=value: limits.check_field(cls, n, v, "f"), f"{name} must be"
                )
        allowed = found.low <= 0 and not found.above
        zero = [0] * max(1, found.length[0]) if many else 0
        if allowed:
            limits.check_field(cls, name, zero, "f")
        else:
            refused(lambda n=name, v=zero: limits.check_field(cls, n, v, "f"), f"{name} must be")


def test_no_bound_is_of_a_field_that_is_gone():
    fields = {name for cls in EVERY for name in limits.kinds(cls)}
    fields |= {f"{cls.__name__}.{name}" for cls in EVERY for name in limits.kinds(cls)}
    fields.add("max_length")
    assert set(limits.BOUNDS) - fields == set()


def flagged(command, path=()) -> list[tuple[str, ...]]:
    """The numbers of a command, by the names that lead to them."""
    found = [(*path, name) for name in numbers(type(command))]
    for item in dataclasses.fields(command):
        value = getattr(command, item.name)
        if dataclasses.is_dataclass(value):
            found += flagged(value, (*path, item.name))
    return found


def owner(command, path: tuple[str, ...]) -> type:
    """The dataclass that a field is of."""
    return type(functools.reduce(getattr, path[:-1], command))


def replaced(command, path: tuple[str, ...], value):
    name, *rest = path
    if rest:
        value = replaced(getattr(command, name), tuple(rest), value)
    return dataclasses.replace(command, **{name: value})


REQUIRED = {"model": "m", "out": "o.wav", "codec": "c", "data": "d", "topology": "cpu:1"}
REQUIRED |= {"source": "s", "target": "t", "path": "p", "file": "f", "config": "x"}


def command(name: str):
    """A command as it is typed, with the least that it needs."""
    cls = cli.load(name)
    need = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
    need = [n for n in need if cls.__dataclass_fields__[n].default_factory is dataclasses.MISSING]
    kinds = limits.kinds(cls)
    return cls(**{n: REQUIRED[n] if kinds[n] is str else Path(REQUIRED[n]) for n in need})


CASES = {
    **{name: command(name) for name in cli.COMMANDS},
    **{p.stem: load_config(p) for p in CONFIGS},
}


@pytest.mark.parametrize("name", CASES)
def test_a_number_out_of_bounds_is_refused_with_its_flag(name):
    """Of every command, and of every config that is trained by one."""
    made = CASES[name]
    limits.check(made, name)

    def check(path, value):
        try:
            other = replaced(made, path, value)
        except READING as error:  # of fields that do not go together, as `parse` has it
            raise UserError(f"{path[-1]}: {error}") from None
        limits.check(other, name)

    for path in flagged(made):
        for value in outside(limits.bound(owner(made, path), path[-1])):
            refused(lambda p=path, v=value: check(p, v), path[-1])


# One flag of each command that has a number, and what is said.
TYPED = [
    ("quickstart", ["--model.lm.layers", "{}"], "--model.lm.layers"),
    ("quickstart", ["--codec.seanet.filters", "{}"], "--codec.seanet.filters"),
    ("quickstart", ["--guidance-scale", "{}"], "--guidance-scale"),
    ("quickstart", ["--seeds", "1", "{}"], "--seeds"),
    ("data build", ["--piece", "{}"], "--piece"),
    ("data build", ["--melody", "{}"], "--melody"),
    ("train", ["x", "--data", "d", "--out", "o", "--hosts.wait", "{}"], "--hosts.wait"),
    ("generate", ["--model", "m", "--out", "o", "--top-p", "{}"], "--top-p"),
    ("encode", ["s", "t", "--codec", "c", "--kbps", "{}"], "--kbps"),
    ("decode", ["s", "t", "--codec", "c", "--levels", "{}"], "--levels"),
    ("export", ["c", "--out", "o", "--seconds", "{}"], "--seconds"),
    ("serve", ["--model", "m", "--port", "{}"], "--port"),
]
WORDS = ("-1", "inf", "nan", "1e30", "9" * 5000)


@pytest.mark.parametrize("words", [WORDS[2:4], slow(WORDS)])
@pytest.mark.parametrize("name, flags, say", TYPED, ids=lambda x: x if isinstance(x, str) else "")
def test_a_number_that_is_typed_is_refused_with_its_flag(name, flags, say, words):
    for word in words:
        given = [flag.format(word) for flag in flags]
        refused(lambda g=given: parse(cli.load(name), g, name), name, say)


def test_the_command_line_says_it_in_one_line(capsys, tmp_path):
    """Exit code 2, before anything is read or written; fields of a config file too."""
    config = next(path for path in CONFIGS if path.stem == "lm_delay")
    for words, say in (
        (["train", config, "--data", "d", "--out", tmp_path / "o", "--batch", "0"], "--batch"),
        (["train", config, "--data", "d", "--out", tmp_path / "o", "--lm.heads", "0"], "heads"),
        (["plan", config, "--topology", "cpu:1", "--loop.steps", "-1"], "--loop.steps"),
        (["data", "build", "--rate", "0", "--out", tmp_path / "o"], "--rate"),
        (["encode", "s", "t", "--codec", "c", "--kbps", "nan"], "--kbps"),
    ):
        refuses(capsys, *words, say=(say,))
    assert list(tmp_path.iterdir()) == []


def test_no_other_number_than_those_of_a_config_file_reaches_a_run(tmp_path):
    """What get_config() returns is asked too."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from rvq_jax.train.runs import LMRun\n"
        "def get_config():\n    return LMRun(batch=10**400, frames=float('nan'))\n"
    )
    run = load_config(path)
    refused(lambda: parse(type(run), [], "train mine", run), "--batch must be a whole number")


RELATED = {
    "heads that do not divide": (LMConfig, {"dim": 16, "heads": 3}, "3 heads"),
    "an odd head": (LMConfig, {"dim": 6, "heads": 2}, "even"),
    "key heads": (TransformerConfig, {"kv_heads": 3}, "3 key heads"),
    "an odd head of a codec": (TransformerConfig, {"head_dim": 5}, "even"),
    "no inner features": (SEANetConfig, {"filters": 2, "compress": 4}, "compress 4"),
    "decoder halved to nothing": (DACConfig, {"decoder_filters": 8}, "decoder_filters 8"),
    "all levels semantic": (MimiConfig, {"levels": 2, "semantic": 2}, "semantic"),
    "widths apart": (MimiConfig, {"transformer": {"dim": 64}}, "transformer.dim 64"),
    "less than a sample": (CodecConfig, {"rate": 1000, "segment": 1e-5}, "one sample"),
    "a melody without text": (LMConfig, {"melody_bins": 12}, "text_dim"),
    "a frame of weeks": (DACConfig, {"ratios": [1024] * 3, "decoder_filters": 64}, "hop"),
    "wide at the end": (SEANetConfig, {"filters": 65_536, "ratios": [2, 2]}, "widest"),
}


@pytest.mark.parametrize("case", RELATED)
def test_fields_that_do_not_go_together_are_refused(case):
    cls, data, say = RELATED[case]
    refused(lambda: configs.from_dict(cls, data, "config.json"), "config.json: ", say)


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
def test_a_config_of_ours_is_what_it_was(cls):
    made = cls()
    assert configs.from_dict(cls, configs.to_dict(made), "f") == made
    limits.check(made, "f")


def test_a_model_that_is_too_large_is_refused_before_anything_is_made():
    """Its shapes are known; sixteen terabytes are not taken."""
    wide = configs.from_dict(LMConfig, {"dim": 1 << 17, "layers": 4, "mlp_dim": 1 << 17}, "f")

    def shapes():
        return files.named(forms.abstract(wide))

    refused(lambda: limits.laid_out(shapes, "f"), "f describes", "parameters, more than")
