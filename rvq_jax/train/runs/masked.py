"""Training a masked token model, SoundStorm's or MAGNeT's, on random crops of codes."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
from flax import nnx
from jax.sharding import Mesh

from rvq_jax import config as configs
from rvq_jax.data import loader
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.lm import forms
from rvq_jax.lm.attention import Form
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.precision import Precision, computed
from rvq_jax.lm.schedule import timetable
from rvq_jax.systems import magnet, soundstorm
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.decoding.masked import lower_masked
from rvq_jax.systems.magnet import MAGNeT
from rvq_jax.systems.semantic import SemanticModel
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.systems.text_encoder import TextEncoder
from rvq_jax.train import hosts
from rvq_jax.train.captions import caption_states
from rvq_jax.train.codes import check_codec
from rvq_jax.train.heldout import check_codes
from rvq_jax.train.loop import LoopConfig, fit, open_run
from rvq_jax.train.monitoring import NOTHING, Monitoring, Sample
from rvq_jax.train.runs.batches import batches_of, check_batch, heldout_batches, one_device
from rvq_jax.train.runs.lm import heldout_beside
from rvq_jax.train.runs.run import Decoding, Run, Savable
from rvq_jax.train.runs.shapes import PROMPTS, batch_shapes, decoding_shapes
from rvq_jax.train.runs.sizes import codec_of, sized_as_codes
from rvq_jax.train.sampling import generated
from rvq_jax.train.state import OptimizerConfig, Task, TrainState
from rvq_jax.train.tasks.lm import ConditionDropout
from rvq_jax.train.tasks.masked import masked_task
from rvq_jax.typing import Remat


@dataclass(frozen=True)
class MaskedRun(Run):
    """Training a masked token model on random crops of codes, with their semantic tokens if any."""

    lm: MaskedLMConfig = field(default_factory=MaskedLMConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch: int = 8  # crops per update, over all devices
    frames: int = 60  # of a crop
    condition_dropout: ConditionDropout = field(default_factory=ConditionDropout)
    # Folder of the model of semantic tokens that SoundStorm keeps beside it; it can be named later.
    semantic: str | None = None

    def task(self) -> Task:
        """As of `Run`."""
        return masked_task(self.lm, self.condition_dropout)

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
        encoder = None if text is None else TextEncoder.load(text)
        codes = CodeSet.load(data)
        made = codec_of(codec, codes)
        run = dataclasses.replace(self, lm=sized_as_codes(self.lm, codes))
        heldout = None if self.loop.evaluate_every == 0 else heldout_beside(data)
        stages = None if self.semantic is None else SemanticModel.load(self.semantic)
        if stages is not None and self.lm.semantic_size is None:
            raise UserError("a model of semantic tokens is SoundStorm's: leave --semantic out")
        _check(run, codes, made, encoder)
        if stages is not None:
            SoundStorm(run.lm, None, made).check_semantic(stages, self.semantic)
        # It is asked for no more than it was trained on.
        lm = dataclasses.replace(run.lm, window=run.lm.window or self.frames)

        def model(params: nnx.State) -> SoundStorm | MAGNeT:
            if lm.semantic_size is not None:
                return SoundStorm(lm, params, made, stages)
            return MAGNeT(lm, params, made, encoder)

        def hear(params: nnx.State) -> list[Sample]:
            return generated(model(params), heldout, monitoring.listened, self.frames)

        options = {"text": encoder, "heldout": heldout, "monitoring": monitoring}
        if heldout is not None and made is not None:
            options["sample"] = hear
        return model(train_masked(folder, codes, run, mesh, **options))

    def splits_over(self, tensor: int) -> bool:
        """Heads and feed-forwards divide over the devices."""
        return self.lm.heads % tensor == 0 and self.lm.mlp_dim % tensor == 0

    @property
    def remat(self) -> Remat:
        """As of `Run`."""
        return self.lm.remat

    def computed(self, remat: Remat, attention: Form | None = None) -> "MaskedRun":
        """As of `Run`."""
        return dataclasses.replace(self, lm=dataclasses.replace(self.lm, remat=remat))

    def decoding(
        self, device, precision: Precision = "float32", prompts: int = PROMPTS
    ) -> Decoding:
        """As of `Run`: all iterations for as many frames as the run's crops, as `rvq-jax generate`
        runs them."""
        lm, system = self.lm, magnet if self.lm.semantic_size is None else soundstorm
        guidance = magnet.GUIDANCE if system is magnet else None
        table = timetable(system.default_iterations(lm), guidance=guidance)
        shapes = decoding_shapes(lm, self.frames, device, precision, prompts)
        params, *others, placed = shapes
        lowered = lower_masked(computed(lm, precision), params, placed(table), *others)
        return Decoding(lowered, params, prompts, len(table.level), self.frames)


def masked_recipe(lm: MaskedLMConfig, batch: int) -> MaskedRun:
    """A published masked model's training, in bfloat16, layers recomputed.

    AdamW with a cosine to zero over a million updates, as audiocraft trained MAGNeT (Ziv et al.
    2024); crops of the model's window.

    Args:
      lm: its sizes.
      batch: crops per update.

    Returns:
      The run.
    """
    return MaskedRun(
        lm=dataclasses.replace(lm, dtype="bfloat16", remat="everything"),
        loop=LoopConfig(steps=1_000_000, log_every=100, checkpoint_every=5000),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup=4000, weight_decay=0.1, ema=0.999),
        batch=batch,
        frames=lm.window,
        condition_dropout=ConditionDropout(all=0.3 if lm.text else 0.0),
    )


def train_masked(
    folder: str | Path,
    codes: CodeSet,
    run: MaskedRun,
    mesh: Mesh | None = None,
    *,
    text: TextEncoder | None = None,
    heldout: CodeSet | None = None,
    monitoring: Monitoring = NOTHING,
    sample: Callable[[nnx.State], Sequence[Sample]] | None = None,
    label: str = "masked",
) -> nnx.State:
    """Trains a masked token model, or goes on.

    Args:
      folder: of the run; the states of all captions are kept in it too.
      codes: what it is trained on.
      run: its config.
      mesh: of devices; the first one alone by default.
      text: the frozen encoder of a model with text_dim.
      heldout: codes that it is evaluated on meanwhile; none for None.
      monitoring: what is kept for people to look at.
      sample: what parameters, as returned, sound like; nothing is heard for None.
      label: of the progress bar.

    Returns:
      Parameters with lists of layers (see `rvq_jax.lm.forms`): the running means.

    Raises:
      UserError: a folder that holds a run of another config, codes that are not of the model's
        sizes, held-out codes that are trained on; see also `fit`.
    """
    folder, mesh = Path(folder), one_device() if mesh is None else mesh
    _check(run, codes, None, text)
    longest = max(x.shape[1] for x in codes.codes)
    # Held-out ones may be shorter: they are padded.
    if longest < run.frames:
        raise UserError(
            f"crops have {run.frames} frames, the longest record {longest}: set --frames to fewer, "
            "or build the codes with a longer --piece"
        )
    check_batch(run, mesh)
    open_run(folder, configs.to_dict(dataclasses.replace(run, semantic=None)))
    dataset, held = codes.describe(), []
    if heldout is not None:
        check_codes(codes, heldout)
        _check(run, heldout, None, text)
        dataset["heldout"] = heldout.describe()
        cut = _cut(heldout, run, text, folder / "heldout_captions.npz")
        held = heldout_batches(heldout, cut, run, mesh)
    cut = _cut(codes, run, text, folder / "captions.npz")
    state = fit(
        folder,
        masked_task(run.lm, run.condition_dropout),
        batches_of(codes, cut, run, mesh, monitoring.workers),
        run.loop,
        run.optimizer,
        mesh=mesh,
        names=lambda index: [codes[int(i)]["name"] for i in index],
        label=label,
        dataset=dataset,
        heldout=held,
        monitoring=monitoring,
        sample=None if sample is None else lambda state: sample(_mean(run, state)),
    )
    return _mean(run, state)


def _mean(run: MaskedRun, state: TrainState) -> nnx.State:
    """The running means of a run, with lists of layers."""
    return forms.unstack(run.lm, hosts.fetch(state.ema))


def _cut(codes: CodeSet, run: MaskedRun, text: TextEncoder | None, captions: Path) -> loader.Cut:
    """Crops of codes with their conditions; captions: where states of a text encoder are kept."""
    states = caption_states(captions, text, codes.captions) if run.lm.text_dim else None
    ratio = run.lm.semantic_ratio if run.lm.semantic_size is not None else None
    return loader.cut_codes(run.frames, run.lm.caption_bytes, states, semantic_ratio=ratio)


def _check(run: MaskedRun, codes: CodeSet, codec: Codec | None, text: TextEncoder | None) -> None:
    lm, levels = run.lm, len(codes.codes[0])
    if (levels, codes.codebook_size) != (lm.levels, lm.codebook_size):
        raise UserError(
            f"the codes have {levels} levels of {codes.codebook_size}, the model {lm.levels} of "
            f"{lm.codebook_size}; set lm.levels and lm.codebook_size to the codes'"
        )
    asked, have = (lm.semantic_size, lm.semantic_ratio), (codes.semantic_size, codes.semantic_ratio)
    if lm.semantic_size is not None and codes.semantics is None:
        raise UserError(
            "this model reads semantic tokens and the codes have none: build them with --semantic "
            "kmeans in a new --out"
        )
    if lm.semantic_size is not None and asked != have:
        raise UserError(
            f"the codes have {have[0]} semantic tokens, one of every {have[1]} frames, the model "
            f"reads {asked[0]}, one of every {asked[1]}; set lm.semantic-size and lm.semantic-ratio"
        )
    if lm.semantic_size is not None and run.frames % lm.semantic_ratio:
        raise UserError(
            f"frames is {run.frames} and must be a multiple of lm.semantic_ratio, "
            f"{lm.semantic_ratio}"
        )
    if (text is None) != (lm.text_dim is None):
        raise UserError(
            "this model reads a frozen text encoder: give its folder with --text"
            if text is None
            else "this model reads no frozen text encoder: leave --text out"
        )
    if text is not None and text.config.dim != lm.text_dim:
        raise UserError(
            f"the text encoder has {text.config.dim} features, lm.text_dim is {lm.text_dim}"
        )
    if codec is None:
        return
    sizes = codec.config.levels, codec.config.codebook_size
    if sizes != (lm.levels, lm.codebook_size):
        raise UserError(
            f"the codec has {sizes[0]} levels of {sizes[1]} codes, the token model {lm.levels} of "
            f"{lm.codebook_size}"
        )
    check_codec(codes, codec, "the code cache")
