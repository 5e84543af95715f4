"""Training a token model on random crops of codes."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding

from rvq_jax import config as configs
from rvq_jax import patterns
from rvq_jax.data import loader
from rvq_jax.data.codes import CodeSet
from rvq_jax.data.melodies import MelodyCut
from rvq_jax.errors import UserError
from rvq_jax.lm import forms
from rvq_jax.lm.attention import Form
from rvq_jax.lm.lora import LoRAConfig
from rvq_jax.lm.model import LMConfig, cache_bytes
from rvq_jax.lm.precision import Precision, check_whole, computed
from rvq_jax.lm.sampling import Sampling
from rvq_jax.patterns import Pattern, padded_pattern
from rvq_jax.systems.decoding.programs import generate_codes
from rvq_jax.systems.text_encoder import TextEncoder
from rvq_jax.train import hosts
from rvq_jax.train.captions import caption_states
from rvq_jax.train.heldout import check_codes
from rvq_jax.train.loop import LoopConfig, fit, open_run
from rvq_jax.train.monitoring import NOTHING, Monitoring, Sample
from rvq_jax.train.runs.batches import batches_of, check_batch, heldout_batches, one_device
from rvq_jax.train.runs.run import Decoding, Run, Savable
from rvq_jax.train.runs.shapes import PROMPTS, batch_shapes, decoding_shapes
from rvq_jax.train.runs.sizes import codec_of, sized_as_codes
from rvq_jax.train.state import OptimizerConfig, Task, TrainState
from rvq_jax.train.tasks.lm import ConditionDropout, lm_task
from rvq_jax.train.tasks.lora import lora_task, merged
from rvq_jax.typing import Remat

HELDOUT = "heldout.npz"  # as `rvq-jax data build --codes` has it
# What `rvq-jax generate` does by default.
GUIDANCE, TOP_K = 3.0, 250


@dataclass(frozen=True)
class LMRun(Run):
    """Training a token model on random crops of codes."""

    pattern: str = "delay"  # a name of rvq_jax.patterns
    lm: LMConfig = field(default_factory=LMConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch: int = 8  # crops per update, over all devices
    frames: int = 60  # of a crop
    condition_dropout: ConditionDropout = field(default_factory=ConditionDropout)
    init_from: str | None = None  # folder of a MusicGen; lm and pattern are then its own
    lora: LoRAConfig = field(default_factory=lambda: LoRAConfig(rank=None))  # None: all is trained

    def task(self) -> Task:
        """As of `Run`."""
        if self.init_from is not None or self.lora.rank is not None:
            raise UserError(
                "a plan reads no model: set init_from and lora.rank to None, and give lm its sizes"
            )
        return lm_task(self.lm, self._pattern(), self.condition_dropout)

    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """As of `Run`."""
        return batch_shapes(self.lm, self.batch, self.frames)

    def train(
        self,
        folder: Path,
        data: Path,
        mesh: Mesh,
        *,
        codec: Path | None = None,
        text: Path | None = None,
        monitoring: Monitoring = NOTHING,
    ) -> Savable:
        """As of `Run`; data: a code cache, heldout.npz beside it is held out."""
        from rvq_jax.train.runs.musicgen import train_musicgen

        encoder = None if text is None else TextEncoder.load(text)
        codes = CodeSet.load(data)
        heldout = None if self.loop.evaluate_every == 0 else heldout_beside(data)
        run, made = self, codec_of(codec, codes)
        if self.init_from is None:
            run = dataclasses.replace(self, lm=sized_as_codes(self.lm, codes))
        options = {"heldout": heldout, "monitoring": monitoring}
        return train_musicgen(folder, codes, run, mesh, made, encoder, **options)

    def splits_over(self, tensor: int) -> bool:
        """Heads and feed-forwards divide over the devices."""
        sizes = [self.lm] if self.lm.depth is None else [self.lm, self.lm.depth]
        return all(
            size % tensor == 0
            for one in sizes
            for size in (one.heads, one.kv_heads or one.heads, one.mlp_dim)
        )

    @property
    def remat(self) -> Remat:
        """As of `Run`."""
        return self.lm.remat

    def computed(self, remat: Remat, attention: Form | None = None) -> "LMRun":
        """As of `Run`."""
        choice = {"remat": remat, "attention": attention or self.lm.attention}
        return dataclasses.replace(self, lm=dataclasses.replace(self.lm, **choice))

    def decoding(
        self, device, precision: Precision = "float32", prompts: int = PROMPTS
    ) -> Decoding:
        """As of `Run`: all steps of as many frames as the run's crops, as `rvq-jax generate` runs
        them."""
        shapes = decoding_shapes(self.lm, self.frames, device, precision, prompts)
        (params, *others, _), lm = shapes, computed(self.lm, precision)
        place = SingleDeviceSharding(device)
        pattern = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(np.shape(x), "int32", sharding=place), self._pattern()
        )
        lowered = generate_codes.lower(
            lm, params, pattern, *others, guidance=GUIDANCE, sampling=Sampling(1.0, TOP_K, 0.0)
        )
        steps = patterns.named(self.pattern, lm.levels, self.frames).steps
        # Guided and unguided rows.
        cache = cache_bytes(lm, 2 * prompts, self._pattern().steps)
        return Decoding(lowered, params, prompts, steps, self.frames, cache)

    def _pattern(self) -> Pattern:
        return padded_pattern(self.pattern, self.lm.levels, self.frames)


def heldout_beside(data: Path) -> CodeSet | None:
    """The codes in heldout.npz of the folder that a code cache is in; says so if there are none."""
    path = Path(data).with_name(HELDOUT)
    # What the first process sees is so for all of them.
    if not hosts.broadcast(path.exists() and not path.samefile(data)):
        hosts.warn(f"there is no {path}: nothing is held out")
        return None
    return CodeSet.load(path)


def musicgen_recipe(lm: LMConfig) -> LMRun:
    """The published training of a MusicGen (Copet et al. 2023), in bfloat16, layers recomputed.

    AdamW with a cosine to zero over a million updates of 192 crops of 30 s. Its running mean of
    0.99 every 10 updates is 0.999 at every update here.
    """
    return LMRun(
        pattern="delay",
        lm=dataclasses.replace(lm, dtype="bfloat16", remat="everything"),
        loop=LoopConfig(steps=1_000_000, log_every=100, checkpoint_every=5000),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup=4000, weight_decay=0.1, ema=0.999),
        batch=192,
        frames=lm.window,
        condition_dropout=ConditionDropout(all=0.3),
    )


def train_lm(
    folder: str | Path,
    codes: CodeSet,
    run: LMRun,
    mesh: Mesh | None = None,
    label: str | None = None,
    *,
    init_params: nnx.State | None = None,
    text: TextEncoder | None = None,
    heldout: CodeSet | None = None,
    monitoring: Monitoring = NOTHING,
    sample: Callable[[nnx.State], Sequence[Sample]] | None = None,
) -> nnx.State:
    """Trains a token model, or goes on.

    Args:
      folder: of the run; the states of all captions are kept in it too.
      codes: what it is trained on.
      run: its config.
      mesh: of devices; the first one alone by default.
      label: of the progress bar; the pattern's name by default.
      init_params: parameters to begin with, those of run.init_from (see `runs.musicgen`).
      text: the frozen encoder of a model with text_dim.
      heldout: codes that it is evaluated on meanwhile; none for None.
      monitoring: what is kept for people to look at.
      sample: what parameters, as returned, sound like; nothing is heard for None.

    Returns:
      Parameters with lists of layers (see `rvq_jax.lm.forms`): the running means, adapters merged.

    Raises:
      UserError: a folder that holds a run of another config, an unknown pattern, codes of another
        number of levels or sizes than the model, held-out codes that are trained on; see also
        `fit`.
    """
    folder, mesh = Path(folder), one_device() if mesh is None else mesh
    name = patterns.canonical(run.pattern)
    if (run.init_from is None) != (init_params is None):
        raise ValueError("run.init_from and init_params, the parameters of it, go together")
    if init_params is not None:
        check_whole(init_params, "trained")
    if run.lora.rank is not None and run.lora.rank < 1:
        raise UserError(
            f"lora.rank is {run.lora.rank}: set it to at least 1, or None to train all weights"
        )
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
    dataset, held = codes.describe(), []
    if heldout is not None:
        check_codes(codes, heldout)
        dataset["heldout"] = heldout.describe()
        cut = _cut(heldout, run, text, folder / "heldout_captions.npz")
        held = heldout_batches(heldout, cut, run, mesh)
    cut = _cut(codes, run, text, folder / "captions.npz")
    state = fit(
        folder,
        task,
        batches_of(codes, cut, run, mesh, monitoring.workers),
        run.loop,
        run.optimizer,
        mesh=mesh,
        names=lambda index: [codes[int(i)]["name"] for i in index],
        label=label or name,
        dataset=dataset,
        heldout=held,
        monitoring=monitoring,
        sample=None if sample is None else lambda state: sample(_mean(run, state)),
    )
    return _mean(run, state)


def _mean(run: LMRun, state: TrainState) -> nnx.State:
    """The running means of a run, adapters merged, with lists of layers."""
    params = hosts.fetch(state.ema)
    if run.lora.rank is not None:
        params = jax.device_get(merged(hosts.fetch(state.aux.base), params, run.lora))
    return forms.unstack(run.lm, params)


def _cut(codes: CodeSet, run: LMRun, text: TextEncoder | None, captions: Path) -> loader.Cut:
    """Crops of codes with their conditions; captions: where states of a text encoder are kept."""
    states = melody = None
    if run.lm.text_dim:
        states = caption_states(captions, text, codes.captions)
    if run.lm.melody_bins:
        per_frame = codes.melody_rate / codes.frame_rate
        melody = MelodyCut(per_frame, run.lm.melody_bins, run.lm.melody_frames)
    return loader.cut_codes(run.frames, run.lm.caption_bytes, states, melody)
