"""A SoundStorm, a MAGNeT and a VALL-E of the codec of small MusicGens, to be drawn from often."""

import functools
from dataclasses import replace

import jax
import numpy as np
import small_musicgen
from small_lm import filled

from rvq_jax.lm import forms
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.systems.magnet import MAGNeT
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.semantic import PATTERN, SemanticModel
from rvq_jax.systems.semantic_tokenizer import BANDS, SemanticTokenizer
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.systems.spelling import Spelling
from rvq_jax.systems.valle import VALLE

K, N, RATE = small_musicgen.K, small_musicgen.N, small_musicgen.RATE
TOKENS, RATIO = 5, 4  # semantic: 25 a second of 100 frames
SIZES = {"levels": K, "codebook_size": N, "dim": 16, "layers": 1, "heads": 2, "mlp_dim": 24}
STORM = MaskedLMConfig(**SIZES, semantic_size=TOKENS, semantic_ratio=RATIO)
MAGNET = MaskedLMConfig(
    **SIZES, block="transformer", masking="spans", span=3, context=5, text=True, caption_bytes=8
)
SEMANTIC = LMConfig(**SIZES | {"levels": 1, "codebook_size": TOKENS}, caption_bytes=8, end=True)
REST = MaskedLMConfig(
    **SIZES,
    block="transformer",
    masking="levels",
    level_norms=True,
    tied=True,
    text=True,
    text_as="prefix",
    caption_layers=0,
    caption_bytes=24,
)
FIRST = LMConfig(
    **SIZES | {"levels": 1}, text_as="prefix", caption_layers=0, caption_bytes=24, end=True
)
AR = LMConfig(**SIZES, caption_bytes=8)


def params_of(config):
    return jax.device_put(filled(forms.abstract(config)))


@functools.cache
def semantic(ends: bool = True) -> SemanticModel:
    """Of random weights; ends: it may end, else it never does."""
    lm = MusicGen(SEMANTIC, PATTERN, params_of(SEMANTIC), None)
    if not ends:
        weight = lm.params["heads"]["weight"]
        lm.params["heads"]["weight"] = weight.replace(weight[...].at[:, TOKENS].set(0.0))
    vectors = np.random.default_rng(0).normal(size=(TOKENS, BANDS)).astype(np.float32)
    return SemanticModel(lm, 25.0, SemanticTokenizer(vectors, RATE, 25.0))


@functools.cache
def soundstorm() -> SoundStorm:
    return SoundStorm(STORM, params_of(STORM), small_musicgen.codec(), semantic())


@functools.cache
def speaking() -> SoundStorm:
    """One whose semantic model reads words."""
    lm = replace(semantic().lm, config=replace(SEMANTIC, window=15))
    stages = replace(semantic(), lm=lm, spelling=Spelling(letters=" abcdeflnorstuw"))
    return replace(soundstorm(), semantic=stages)


@functools.cache
def magnet(**changes) -> MAGNeT:
    config = replace(MAGNET, **changes)
    return MAGNeT(config, params_of(config), small_musicgen.codec())


@functools.cache
def valle(window: int | None = 40) -> VALLE:
    """Of random weights; window: frames that it was trained on."""
    first, rest = replace(FIRST, window=window), replace(REST, window=window)
    lm = MusicGen(first, PATTERN, params_of(FIRST), None)
    spelling = Spelling(letters=" abcdeflnorstuw")
    codec = small_musicgen.codec()
    model = SemanticModel(lm, codec.config.frame_rate)
    return VALLE(rest, params_of(REST), codec, model, spelling)


@functools.cache
def autoregressive() -> MusicGen:
    return MusicGen(AR, "delay", params_of(AR), small_musicgen.codec())
