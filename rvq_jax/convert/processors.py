"""preprocessor_config.json: what transformers' AutoProcessor gives a model of a folder."""

import math

from rvq_jax.audio import chroma
from rvq_jax.codec.dac import DACConfig
from rvq_jax.lm.model import LMConfig

FILE = "preprocessor_config.json"


def of_codec(config) -> dict:
    """Makes the fields of a codec's feature extractor, which pads a batch of audio.

    Args:
      config: of a codec that transformers has words for.

    Returns:
      The fields.
    """
    found = {"feature_size": config.channels, "sampling_rate": config.rate, **_padding("right")}
    if isinstance(config, DACConfig):
        return {"feature_extractor_type": "DacFeatureExtractor", **found, "hop_length": config.hop}
    return {"feature_extractor_type": "EncodecFeatureExtractor", **found, **_segments(config)}


def of_musicgen(config: LMConfig, codec, channels: int) -> dict:
    """Makes the fields of a MusicGen's feature extractor, beside which lies its tokenizer.

    Args:
      config: of the token model.
      codec: config of its codec.
      channels: of the audio that it makes.

    Returns:
      The fields: of audio to go on from, or of a melody's chroma if the model follows one.
    """
    if config.melody_bins is None:
        return {
            "feature_extractor_type": "EncodecFeatureExtractor",
            "feature_size": channels,
            "sampling_rate": codec.rate,
            **_padding("left"),
            **_segments(codec),
        }
    # Whole seconds, after which a melody is cut: the fewest in which the model's frames begin.
    seconds = max(1, math.ceil((config.melody_frames - 1) * chroma.HOP / codec.rate))
    return {
        "feature_extractor_type": "MusicgenMelodyFeatureExtractor",
        "feature_size": config.melody_bins,
        "num_chroma": config.melody_bins,
        "sampling_rate": codec.rate,
        **_padding("right"),
        "return_attention_mask": False,
        "n_fft": chroma.WINDOW,
        "hop_length": chroma.HOP,
        "chunk_length": seconds,
        "n_samples": seconds * codec.rate,
        "stem_indices": [3, 2],  # of Demucs: vocals, and what is neither them, drums nor bass
    }


def _padding(side: str) -> dict:
    return {"padding_side": side, "padding_value": 0.0, "return_attention_mask": True}


def _segments(codec) -> dict:
    overlap = codec.overlap if codec.segment else None
    return {"chunk_length_s": codec.segment, "overlap": overlap}
