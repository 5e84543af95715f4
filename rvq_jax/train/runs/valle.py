"""Training VALL-E: speech from text, both stages in one run."""

import dataclasses
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
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.precision import Precision
from rvq_jax.patterns import padded_pattern
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.semantic import PATTERN, SemanticModel
from rvq_jax.systems.spelling import Spelling
from rvq_jax.systems.valle import FIRST, REST, VALLE
from rvq_jax.train import hosts
from rvq_jax.train.codes import check_codec
from rvq_jax.train.heldout import check_codes
from rvq_jax.train.loop import LoopConfig, fit, open_run
from rvq_jax.train.monitoring import NOTHING, Monitoring, Sample
from rvq_jax.train.runs.batches import batches_of, check_batch, heldout_batches
from rvq_jax.train.runs.lm import LMRun, heldout_beside
from rvq_jax.train.runs.run import Decoding, Run
from rvq_jax.train.runs.shapes import PROMPTS, batch_shapes
from rvq_jax.train.runs.sizes import codec_of, sized_as_codes
from rvq_jax.train.sampling import generated
from rvq_jax.train.state import OptimizerConfig, Task, TrainState
from rvq_jax.train.tasks.valle import valle_task
from rvq_jax.train.utterances import utterances
from rvq_jax.typing import Remat

BYTES = 128  # of a text
READS = {"caption_layers": 0, "caption_bytes": BYTES}


@dataclass(frozen=True)
class VALLERun(Run):
    """Training VALL-E on codes of whole utterances, whose captions are what is said in them."""

    # Of the first level: the words, then its codes one after another.
    first: LMConfig = field(
        default_factory=lambda: LMConfig(levels=1, text_as="prefix", end=True, **READS)
    )
    # Of the other levels, each predicted whole from those below it.
    rest: MaskedLMConfig = field(
        default_factory=lambda: MaskedLMConfig(
            block="transformer",
            masking="levels",
            level_norms=True,
            tied=True,
            text=True,
            text_as="prefix",
            **READS,
        )
    )
    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch: int = 8  # utterances per update, over all devices
    frames: int = 250  # of the longest utterance and its end; longer ones are left out
    phonemes: str | None = None  # espeak-ng's name of a language; None: texts are letters

    def task(self) -> Task:
        """As of `Run`."""
        pattern = padded_pattern(PATTERN, 1, self.frames)
        return valle_task(self.first, self.rest, pattern, self.optimizer)

    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """As of `Run`."""
        return batch_shapes(self.rest, self.batch, self.frames)

    def train(
        self,
        folder: Path,
        data: Path,
        mesh: Mesh,
        *,
        codec: Path | None = None,
        text: Path | None = None,
        monitoring: Monitoring = NOTHING,
    ) -> VALLE:
        """As of `Run`; data: a code cache, heldout.npz beside it is held out.

        Raises UserError also for a frozen text encoder, which it does not read.
        """
        if text is not None:
            raise UserError("VALL-E reads texts itself: leave --text out")
        codes = CodeSet.load(data)
        heldout = None if self.loop.evaluate_every == 0 else heldout_beside(data)
        first = sized_as_codes(self.first, codes, FIRST, levels=False)
        rest = sized_as_codes(self.rest, codes, REST)
        run = dataclasses.replace(self, first=first, rest=rest)
        options = {"heldout": heldout, "monitoring": monitoring}
        return train_valle(folder, codes, run, mesh, codec_of(codec, codes), **options)

    def splits_over(self, tensor: int) -> bool:
        """Heads and feed-forwards divide over the devices."""
        sizes = [size for one in (self.first, self.rest) for size in (one.heads, one.mlp_dim)]
        return all(size % tensor == 0 for size in sizes)

    @property
    def remat(self) -> Remat:
        """As of `Run`."""
        return self.first.remat

    def computed(self, remat: Remat, attention: Form | None = None) -> "VALLERun":
        """As of `Run`."""
        parts = {n: dataclasses.replace(getattr(self, n), remat=remat) for n in (FIRST, REST)}
        return dataclasses.replace(self, **parts)

    def decoding(
        self, device, precision: Precision = "float32", prompts: int = PROMPTS
    ) -> Decoding:
        """As of `Run`: the first level of as many frames as the longest utterance, which is nearly
        all of it."""
        run = LMRun(pattern=PATTERN, lm=self.first, frames=self.frames)
        return run.decoding(device, precision, prompts)


def train_valle(
    folder: str | Path,
    codes: CodeSet,
    run: VALLERun,
    mesh: Mesh,
    codec: Codec | None = None,
    *,
    heldout: CodeSet | None = None,
    monitoring: Monitoring = NOTHING,
    label: str = "VALL-E",
) -> VALLE:
    """Trains both stages, or goes on.

    Args:
      folder: of the run.
      codes: what it is trained on: whole utterances, their words as captions.
      run: its config.
      mesh: of devices.
      codec: to keep beside the model; it is of no codec's for None.
      heldout: codes that it is evaluated on meanwhile; none for None.
      monitoring: what is kept for people to look at.
      label: of the progress bar.

    Returns:
      The model, of the running means.

    Raises:
      UserError: a folder that holds a run of another config, codes that are not of the model's
        sizes or have no words, held-out codes that are trained on; see also `fit`.
    """
    folder = Path(folder)
    _check(run, codes, codec)
    check_batch(run, mesh)
    spelling = Spelling(run.phonemes)
    reads = run.frames, spelling, run.rest.caption_bytes
    codes = utterances(codes, *reads)
    open_run(folder, configs.to_dict(run))
    dataset, held = codes.describe(), []
    cut = loader.cut_codes(run.frames, run.rest.caption_bytes)
    if heldout is not None:
        check_codes(codes, heldout)
        _check(run, heldout, None)
        spelled = utterances(heldout, *reads, "heldout")
        dataset["heldout"] = spelled.describe()
        held = heldout_batches(spelled, cut, run, mesh)
    # It is asked for no more than it was trained on.
    first, rest = (
        dataclasses.replace(getattr(run, name), window=run.frames) for name in (FIRST, REST)
    )
    spelling = spelling.trained_on(codes.captions)

    def made(state: TrainState) -> VALLE:
        params: dict[str, nnx.State] = {
            name: forms.unstack(getattr(run, name), hosts.fetch(state.ema[name]))
            for name in (FIRST, REST)
        }
        lm = MusicGen(first, PATTERN, params[FIRST], None)
        model = SemanticModel(lm, codes.frame_rate)
        return VALLE(rest, params[REST], codec, model, spelling)

    def hear(state: TrainState) -> list[Sample]:
        return generated(made(state), heldout, monitoring.listened, run.frames)

    state = fit(
        folder,
        run.task(),
        batches_of(codes, cut, run, mesh, monitoring.workers),
        run.loop,
        run.optimizer,
        mesh=mesh,
        names=lambda index: [codes[int(i)]["name"] for i in index],
        label=label,
        dataset=dataset,
        heldout=held,
        monitoring=monitoring,
        sample=None if heldout is None or codec is None else hear,
    )
    return made(state)


def _check(run: VALLERun, codes: CodeSet, codec) -> None:
    first, rest = run.first, run.rest
    if first.levels != 1 or not first.end or first.text_as != "prefix" or first.text_dim:
        raise UserError(
            "the first stage has one level, an end and its text before it: set first.levels 1, "
            "first.end True, first.text-as prefix and no first.text-dim"
        )
    if rest.masking != "levels" or not rest.text or rest.text_dim:
        raise UserError(
            "the other levels are masked whole and read a text: set rest.masking levels, rest.text "
            "True and no rest.text-dim"
        )
    shared = "codebook_size", "caption_bytes"
    for name in shared:
        if getattr(first, name) != getattr(rest, name):
            raise UserError(f"first.{name} and rest.{name} differ; set them to one number")
    have = len(codes.codes[0]), codes.codebook_size
    if have != (rest.levels, rest.codebook_size):
        raise UserError(
            f"the codes have {have[0]} levels of {have[1]}, the model {rest.levels} of "
            f"{rest.codebook_size}; set rest.levels and the codebook_size of both to the codes'"
        )
    if codec is not None:
        check_codec(codes, codec, "the code cache")
