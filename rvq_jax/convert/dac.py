"""DAC folders of transformers: their config and the names of their tensors."""

from dataclasses import dataclass

from rvq_jax.codec.dac import DACConfig
from rvq_jax.config import make
from rvq_jax.convert.fields import checked, is_power_of_two, refuse, without_place
from rvq_jax.convert.layout import CONV, POINTWISE, SAME, TRANSPOSED, Layout, Place

CONFIG = DACConfig


@dataclass(frozen=True)
class Fields:
    """transformers' DacConfig: what says something about the model, with its defaults."""

    encoder_hidden_size: int = 64
    downsampling_ratios: tuple[int, ...] = (2, 4, 8, 8)
    decoder_hidden_size: int = 1536
    n_codebooks: int = 9
    codebook_size: int = 1024
    codebook_dim: int = 8
    sampling_rate: int = 16_000
    # Derived from the others.
    upsampling_ratios: tuple[int, ...] | None = None
    hidden_size: int | None = None
    hop_length: int | None = None


IGNORED = ("quantizer_dropout", "commitment_loss_weight", "codebook_loss_weight")


def from_fields(fields: dict, where: str) -> DACConfig:
    """Our config of a config.json; raises UserError for fields unknown or beyond this library."""
    f = checked(fields, Fields, where, IGNORED)
    ratios, filters = f.downsampling_ratios, f.encoder_hidden_size
    dim = filters * 2 ** len(ratios)
    if f.hidden_size not in (None, dim):
        refuse(where, "hidden_size", f.hidden_size, f"encoder_hidden_size · 2^strides, {dim}")
    if f.upsampling_ratios not in (None, ratios[::-1]):
        refuse(where, "upsampling_ratios", f.upsampling_ratios, "those of the encoder reversed")
    return make(
        DACConfig,
        where,
        rate=f.sampling_rate,
        ratios=ratios,
        filters=filters,
        decoder_filters=f.decoder_hidden_size,
        dim=dim,
        levels=f.n_codebooks,
        codebook_size=f.codebook_size,
        code_dim=f.codebook_dim,
    )


def beyond(config: DACConfig) -> str | None:
    """The field that transformers' DacConfig has no place for, in words; None if there is none."""
    size = config.codebook_size
    return without_place(
        [
            (
                "dim",
                config.dim,
                config.dim == config.widest,
                f"that of its filters, {config.widest}",
            ),
            ("norm", config.norm, config.norm == "none", "none: weight norm is folded in"),
            ("codebook_size", size, is_power_of_two(size), "powers of two"),
        ]
    )


def to_fields(config: DACConfig) -> dict | None:
    """The config.json of a codec, or None if transformers' DacConfig has no words for it."""
    if beyond(config):
        return None
    return {
        "architectures": ["DacModel"],
        "model_type": "dac",
        "sampling_rate": config.rate,
        "encoder_hidden_size": config.filters,
        "downsampling_ratios": list(config.ratios),
        "decoder_hidden_size": config.decoder_filters,
        "n_codebooks": config.levels,
        "codebook_size": config.codebook_size,
        "codebook_dim": config.code_dim,
        "upsampling_ratios": list(config.ratios[::-1]),
        "hidden_size": config.dim,
        "hop_length": config.hop,
    }


def layout(config: DACConfig) -> Layout:
    """Our leaves' places among a DacModel's tensors."""
    found = _conv("encoder/first", "encoder.conv1") | _conv("encoder/last", "encoder.conv2")
    found |= _conv("decoder/first", "decoder.conv1") | _conv("decoder/last", "decoder.conv2")
    found |= _snake("encoder/snake", "encoder.snake1") | _snake("decoder/snake", "decoder.snake1")
    for i, _ in enumerate(config.ratios):
        down, up = (f"{half}.block.{i}" for half in ("encoder", "decoder"))
        found |= _block(f"encoder/blocks/{i}", down, "conv1", CONV)
        found |= _block(f"decoder/blocks/{i}", up, "conv_t1", TRANSPOSED)
    levels = [f"quantizer.quantizers.{k}" for k in range(config.levels)]
    for ours, theirs in (("down", "in_proj"), ("up", "out_proj")):
        found[f"quantizer/{ours}"] = Place(
            [f"{name}.{theirs}.weight" for name in levels], *POINTWISE
        )
        found[f"quantizer/{ours}_bias"] = Place([f"{name}.{theirs}.bias" for name in levels])
    found["quantizer/inner/vectors"] = Place([f"{name}.codebook.weight" for name in levels])
    return found


def constants(config: DACConfig) -> list[str]:
    """None."""
    return []


def _block(ours: str, theirs: str, strided: str, axes: tuple[int, ...]) -> Layout:
    found = _snake(f"{ours}/snake", f"{theirs}.snake1")
    found |= _conv(f"{ours}/strided", f"{theirs}.{strided}", axes)
    for j in range(3):
        unit, their_unit = f"{ours}/units/{j}", f"{theirs}.res_unit{j + 1}"
        found |= _conv(f"{unit}/dilated", f"{their_unit}.conv1")
        found |= _conv(f"{unit}/pointwise", f"{their_unit}.conv2")
        found |= _snake(f"{unit}/snakes/0", f"{their_unit}.snake1")
        found |= _snake(f"{unit}/snakes/1", f"{their_unit}.snake2")
    return found


def _conv(ours: str, theirs: str, axes: tuple[int, ...] = CONV) -> Layout:
    return {
        f"{ours}/kernel/v": Place(f"{theirs}.weight", axes),
        f"{ours}/bias": Place(f"{theirs}.bias"),
    }


def _snake(ours: str, theirs: str) -> Layout:
    return {f"{ours}/alpha": Place(f"{theirs}.alpha", SAME, (0, 2))}
