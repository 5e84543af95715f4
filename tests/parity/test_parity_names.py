"""Original names, spelled here from the architectures, become exactly those transformers saves."""

import numpy as np
import pytest

from rvq_jax.convert import names, tensors

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

FILTERS, RATIOS, BOOK = 4, (3, 2), 8
BOTH = ("weight", "bias")
LSTM = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def filled(shapes: dict[str, tuple]) -> dict[str, np.ndarray]:
    """Tensors of these shapes, all different."""
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape, "f4") for name, shape in shapes.items()}


def saved(model, folder) -> dict[str, np.ndarray]:
    """What a model of transformers writes."""
    model.save_pretrained(folder)
    return names.canonical(tensors.load_folder(folder))


def assert_same_shapes(found: dict, expected: dict) -> None:
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in expected.items()}


def conv(name, out, into, kernel, norm, of="conv") -> dict[str, tuple]:
    """A convolution as encodec and moshi wrap it, transposed if it is of "convtr"."""
    first, second = (out, into) if of == "conv" else (into, out)
    inner = f"{name}.{of}.{of}"
    shapes = {f"{inner}.bias": (out,)}
    if norm == "weight_norm":
        shapes |= {f"{inner}.weight_g": (first, 1, 1)}
        return shapes | {f"{inner}.weight_v": (first, second, kernel)}
    if norm == "time_group_norm":
        shapes |= {f"{name}.{of}.norm.{part}": (out,) for part in BOTH}
    return shapes | {f"{inner}.weight": (first, second, kernel)}


def unit(name, dim, norm, shortcut) -> dict[str, tuple]:
    """A residual unit: ELU 0, convolution 1, ELU 2, convolution 3."""
    shapes = conv(f"{name}.block.1", dim // 2, dim, 3, norm)
    shapes |= conv(f"{name}.block.3", dim, dim // 2, 1, norm)
    return shapes | (conv(f"{name}.shortcut", dim, dim, 1, norm) if shortcut else {})


def lstm(name, dim) -> dict[str, tuple]:
    shapes = {}
    for layer in (0, 1):
        shapes |= {f"{name}.lstm.{part}_l{layer}": (4 * dim, dim) for part in LSTM[:2]}
        shapes |= {f"{name}.lstm.{part}_l{layer}": (4 * dim,) for part in LSTM[2:]}
    return shapes


def seanet(dim, channels=1, norm="weight_norm", shortcut=True, with_lstm=True, last=7):
    """Encoder and decoder; modules count on through activations, which have no weights."""
    wide, at = FILTERS, 1
    shapes = conv("encoder.model.0", wide, channels, 7, norm)
    for ratio in reversed(RATIOS):
        shapes |= unit(f"encoder.model.{at}", wide, norm, shortcut)
        shapes |= conv(f"encoder.model.{at + 2}", 2 * wide, wide, 2 * ratio, norm)
        wide, at = 2 * wide, at + 3
    if with_lstm:
        shapes |= lstm(f"encoder.model.{at}", wide)
    shapes |= conv(f"encoder.model.{at + 1 + with_lstm}", dim, wide, last, norm)
    shapes |= conv("decoder.model.0", wide, dim, 7, norm)
    if with_lstm:
        shapes |= lstm("decoder.model.1", wide)
    at = 1 + with_lstm
    for ratio in RATIOS:
        half = wide // 2
        shapes |= conv(f"decoder.model.{at + 1}", half, wide, 2 * ratio, norm, of="convtr")
        shapes |= unit(f"decoder.model.{at + 2}", half, norm, shortcut)
        wide, at = half, at + 3
    return shapes | conv(f"decoder.model.{at + 1}", channels, wide, last, norm)


@pytest.mark.parametrize(
    ("original", "options"),
    [
        ({}, {}),
        (
            {"channels": 2, "norm": "time_group_norm"},
            {"audio_channels": 2, "norm_type": "time_group_norm", "use_causal_conv": False},
        ),
        ({"shortcut": False}, {"use_conv_shortcut": False, "use_causal_conv": False}),
    ],
    ids=["24 kHz", "48 kHz", "audiocraft"],
)
def test_encodec(tmp_path, original, options):
    shapes = seanet(16, **original)
    for k in range(2):
        book = f"quantizer.vq.layers.{k}._codebook"
        shapes |= {f"{book}.inited": (1,), f"{book}.cluster_size": (BOOK,)}
        shapes |= {f"{book}.{part}": (BOOK, 16) for part in ("embed", "embed_avg")}
    config = transformers.EncodecConfig(
        hidden_size=16,
        num_filters=FILTERS,
        codebook_size=BOOK,
        upsampling_ratios=list(RATIOS),
        sampling_rate=600,
        target_bandwidths=[0.6],
        **options,
    )
    model = transformers.EncodecModel(config)
    assert_same_shapes(names.encodec(filled(shapes)), saved(model, tmp_path))


def snake(name, dim) -> dict[str, tuple]:
    return {f"{name}.alpha": (1, dim, 1)}


def dac_conv(name, out, into, kernel, of="conv") -> dict[str, tuple]:
    first, second = (out, into) if of == "conv" else (into, out)
    shapes = {f"{name}.weight_g": (first, 1, 1), f"{name}.weight_v": (first, second, kernel)}
    return shapes | {f"{name}.bias": (out,)}


def dac_unit(name, dim) -> dict[str, tuple]:
    shapes = snake(f"{name}.block.0", dim) | dac_conv(f"{name}.block.1", dim, dim, 7)
    return shapes | snake(f"{name}.block.2", dim) | dac_conv(f"{name}.block.3", dim, dim, 1)


def dac(wide=8, ratios=(2, 4), top=32, inner=4) -> dict[str, tuple]:
    dim = wide * 2 ** len(ratios)
    shapes = dac_conv("encoder.block.0", wide, 1, 7)
    for i, ratio in enumerate(ratios, 1):
        block = f"encoder.block.{i}.block"
        for j in range(3):
            shapes |= dac_unit(f"{block}.{j}", wide)
        shapes |= snake(f"{block}.3", wide) | dac_conv(f"{block}.4", 2 * wide, wide, 2 * ratio)
        wide *= 2
    shapes |= snake(f"encoder.block.{len(ratios) + 1}", wide)
    shapes |= dac_conv(f"encoder.block.{len(ratios) + 2}", dim, wide, 3)
    shapes |= dac_conv("decoder.model.0", top, dim, 7)
    for i, ratio in enumerate(reversed(ratios), 1):
        block = f"decoder.model.{i}.block"
        shapes |= snake(f"{block}.0", top)
        shapes |= dac_conv(f"{block}.1", top // 2, top, 2 * ratio, of="convtr")
        top //= 2
        for j in range(2, 5):
            shapes |= dac_unit(f"{block}.{j}", top)
    shapes |= snake(f"decoder.model.{len(ratios) + 1}", top)
    shapes |= dac_conv(f"decoder.model.{len(ratios) + 2}", 1, top, 7)
    for k in range(2):
        level = f"quantizer.quantizers.{k}"
        shapes |= dac_conv(f"{level}.in_proj", inner, dim, 1)
        shapes |= dac_conv(f"{level}.out_proj", dim, inner, 1)
        shapes |= {f"{level}.codebook.weight": (BOOK, inner)}
    return shapes


@pytest.mark.parametrize("ratios", [(2, 4), (2, 4, 5)])
def test_dac(tmp_path, ratios):
    config = transformers.DacConfig(
        encoder_hidden_size=8,
        downsampling_ratios=list(ratios),
        decoder_hidden_size=32,
        upsampling_ratios=list(reversed(ratios)),
        n_codebooks=2,
        codebook_size=BOOK,
        codebook_dim=4,
    )
    found = names.dac(filled(dac(ratios=ratios)))
    assert_same_shapes(found, saved(transformers.DacModel(config), tmp_path))


@pytest.mark.parametrize("layer", [torch.nn.Conv1d(6, 4, 7), torch.nn.ConvTranspose1d(6, 4, 7)])
def test_weight_norm_is_folded_as_torch_computes_it(layer):
    """To the rounding of float32; for a transposed convolution over the inputs."""
    torch.manual_seed(0)
    normed = torch.nn.utils.parametrizations.weight_norm(layer)
    with torch.no_grad():
        normed.parametrizations.weight.original0.mul_(torch.randn(len(layer.weight), 1, 1))
    state = {f"a.{name}": value.detach().numpy() for name, value in normed.state_dict().items()}
    found = names.folded(state)
    assert set(found) == {"a.weight", "a.bias"}
    np.testing.assert_allclose(found["a.weight"], normed.weight.detach().numpy(), rtol=5e-7)


def mimi(dim=16, inner=8, layers=2, hidden=32) -> dict[str, tuple]:
    shapes = seanet(dim, norm="none", shortcut=False, with_lstm=False, last=3)
    for half in ("encoder", "decoder"):
        for i in range(layers):
            layer = f"{half}_transformer.transformer.layers.{i}"
            shapes |= {f"{layer}.self_attn.in_proj_weight": (3 * dim, dim)}
            shapes |= {f"{layer}.self_attn.out_proj.weight": (dim, dim)}
            shapes |= {f"{layer}.norm{n}.{part}": (dim,) for n in "12" for part in BOTH}
            shapes |= {f"{layer}.linear1.weight": (hidden, dim)}
            shapes |= {f"{layer}.linear2.weight": (dim, hidden)}
            shapes |= {f"{layer}.layer_scale_{n}.scale": (dim,) for n in "12"}
    shapes |= {"downsample.conv.conv.conv.weight": (dim, dim, 4)}
    shapes |= {"upsample.convtr.convtr.convtr.weight": (dim, 1, 4)}
    for part, levels in (("rvq_first", 1), ("rvq_rest", 2)):
        shapes |= {f"quantizer.{part}.input_proj.weight": (inner, dim, 1)}
        shapes |= {f"quantizer.{part}.output_proj.weight": (dim, inner, 1)}
        for k in range(levels):
            book = f"quantizer.{part}.vq.layers.{k}._codebook"
            shapes |= {f"{book}._initialized": (1,), f"{book}.cluster_usage": (BOOK,)}
            shapes |= {f"{book}.embedding_sum": (BOOK, inner)}
    return shapes


def test_mimi(tmp_path):
    config = transformers.MimiConfig(
        hidden_size=16,
        num_filters=FILTERS,
        upsampling_ratios=list(RATIOS),
        codebook_size=BOOK,
        codebook_dim=8,
        vector_quantization_hidden_dimension=8,
        num_quantizers=3,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=32,
        upsample_groups=16,
        sampling_rate=600,
        frame_rate=50,
    )
    found = names.mimi(filled(mimi()), head=8)
    assert_same_shapes(found, saved(transformers.MimiModel(config), tmp_path))


def test_turned_queries_meet_turned_keys_as_in_moshi():
    """Scores of neighbours turned together are those of transformers' halves after the reorder."""
    from transformers.models.mimi import modeling_mimi

    heads, head, frames = 2, 8, 5
    dim = heads * head
    fused = {"a.self_attn.in_proj_weight": filled({"w": (3 * dim, dim)})["w"]}
    inputs_TD = filled({"x": (frames, dim)})["x"]
    angles_TI = np.arange(frames)[:, None] / 10_000 ** (np.arange(0, head, 2) / head)

    def turned(rows: np.ndarray) -> np.ndarray:
        pairs_THI = (inputs_TD @ rows.T).reshape(frames, heads, head // 2, 2) @ [1, 1j]
        return pairs_THI * np.exp(1j * angles_TI)[:, None]

    query, key, _ = np.split(fused["a.self_attn.in_proj_weight"], 3)
    expected = np.einsum("thi,shi->hts", turned(query), turned(key).conj()).real

    split = names.mimi(fused, head=head)
    query, key = (
        torch.tensor(inputs_TD @ split[f"a.self_attn.{part}_proj.weight"].T)
        .reshape(1, frames, heads, head)
        .transpose(1, 2)
        for part in "qk"
    )
    both = torch.tensor(np.concatenate([angles_TI, angles_TI], 1))[None].float()
    query, key = modeling_mimi.apply_rotary_pos_emb(query, key, both.cos(), both.sin())
    np.testing.assert_allclose((query @ key.mT)[0], expected, rtol=1e-4, atol=1e-4)
