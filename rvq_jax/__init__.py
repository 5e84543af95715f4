"""Residual vector quantization in JAX: quantizers, codecs, patterns and token models.

    import rvq_jax as rj

This is the public face; everything else may change. Importing it computes nothing, and a name is
imported when it is first asked for.
"""

from typing import TYPE_CHECKING

from rvq_jax import lazy

if TYPE_CHECKING:
    from rvq_jax import patterns, quantize
    from rvq_jax.audio.load import load_audio, save_audio
    from rvq_jax.codec.config import CodecConfig
    from rvq_jax.errors import UserError
    from rvq_jax.evaluate.codecs import evaluate_codec
    from rvq_jax.lm.model import LMConfig
    from rvq_jax.systems.codec import Codec, Coded
    from rvq_jax.systems.musicgen import MusicGen
    from rvq_jax.train.folders import train_codec, train_lm
    from rvq_jax.train.runs import CodecRun, LMRun

__version__ = "0.2.0"
__all__ = [
    "Codec",
    "CodecConfig",
    "CodecRun",
    "Coded",
    "LMConfig",
    "LMRun",
    "MusicGen",
    "UserError",
    "__version__",
    "evaluate_codec",
    "load_audio",
    "patterns",
    "quantize",
    "save_audio",
    "train_codec",
    "train_lm",
]
__getattr__, __dir__ = lazy.names(
    __name__,
    {
        "Codec": "rvq_jax.systems.codec",
        "CodecConfig": "rvq_jax.codec.config",
        "CodecRun": "rvq_jax.train.runs",
        "Coded": "rvq_jax.systems.codec",
        "LMConfig": "rvq_jax.lm.model",
        "LMRun": "rvq_jax.train.runs",
        "MusicGen": "rvq_jax.systems.musicgen",
        "UserError": "rvq_jax.errors",
        "evaluate_codec": "rvq_jax.evaluate.codecs",
        "load_audio": "rvq_jax.audio.load",
        "patterns": "rvq_jax.patterns",
        "quantize": "rvq_jax.quantize",
        "save_audio": "rvq_jax.audio.load",
        "train_codec": "rvq_jax.train.folders",
        "train_lm": "rvq_jax.train.folders",
    },
)
