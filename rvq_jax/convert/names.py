"""How three codecs' original weights are called, and what transformers calls the same weights.

Names and layouts as in facebookresearch/encodec and audiocraft, descriptinc/descript-audio-codec,
kyutai-labs/moshi, and in the files that transformers' save_pretrained writes. A tensor whose name
follows none of the rules keeps it, for `tensors.take` to report.
"""

import re
from collections.abc import Callable

import numpy as np

Tensors = dict[str, np.ndarray]
Rules = list[tuple[str, str | Callable]]

# What newer versions call weight norm, and Mimi's halves in a state dict of transformers 5.
SPELLINGS = [
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
    (r"^(encoder|decoder)\.\1_seanet\.", r"\1."),
    (r"^(encoder|decoder)\.(\1_transformer)\.", r"\2."),
    (r"^encoder\.(downsample)\.|^decoder\.(upsample)\.", r"\1\2."),
]
# What the SEANet codecs wrap around a convolution, as often as it is wrapped.
WRAPPED = (r"\.(conv|convtr)(\.\1)+\.", ".conv.")
MODEL = (r"^(encoder|decoder)\.model\.", r"\1.layers.")
ENCODEC = [
    MODEL,
    WRAPPED,
    (r"\.(conv|convtr)\.norm\.", ".norm."),
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
]
MIMI = [
    MODEL,
    WRAPPED,
    (r"^quantizer\.rvq_first\.(vq\.)?", "quantizer.semantic_residual_vector_quantizer."),
    (r"^quantizer\.rvq_rest\.(vq\.)?", "quantizer.acoustic_residual_vector_quantizer."),
    (r"\._codebook\._initialized$", ".codebook.initialized"),
    (r"\._codebook\.cluster_usage$", ".codebook.cluster_usage"),
    (r"\._codebook\.embedding_sum$", ".codebook.embed_sum"),
    (r"^(encoder|decoder)_transformer\.transformer\.", r"\1_transformer."),
    (r"\.self_attn\.in_projs?(_|\.0\.|\.)weight$", ".self_attn.in_proj.weight"),
    (r"\.self_attn\.out_projs?(\.0)?\.weight$", ".self_attn.o_proj.weight"),
    (r"\.linear([12])\.weight$", r".mlp.fc\1.weight"),
    (r"\.norm1\.", ".input_layernorm."),
    (r"\.norm2\.", ".post_attention_layernorm."),
    (r"\.layer_scale_1\.", ".self_attn_layer_scale."),
    (r"\.layer_scale_2\.", ".mlp_layer_scale."),
]
# Inside a residual unit of DAC, and inside a block of its encoder and of its decoder.
UNIT = ("snake1", "conv1", "snake2", "conv2")
ENCODER_BLOCK = ("res_unit1", "res_unit2", "res_unit3", "snake1", "conv1")
DECODER_BLOCK = ("snake1", "conv_t1", "res_unit1", "res_unit2", "res_unit3")


def canonical(tensors: Tensors) -> Tensors:
    """The same tensors as files on the Hub call them, weight norm `weight_g` and `weight_v`."""
    return _renamed(tensors, SPELLINGS)


def folded(tensors: Tensors) -> Tensors:
    """Weight norm computed away: `weight` = g v / |v|, the norm over all dimensions but the first.

    In float32, as torch.nn.utils.weight_norm with dim=0; for transposed convolutions the first
    dimension is the one of the inputs.
    """
    tensors = canonical(tensors)
    found = dict(tensors)
    for name, value in tensors.items():
        stem, _, kind = name.rpartition(".")
        lengths = tensors.get(f"{stem}.weight_g")
        if kind != "weight_v" or lengths is None or value.ndim < 2:
            continue
        if lengths.shape != (len(value), *[1] * (value.ndim - 1)):
            continue
        inner = tuple(range(1, value.ndim))
        # As in torch, weights of length 0 become NaN.
        with np.errstate(all="ignore"):
            norm = np.sqrt(np.square(value, dtype=np.float64).sum(inner, keepdims=True))
            scale = lengths / norm.astype(np.float32)
            found[f"{stem}.weight"] = (value * scale).astype(np.float32)
        del found[f"{stem}.weight_g"], found[f"{stem}.weight_v"]
    return found


def encodec(tensors: Tensors) -> Tensors:
    """EncodecModel's names for the weights of encodec or of an audiocraft compression model."""
    return _renamed(canonical(tensors), ENCODEC)


def dac(tensors: Tensors) -> Tensors:
    """DacModel's names and folded weights for those of a descript DAC of any number of blocks."""
    tensors, rules = folded(tensors), []
    for half, old, block in (
        ("encoder", r"encoder\.block", ENCODER_BLOCK),
        ("decoder", r"decoder\.model", DECODER_BLOCK),
    ):
        places = [re.match(rf"{old}\.(\d+)\.", name) for name in tensors]
        last = max((int(place[1]) for place in places if place), default=0)

        def inside(match, half=half, block=block) -> str:
            outer, inner, _, unit = match.groups()
            names = ["block", str(int(outer) - 1), block[int(inner)]]
            return ".".join([half, *names, *([UNIT[int(unit)]] if unit else [])]) + "."

        rules += [
            (rf"^{old}\.0\.", f"{half}.conv1."),
            (rf"^{old}\.{last - 1}\.(?=alpha$)", f"{half}.snake1."),
            (rf"^{old}\.{last}\.(?=weight$|bias$)", f"{half}.conv2."),
            (rf"^{old}\.(\d+)\.block\.([0-4])\.(block\.([0-3])\.)?", inside),
        ]
    return _renamed(tensors, rules)


def mimi(tensors: Tensors, head: int = 64) -> Tensors:
    """MimiModel's names, queries, keys and values for the weights of a Mimi of moshi.

    Its one projection of all three is split. Its rotary embedding turns neighbours `(2i, 2i + 1)`
    of the `head` dimensions of a head, transformers' turns `(i, head/2 + i)`: the rows of queries
    and keys are put in that order.
    """
    found = {}
    for name, value in _renamed(canonical(tensors), MIMI).items():
        # Queries are as many as inputs; keys and values share what is left.
        inputs = value.shape[-1] if value.ndim == 2 else 0
        others = (len(value) - inputs) // 2 if inputs else 0
        fits = others and inputs % head == others % head == 0 and inputs + 2 * others == len(value)
        if not (name.endswith(".in_proj.weight") and fits):
            found[name] = value
            continue
        query, key, value = np.split(value, [inputs, inputs + others])
        stem = name.removesuffix("in_proj.weight")
        found[f"{stem}q_proj.weight"] = _halves(query, head)
        found[f"{stem}k_proj.weight"] = _halves(key, head)
        found[f"{stem}v_proj.weight"] = value
    return found


def _halves(rows: np.ndarray, head: int) -> np.ndarray:
    """Rows `[heads * head, D]`: within each head, the even ones and then the odd ones."""
    return rows.reshape(-1, head // 2, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _renamed(tensors: Tensors, rules: Rules) -> Tensors:
    """Every rule applied to every name, in order."""
    found = {}
    for name, value in tensors.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        found[name] = value
    return found
