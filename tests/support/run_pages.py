"""Runs what a page of the documentation shows, block after block, in sizes of a test."""

import contextlib
import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pages
import stand_ins
from small_runs import one_device

from rvq_jax import builtin, cli
from rvq_jax.cli.train import load_config
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.evaluate import folders
from rvq_jax.lm.model import LMConfig
from rvq_jax.train import sharding
from rvq_jax.train.runs import LMRun, MaskedRun, VALLERun

# Commands that are not run, by what they hold, and who has them instead.
NOT_RUN = {
    ("rvq-jax", "plan"): "compiles for TPUs: tests/plan/test_plan_tpu.py",
    ("rvq-jax", "serve"): "waits for requests: tests/serve",
    ("--hosts.coordinator",): "of many hosts: tests/faults",
    ("--devices",): "wants several devices: tests/systems/test_generate_mesh.py",
    ("pip",): "asks a package index: tests/bare.sh",
    ("git",): "asks a server",
    ("hf",): "asks a server",
    ("tail",): "waits for lines",
    ("sudo",): "asks a package index",
    ("gcloud",): "asks for TPUs",
    ("mkdocs",): "a step of .ci/run",
    ("python3",): "makes an environment: tests/bare.sh",
    ("tensorboard",): "waits for a browser",
    ("--topology",): "compiles for TPUs: tests/plan/test_plan_tpu.py",
    ("--train-codec",): "trains a codec beside: tests/study/test_study.py",
    ("configs/encodec_32khz_tiny.py",): "its like at 24 kHz is run: docs/how_to/train_a_codec.md",
    ("--speech",): "hears for minutes: tests/evaluate",
    ("--phonemes",): "wants espeak-ng: tests/systems",
}
TORCH = re.compile(r"^(?:import|from) (?:torch|transformers)\b|transformers\.", re.M)
SHELL = {"cp", "mkdir"}
LOOP = "--loop.steps 2 --loop.log-every 1 --loop.checkpoint-every 2"
LM = "--lm.dim 16 --lm.layers 1 --lm.heads 2 --lm.mlp-dim 16"
JUDGES = """--adversarial.discriminators.stft.windows 256
--adversarial.discriminators.stft.filters 2 --seconds 0.5"""
CODECS = "--metrics si_sdr mel --listened 1"  # nothing that needs a package of its own
MODELS = "--listened 1 --generate.clips 1 --generate.seconds 1"
# Two strides in place of four, whose product is a hop of 320 samples as it was; spectra of three
# lengths in place of EnCodec's seven.
SEANET = """--codec.seanet.ratios 8 40 --codec.seanet.filters 2 --codec.seanet.dim 8
--loss.mel-kind rvq_jax"""
QUICK = f"""--model.loop.steps 2 --model.batch 2 --clips 1 --seconds 1 --seeds 0
--patterns parallel delay {LM.replace("--", "--model.")}"""
# The same in Python, for runs that a page leaves as they are.
CODEC = CodecConfig(16_000, SEANetConfig(1, 8, 2, (8, 40), lstm_layers=0), 4, 128)
TOKENS = LMConfig(dim=16, layers=1, heads=2, mlp_dim=16)


def run_page(path: Path) -> list[str]:
    """Runs the blocks of a page in the folder at hand.

    Args:
      path: of the page.

    Returns:
      What went wrong, each with the line of its block; a page ends at its first one.
    """
    names: dict = {"__name__": "__main__", "_CODEC": CODEC, "_TOKENS": TOKENS}
    studies: dict = {}
    for block in pages.blocks(path.read_text(encoding="utf-8")):
        place = f"{path.name}:{block.line}"
        if block.language == "python" and not TORCH.search(block.text):  # tests/parity has those
            text = re.sub(r"\bsteps=\d+", "steps=2", block.text)
            text = re.sub(r"\b(Codec|LM)Run\((?![^)]*\bbatch=)", r"\1Run(batch=2, ", text)
            text = re.sub(r"\bCodecRun\(batch=2, \)", "CodecRun(_CODEC, batch=2)", text)
            text = re.sub(r"\bLMRun\((?![^)]*\b(?:lm|init_from)=)", "LMRun(lm=_TOKENS, ", text)
            try:
                exec(compile(text, place, "exec"), names)
            except Exception as error:
                return [f"{place}: {type(error).__name__}: {error}"]
        for words in pages.commands(block) if block.language == "sh" else ():
            if why_not(words):
                continue
            words = smaller(words)
            flags = flags_in(words)
            out = flags.pop("--out", ("runs/quickstart",))[0]
            key = words[1] == "quickstart" and tuple(sorted(flags.items()))
            if key and key in studies:
                # One in other words, in sizes of a test: its minutes would teach nothing more.
                shutil.copytree(studies[key], out, dirs_exist_ok=True)
                continue
            code = run(words)
            if code:
                return [f"{place}: {' '.join(words)}: exit code {code}"]
            if key:
                studies[key] = out
    return []


def flags_in(words: list[str]) -> dict[str, tuple[str, ...]]:
    """The flags of a command and their values; of those given twice the later ones."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        name = word if word.startswith("--") else name
        found[name] = [] if name == word else [*found.get(name, []), word]
    return {name: tuple(values) for name, values in found.items() if name}


def enter(folder: Path, tmp_path_factory, monkeypatch) -> None:
    """Goes into a folder of a test, filled with what pages take for their reader's own.

    Args:
      folder: an empty one.
      tmp_path_factory: pytest's; what is made stays for the next page of the process.
      monkeypatch: pytest's.
    """
    made = tmp_path_factory.getbasetemp() / "stand_ins"
    if not made.exists():
        made.mkdir()
        stand_ins.make(made)
    shutil.copytree(made, folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    stand_ins.make_importable(monkeypatch)
    # A test has eight devices, which do not share out the batches of laptops.
    mesh = one_device()
    monkeypatch.setattr(sharding, "make_mesh", lambda **sizes: mesh)


def run(words: list[str]) -> int:
    """The exit code of a command, in this process if it is ours."""
    if words[0] in SHELL:
        return subprocess.run(words).returncode
    with contextlib.suppress(SystemExit):
        return cli.main(words[1:])
    return 0


def why_not(words: list[str]) -> str | None:
    """Why a command is not run; None for one that is."""
    words = [word.removeprefix(".venv/bin/") for word in words]
    if "configs/dac_44khz.py" in words and "--init-from" in words:
        return "with discriminators of full size: tests/train/test_codec_run.py"
    if any("/shared" in word for word in words):
        return "on a disk of many hosts"
    if "=" in words[0]:
        return "of another environment: a process of its own would compile for minutes"
    for marks, reason in NOT_RUN.items():
        head = words[: len(marks)] == list(marks)
        if head or (
            len(marks) == 1 and marks[0].startswith(("--", "configs/")) and marks[0] in words
        ):
            return reason
    return None


def smaller(words: list[str]) -> list[str]:
    """A command of a page with the sizes of a test; later flags are those that count."""
    if words[0] in SHELL:
        return words
    if words[1] == "quickstart":
        # The built-in corpus takes minutes to encode.
        given = [] if "--data" in words else ["--data", "MUSIC"]
        return [*words, *QUICK.split(), *given]
    if words[1] == "evaluate":
        named = list(itertools.takewhile(lambda word: word[0] != "-", words[2:]))
        are_codecs = folders.are_codecs(tuple(map(builtin.folder, named)))
        return [*without(words, "--against"), *(CODECS if are_codecs else MODELS).split()]
    if words[1:3] == ["data", "build"] and "kmeans" in words:
        return [*words, "--semantic-size", "16"]
    if words[1] not in ("train", "sweep"):
        return words
    words = one_grid(words)
    # What begins with a folder has the folder's sizes.
    sizes = "--init-from" not in words
    tiny = re.sub(r"(_published|_evening)?$", "_tiny", Path(words[2]).stem)
    config = Path("configs") / f"{tiny}.py"
    config = config if sizes and config.is_file() else Path(words[2])
    run = load_config(config)
    once = ["--seeds", "0"] if words[1] == "sweep" else []
    return [*words[:2], str(config), *words[3:], *once, *flags_of(run, sizes)]


def one_grid(words: list[str]) -> list[str]:
    """A command whose grids but the first have one value each."""
    grids = [i for i, word in enumerate(words) if i and words[i - 1] == "--grid"]
    return [word.split(",")[0] if i in grids[1:] else word for i, word in enumerate(words)]


def without(words: list[str], flag: str) -> list[str]:
    """A command without a flag and its values."""
    if flag not in words:
        return words
    begin = words.index(flag)
    rest = [i for i, word in enumerate(words) if i > begin and word.startswith("--")]
    return words[:begin] + words[rest[0] if rest else len(words) :]


def flags_of(run, sizes: bool) -> list[str]:
    """The flags that make a run of any kind short, and with `sizes` its model small."""
    flags = LOOP.split() + ["--batch", "2"]
    for name in ("warmup", "cooldown"):
        flags += [f"--optimizer.{name}", "1"] if getattr(run.optimizer, name, None) else []
    if sizes and getattr(getattr(run, "codec", None), "seanet", None):
        flags += SEANET.split()
    judges = getattr(getattr(run, "adversarial", None), "discriminators", None)
    if sizes and getattr(judges, "stft", None):
        flags += JUDGES.split()
    if isinstance(run, MaskedRun | LMRun):
        tokens = getattr(run.lm, "semantic_size", None)
        flags += ["--lm.semantic-size", "16"] if tokens else []
        depth = sizes and getattr(run.lm, "depth", None)
        flags += LM.replace("lm.", "lm.depth.").split() if depth else []
        # Of these it is the longest clip that they make.
        frames = "20" if type(run) is LMRun else "100"
        return [*flags, "--frames", frames, *(LM.split() if sizes else [])]
    if isinstance(run, VALLERun):
        parts = ("first", "rest")
        return flags + [word.replace("lm.", f"{p}.") for p in parts for word in LM.split()]
    return flags


def with_blocks(paths: list[Path]) -> list[Path]:
    """Those of some pages that have something to run."""
    found = []
    for path in paths:
        blocks = pages.blocks(path.read_text(encoding="utf-8"))
        lines = [words for b in blocks if b.language == "sh" for words in pages.commands(b)]
        if any(b.language == "python" for b in blocks) or not all(map(why_not, lines)):
            found.append(path)
    return found
