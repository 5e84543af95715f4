"""What audiocraft's config says of a MAGNeT, beside what it says of every token model."""

from dataclasses import dataclass

from rvq_jax import config as configs
from rvq_jax.convert import audiocraft_config
from rvq_jax.convert.audiocraft_config import section
from rvq_jax.lm.masked_lm import MaskedLMConfig

KIND = "transformer_lm_magnet"  # by lm_model
# No step before the first frame, so that positions begin with it; decoded as its API does.
FIXED = {
    ("transformer_lm",): {"causal": False},
    ("codebooks_pattern",): {"modeling": "parallel"},
    ("codebooks_pattern", "parallel"): {"empty_initial": -1},
    ("generate", "lm"): {
        "use_sampling": True,
        "anneal_temp": True,
        "span_scoring": "max",
        "span_arrangement": "nonoverlap",
    },
}


@dataclass(frozen=True)
class Masking:
    """How it is masked, with the defaults of its class."""

    subcodes_context: int = 5  # frames on each side; -1: all
    span_len: int = 3  # frames


@dataclass(frozen=True)
class Generation:
    """How it decodes, with the defaults of its API."""

    decoding_steps: tuple[int, ...] | None = None  # of each level
    temp: float = 3.0
    top_k: int = 0  # where there is no top_p
    top_p: float = 0.9
    max_cfg_coef: float = 10.0
    min_cfg_coef: float = 1.0


def read(config: dict, sizes: dict, path) -> tuple[MaskedLMConfig, Generation]:
    """The model of a config, and how it decodes.

    Args:
      config: xp.cfg.
      sizes: fields of the model that its tensors tell.
      path: where they are from, for errors.

    Returns:
      Its config, the window not yet known, and how it decodes.

    Raises:
      UserError: a model or a decode that this library lacks.
    """
    audiocraft_config.check(config, FIXED, path)
    # A file's own transformer_lm.span_len is -1: what it is loaded with is masking's.
    said = section(config, "transformer_lm") | {"span_len": Masking.span_len}
    masking = audiocraft_config.fields(Masking, said | section(config, "masking"), path)
    near = masking.subcodes_context
    lm = configs.make(
        MaskedLMConfig,
        f"{path}: its tensors",
        **sizes,
        block="transformer",
        masking="spans",
        span=masking.span_len,
        context=None if near < 0 else near,
        text=True,
    )
    return lm, audiocraft_config.fields(Generation, section(config, "generate", "lm"), path)
