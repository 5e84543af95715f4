"""EnCodec folders of transformers: their config and the names of their tensors."""

import math
from dataclasses import dataclass
from typing import Literal

from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.config import make
from rvq_jax.convert.fields import checked, is_power_of_two, refuse, without_place
from rvq_jax.convert.layout import CONV, MATRIX, TRANSPOSED, Layout, Place

CONFIG = CodecConfig
NORMS = "weight_norm", "time_group_norm"
POWERS = "powers of two"


@dataclass(frozen=True)
class Fields:
    """transformers' EncodecConfig: what says something about the model, with its defaults."""

    target_bandwidths: tuple[float, ...] = (1.5, 3.0, 6.0, 12.0, 24.0)
    sampling_rate: int = 24_000
    audio_channels: int = 1
    normalize: bool = False
    chunk_length_s: float | None = None
    overlap: float | None = None
    hidden_size: int = 128
    num_filters: int = 32
    num_residual_layers: int = 1
    upsampling_ratios: tuple[int, ...] = (8, 5, 4, 2)
    norm_type: Literal["weight_norm", "time_group_norm"] = "weight_norm"
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    dilation_growth_rate: int = 2
    use_causal_conv: bool = True
    pad_mode: Literal["reflect", "constant", "replicate"] = "reflect"
    compress: int = 2
    num_lstm_layers: int = 2
    trim_right_ratio: float = 1.0
    codebook_size: int = 1024
    codebook_dim: int | None = None
    use_conv_shortcut: bool = True


def from_fields(fields: dict, where: str) -> CodecConfig:
    """Our config of a config.json; raises UserError for fields unknown or beyond this library."""
    f = checked(fields, Fields, where)
    if f.trim_right_ratio != 1.0:
        refuse(where, "trim_right_ratio", f.trim_right_ratio, "1.0")
    if f.codebook_dim not in (None, f.hidden_size):
        refuse(where, "codebook_dim", f.codebook_dim, f"hidden_size, {f.hidden_size}")
    seanet = seanet_config(f, where, lstm_layers=f.num_lstm_layers, norm=f.norm_type)
    bandwidths = tuple(map(float, f.target_bandwidths))
    return make(
        CodecConfig,
        where,
        rate=f.sampling_rate,
        seanet=seanet,
        levels=_levels(f.sampling_rate, seanet.hop, f.codebook_size, bandwidths),
        codebook_size=f.codebook_size,
        normalize=f.normalize,
        segment=float(f.chunk_length_s) if f.chunk_length_s else None,
        overlap=0.01 if f.overlap is None else f.overlap,
        bandwidths=bandwidths,
    )


def beyond(config: CodecConfig) -> str | None:
    """The field that transformers' EncodecConfig has no place for, in words; None if there is none.

    How it is computed (`seanet.dtype`) is no field of it, but its reader's choice.
    """
    s, whole = config.seanet, _bandwidth(config)
    fits = _levels(config.rate, s.hop, config.codebook_size, _bandwidths(config)) == config.levels
    return without_place(
        [
            ("seanet.channels", s.channels, s.channels <= 2, "1 and 2"),
            ("seanet.lstm_layers", s.lstm_layers, s.lstm_layers > 0, "1 and more"),
            ("seanet.norm", s.norm, s.norm in NORMS, " and ".join(NORMS)),
            ("codebook_size", config.codebook_size, is_power_of_two(config.codebook_size), POWERS),
            ("bandwidths", config.bandwidths, fits, f"those up to {whole:g}, of all levels"),
        ]
    )


def to_fields(config: CodecConfig) -> dict | None:
    """The config.json of a codec, or None if transformers' EncodecConfig has no words for it."""
    s, bandwidths = config.seanet, _bandwidths(config)
    if beyond(config):
        return None
    return {
        "architectures": ["EncodecModel"],
        "model_type": "encodec",
        "target_bandwidths": list(bandwidths),
        "sampling_rate": config.rate,
        "normalize": config.normalize,
        "chunk_length_s": config.segment,
        "overlap": config.overlap if config.segment else None,
        **seanet_fields(s),
        "norm_type": s.norm,
        "num_lstm_layers": s.lstm_layers,
        "codebook_size": config.codebook_size,
        "codebook_dim": s.dim,
    }


# What transformers calls the sizes of a SEANet, of EnCodec and of Mimi.
SEANET = {
    "channels": "audio_channels",
    "dim": "hidden_size",
    "filters": "num_filters",
    "ratios": "upsampling_ratios",
    "residual_layers": "num_residual_layers",
    "kernel": "kernel_size",
    "last_kernel": "last_kernel_size",
    "residual_kernel": "residual_kernel_size",
    "dilation_base": "dilation_growth_rate",
    "compress": "compress",
    "causal": "use_causal_conv",
    "pad_mode": "pad_mode",
}


def seanet_config(fields, where: str, **sizes) -> SEANetConfig:
    """SEANet's sizes in the fields of a config.json; sizes: those that not every model has."""
    sizes |= {ours: getattr(fields, theirs) for ours, theirs in SEANET.items()}
    return make(SEANetConfig, where, **sizes, true_skip=not fields.use_conv_shortcut)


def seanet_fields(config: SEANetConfig) -> dict:
    """The inverse of `seanet_config`, with the one trimming there is."""
    sizes = {theirs: getattr(config, ours) for ours, theirs in SEANET.items()}
    sizes["upsampling_ratios"] = list(config.ratios)
    return sizes | {"use_conv_shortcut": not config.true_skip, "trim_right_ratio": 1.0}


def layout(config: CodecConfig) -> Layout:
    """Our leaves' places among an EncodecModel's tensors."""
    books = {"vectors": "embed", "sums": "embed_avg", "counts": "cluster_size"}
    names = [f"quantizer.layers.{k}.codebook." for k in range(config.levels)]
    quantizer = {
        f"quantizer/{ours}": Place([name + theirs for name in names])
        for ours, theirs in books.items()
    }
    return seanet_layout(config.seanet) | quantizer


def constants(config: CodecConfig) -> list[str]:
    """Tensors of a single 1 that the reference's file must have."""
    return [f"quantizer.layers.{k}.codebook.inited" for k in range(config.levels)]


def seanet_layout(config: SEANetConfig) -> Layout:
    """SEANet's leaves; the reference numbers its layers, activations and recurrence included."""
    c = config
    found = _conv(c, "encoder/first", "encoder.layers.0")
    index = 1
    for i, _ in enumerate(c.ratios):
        for j in range(c.residual_layers):
            found |= _residual(c, f"encoder/residuals/{i}/{j}", f"encoder.layers.{index}")
            index += 1
        found |= _conv(c, f"encoder/downs/{i}", f"encoder.layers.{index + 1}")
        index += 2
    if c.lstm_layers:
        found |= _lstm(c, "encoder/middle", f"encoder.layers.{index}")
        index += 1
    found |= _conv(c, "encoder/last", f"encoder.layers.{index + 1}")

    found |= _conv(c, "decoder/first", "decoder.layers.0")
    index = 1
    if c.lstm_layers:
        found |= _lstm(c, "decoder/middle", "decoder.layers.1")
        index = 2
    for i, _ in enumerate(c.ratios):
        found |= _conv(c, f"decoder/ups/{i}", f"decoder.layers.{index + 1}", TRANSPOSED)
        index += 2
        for j in range(c.residual_layers):
            found |= _residual(c, f"decoder/residuals/{i}/{j}", f"decoder.layers.{index}")
            index += 1
    return found | _conv(c, "decoder/last", f"decoder.layers.{index + 1}")


def _residual(c: SEANetConfig, ours: str, theirs: str) -> Layout:
    found = _conv(c, f"{ours}/dilated", f"{theirs}.block.1")
    found |= _conv(c, f"{ours}/pointwise", f"{theirs}.block.3")
    return found if c.true_skip else found | _conv(c, f"{ours}/shortcut", f"{theirs}.shortcut")


def _conv(c: SEANetConfig, ours: str, theirs: str, axes: tuple[int, ...] = CONV) -> Layout:
    found = {f"{ours}/bias": Place(f"{theirs}.conv.bias")}
    if c.norm == "weight_norm":
        found[f"{ours}/kernel/v"] = Place(f"{theirs}.conv.weight_v", axes)
        found[f"{ours}/kernel/gain"] = Place(f"{theirs}.conv.weight_g", axes)
    else:
        found[f"{ours}/kernel/v"] = Place(f"{theirs}.conv.weight", axes)
    if c.norm == "time_group_norm":
        found[f"{ours}/norm/scale"] = Place(f"{theirs}.norm.weight")
        found[f"{ours}/norm/bias"] = Place(f"{theirs}.norm.bias")
    return found


def _lstm(c: SEANetConfig, ours: str, theirs: str) -> Layout:
    layers = range(c.lstm_layers)
    biases = [[f"{theirs}.lstm.bias_{x}_l{i}" for x in ("ih", "hh")] for i in layers]
    return {
        f"{ours}/input": Place([f"{theirs}.lstm.weight_ih_l{i}" for i in layers], MATRIX),
        f"{ours}/hidden": Place([f"{theirs}.lstm.weight_hh_l{i}" for i in layers], MATRIX),
        f"{ours}/bias": Place(biases),
    }


def _bandwidths(config: CodecConfig) -> tuple[float, ...]:
    return config.bandwidths or (_bandwidth(config),)


def _bandwidth(config: CodecConfig) -> float:
    """kbps of all levels, as the reference counts; upwards where rounding would lose it a level."""
    c = config
    per_level = math.ceil(c.rate / c.hop) * math.ceil(math.log2(c.codebook_size))
    found = c.levels * per_level / 1000
    lost = _levels(c.rate, c.hop, c.codebook_size, (found,)) < c.levels
    return math.nextafter(found, math.inf) if lost else found


def _levels(rate: int, hop: int, size: int, bandwidths: tuple[float, ...]) -> int:
    """How many levels the reference makes for its greatest bandwidth."""
    per_level = math.ceil(rate / hop) * math.ceil(math.log2(size))
    return int(1000 * bandwidths[-1] // per_level)
