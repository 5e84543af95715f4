"""The two kinds of run, each a config and a function: train a codec, train a token model."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from rvq_jax import config as configs
from rvq_jax import patterns
from rvq_jax.codec.config import CodecConfig, tiny
from rvq_jax.data import loader
from rvq_jax.data.codes import CodeSet
from rvq_jax.data.melodies import MelodyCut
from rvq_jax.errors import UserError
from rvq_jax.lm import forms
from rvq_jax.lm.lora import LoRAConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.patterns import Pattern
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.text import TextEncoder
from rvq_jax.train import hosts, sharding
from rvq_jax.train.captions import caption_states
from rvq_jax.train.codec_task import CodecLossConfig, codec_task
from rvq_jax.train.lm_task import ConditionDropout, lm_task
from rvq_jax.train.loop import LoopConfig, fit, open_run
from rvq_jax.train.lora_task import lora_task, merged
from rvq_jax.train.state import OptimizerConfig, Program, make_program


@dataclass(frozen=True)
class CodecRun:
    """Training a codec on random crops of audio."""

    codec: CodecConfig = field(default_factory=tiny)
    loss: CodecLossConfig = field(default_factory=CodecLossConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=2e-3, weight_decay=0.0)
    )
    batch: int = 12  # crops per update, over all devices
    seconds: float = 0.5  # of a crop


@dataclass(frozen=True)
class LMRun:
    """Training a token model on random crops of codes."""

    pattern: str = "delay"
    lm: LMConfig = field(default_factory=LMConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch: int = 8  # crops per update, over all devices
    frames: int = 60  # of a crop
    condition_dropout: ConditionDropout = field(default_factory=ConditionDropout)
    init_from: str | None = (
        None  # folder of a MusicGen to fine-tune; lm and pattern are then its own
    )
    lora: LoRAConfig = field(default_factory=lambda: LoRAConfig(rank=None))  # None: all is trained


def musicgen_recipe(lm: LMConfig) -> LMRun:
    """The published training of a MusicGen (Copet et al. 2023), in bfloat16, layers recomputed.

    AdamW with a cosine to zero over a million updates of 192 crops of 30 s. Its running mean of
    0.99 every 10 updates is 0.999 at every update here.
    """
    return LMRun(
        pattern="delay",
        lm=dataclasses.replace(lm, dtype="bfloat16", remat=True),
        loop=LoopConfig(steps=1_000_000, log_every=100, checkpoint_every=5000),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup=4000, weight_decay=0.1, ema=0.999),
        batch=192,
        frames=lm.window,
        condition_dropout=ConditionDropout(all=0.3),
    )


def train_codec(
    folder: str | Path,
    source,
    run: CodecRun,
    mesh: Mesh | None = None,
    label: str = "codec",
    *,
    profile: int | None = None,
) -> Codec:
    """The codec of a run in `folder`, trained or resumed; its weights are the running means.

    source: records of audio (`rvq_jax.data.builder.open_split`). profile: updates to trace. Raises
    UserError if the folder holds a run of another config, or the corpus is too small to start the
    codebooks; see also `fit`.
    """
    folder = Path(folder)
    open_run(folder, configs.to_dict(run))
    samples = samples_of(run)
    if run.codec.channels < 1:
        raise UserError("codec.seanet.channels must be at least 1")
    mesh = _one_device() if mesh is None else mesh
    check_batch(run, mesh)
    # Enough vectors for k-means of every level on vectors of its own (see quantize.start).
    vectors = run.batch * (samples // run.codec.hop)
    codebook_batches = -(-4 * run.codec.levels * run.codec.codebook_size // vectors)
    task = codec_task(run.codec, run.loss, codebook_batches)
    state = fit(
        folder,
        task,
        _batches(source, loader.cut_audio(samples), run, mesh),
        run.loop,
        run.optimizer,
        mesh=mesh,
        names=lambda index: [source[int(i)]["name"] for i in index],
        label=label,
        dataset=source.describe(),
        profile=profile,
    )
    return Codec(run.codec, hosts.fetch(state.ema), hosts.fetch(state.aux.books))


def lm_program(run: LMRun, pattern: Pattern, mesh: Mesh | None = None) -> Program:
    """The compiled functions that all runs alike in all but seed and pattern share."""
    mesh = _one_device() if mesh is None else mesh
    task = lm_task(run.lm, pattern, run.condition_dropout)
    return make_program(task, run.optimizer, run.loop.steps, mesh)


def train_lm(
    folder: str | Path,
    codes: CodeSet,
    run: LMRun,
    mesh: Mesh | None = None,
    program: Program | None = None,
    label: str | None = None,
    *,
    init_params: nnx.State | None = None,
    text: TextEncoder | None = None,
    profile: int | None = None,
) -> nnx.State:
    """Parameters of a token model of a run in `folder`, trained or resumed; the running means.

    They have lists of layers (see `rvq_jax.lm.forms`), and adapters are merged into them.
    init_params: parameters to begin with, of run.init_from (`rvq_jax.train.musicgen` reads it).
    text: the frozen encoder of a model with text_dim; its states of all captions are kept in the
    folder. profile: updates to trace.

    Raises UserError if the folder holds a run of another config, the pattern is unknown, or the
    codes have another number of levels or sizes than the model; see also `fit`.
    """
    folder, mesh = Path(folder), _one_device() if mesh is None else mesh
    name = patterns.canonical(run.pattern)
    if (run.init_from is None) != (init_params is None):
        raise ValueError("run.init_from and init_params, the parameters of it, go together")
    if run.lora.rank is not None and init_params is None:
        raise UserError(
            "adapters tune a trained model: set init_from to its folder, or lora.rank to None"
        )
    open_run(folder, configs.to_dict(dataclasses.replace(run, pattern=name)))
    levels = codes[0]["codes"].shape[0]
    if (levels, codes.codebook_size) != (run.lm.levels, run.lm.codebook_size):
        raise UserError(
            f"the codes have {levels} levels of {codes.codebook_size}, the model {run.lm.levels} "
            f"of {run.lm.codebook_size}; set lm.levels and lm.codebook_size to the codes'"
        )
    check_batch(run, mesh)
    pattern = padded_pattern(name, run.lm.levels, run.frames)
    if run.lora.rank is not None:
        task = lora_task(run.lm, run.lora, init_params, pattern, run.condition_dropout)
    else:
        task = lm_task(run.lm, pattern, run.condition_dropout, init_params)
    states = melody = None
    if run.lm.text_dim:
        states = caption_states(folder / "captions.npz", text, codes.captions)
    if run.lm.melody_bins:
        per_frame = codes.melody_rate / codes.frame_rate
        melody = MelodyCut(per_frame, run.lm.melody_bins, run.lm.melody_frames)
    cut = loader.cut_codes(run.frames, run.lm.caption_bytes, states, melody)
    state = fit(
        folder,
        task,
        _batches(codes, cut, run, mesh),
        run.loop,
        run.optimizer,
        mesh=mesh,
        names=lambda index: [codes[int(i)]["name"] for i in index],
        label=label or name,
        program=program,
        dataset=codes.describe(),
        profile=profile,
    )
    params = hosts.fetch(state.ema)
    if run.lora.rank is not None:
        params = jax.device_get(merged(hosts.fetch(state.aux.base), params, run.lora))
    return forms.unstack(run.lm, params)


def padded_pattern(name: str, levels: int, frames: int) -> Pattern:
    """A named pattern padded to a multiple of 64 steps: patterns near in length share programs."""
    pattern = patterns.named(name, levels, frames)
    return pattern.pad(-(-pattern.steps // 64) * 64)


def _batches(source, cut, run: CodecRun | LMRun, mesh: Mesh):
    """This process's share of every batch."""
    return loader.batches(source, cut, run.batch, run.loop.seed, hosts.rows(mesh, run.batch))


def check_batch(run: CodecRun | LMRun, mesh: Mesh) -> None:
    """Raises UserError for a batch that devices and parts cannot share out evenly."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"] * run.optimizer.accumulate
    if run.batch < 1 or run.batch % ways:
        raise UserError(
            f"batch is {run.batch} and must be a multiple of {ways}: of the devices that share it, "
            "and of optimizer.accumulate"
        )


def samples_of(run: CodecRun) -> int:
    """Samples of a crop: whole frames."""
    hop = run.codec.hop
    return max(1, int(np.ceil(run.seconds * run.codec.rate / hop))) * hop


def _one_device() -> Mesh:
    return sharding.make_mesh(devices=jax.devices()[:1])
