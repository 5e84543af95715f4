"""Training a MusicGen in one piece: from random weights, or from those of another."""

import dataclasses
from pathlib import Path

from flax import nnx
from jax.sharding import Mesh

from rvq_jax import patterns
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.lm.model import LMConfig
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.text_encoder import TextEncoder
from rvq_jax.train.codes import check_codec
from rvq_jax.train.monitoring import NOTHING, Monitoring, Sample
from rvq_jax.train.runs.lm import LMRun, train_lm
from rvq_jax.train.sampling import generated

# Fields of how a model is computed, which training chooses itself.
HOW = ("dtype", "remat", "attention")


def train_musicgen(
    folder: str | Path,
    codes: CodeSet,
    run: LMRun,
    mesh: Mesh | None = None,
    codec: Codec | None = None,
    text: TextEncoder | None = None,
    *,
    heldout: CodeSet | None = None,
    monitoring: Monitoring = NOTHING,
) -> MusicGen:
    """Trains a MusicGen in one piece, or goes on.

    With run.init_from it begins with the weights of that model, has its sizes and pattern, and
    keeps its codec and text encoder where none is given.

    Args:
      folder: of the run.
      codes: what it is trained on.
      run: its config.
      mesh: of devices; the first one alone by default.
      codec: to keep beside the model, so that it can be heard.
      text: the frozen text encoder of a model with text_dim.
      heldout: codes that it is evaluated on meanwhile; none for None.
      monitoring: what is kept for people to look at.

    Returns:
      The model.

    Raises:
      UserError: before any training, for a folder that holds no model, and for sizes, a codec or a
        text encoder that do not fit.
    """
    base = None
    if run.init_from is not None:
        base = MusicGen.load(run.init_from)
        run = sized_as(run, base)
        codec, text = codec or base.codec, text or base.text
    _check(run, codes, codec, text)

    def model(params: nnx.State) -> MusicGen:
        return MusicGen(run.lm, patterns.canonical(run.pattern), params, codec, text)

    def hear(params: nnx.State) -> list[Sample]:
        return generated(model(params), heldout, monitoring.listened, run.frames)

    options = {"text": text, "heldout": heldout, "monitoring": monitoring}
    if heldout is not None and codec is not None:
        options["sample"] = hear
    params = None if base is None else base.params
    return model(train_lm(folder, codes, run, mesh, init_params=params, **options))


def sized_as(run: LMRun, base: MusicGen) -> LMRun:
    """The run with the sizes and the pattern of the model that it starts from.

    Raises UserError for a field that was set to something else.
    """
    default, asked = LMConfig(), run.lm
    fields = [f.name for f in dataclasses.fields(LMConfig) if f.name not in HOW]
    stated = {f"lm.{n}": [getattr(x, n) for x in (asked, default, base.config)] for n in fields}
    stated["pattern"] = [patterns.canonical(run.pattern), "delay", base.pattern]
    for name, (value, unset, there) in stated.items():
        if value not in (unset, there):
            raise UserError(f"{name} is {value}, but {there} in {run.init_from}; leave it out")
    how = {name: getattr(asked, name) for name in HOW}
    lm = dataclasses.replace(base.config, **how)
    return dataclasses.replace(run, lm=lm, pattern=base.pattern)


def _check(run: LMRun, codes: CodeSet, codec: Codec | None, text: TextEncoder | None) -> None:
    lm = run.lm
    if lm.melody_bins not in (None, codes.melody_bins):
        raise UserError(
            "this model follows a melody: build the codes with --melody "
            f"{lm.melody_bins} in a new --out"
        )
    longest = max(x.shape[1] for x in codes.codes)
    # What says where clips end learns that from crops that go on beyond them.
    if longest < run.frames and not lm.end:
        raise UserError(
            f"crops have {run.frames} frames, the longest record {longest}: set --frames to fewer, "
            "or build the codes with a longer --piece"
        )
    if text is not None and not lm.text_dim:
        raise UserError("this model reads captions with an encoder of its own: leave --text out")
    if lm.text_dim and text is None:
        raise UserError("this model reads a frozen text encoder: give its folder with --text")
    if lm.text_dim and text.config.dim != lm.text_dim:
        raise UserError(
            f"the text encoder has {text.config.dim} features, lm.text_dim is {lm.text_dim}"
        )
    if codec is None:
        return
    if codec.config.codebook_size != lm.codebook_size or lm.levels % codec.config.levels:
        raise UserError(
            f"the codec has {codec.config.levels} levels of {codec.config.codebook_size} codes, "
            f"the token model {lm.levels} of {lm.codebook_size}"
        )
    check_codec(codes, codec, "the code cache")
