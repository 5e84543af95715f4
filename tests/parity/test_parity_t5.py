"""The text encoder against transformers' T5EncoderModel, through folders both ways."""

import jax
import numpy as np
import pytest
from small_pieces import write_pieces

from rvq_jax.convert import layout, t5
from rvq_jax.lm.t5 import T5Config, relative_buckets
from rvq_jax.systems.text_encoder import TextEncoder, Tokenizer, load_tokenizer

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

jax.config.update("jax_default_matmul_precision", "highest")

TINY = {
    "vocab_size": 99,
    "d_model": 24,
    "d_kv": 10,
    "d_ff": 40,
    "num_layers": 3,
    "num_heads": 3,
    "relative_attention_num_buckets": 12,
    "relative_attention_max_distance": 20,
}
BASE = {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
PIECES = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁slow", -3.0)]
PIECES += [("▁pia", -4.0), ("no", -4.0)] + [(letter, -6.0) for letter in "adeilmnopstw,"]
PROMPTS = ["a slow piano", "", "slow  slow,\tpianissimo  ", "zither", "lo-fi \u00e9tude \u266b"]


@torch.no_grad()
def peer_of(**fields):
    """A T5EncoderModel with random weights, every scale and bias away from where it starts."""
    torch.manual_seed(0)
    peer = transformers.T5EncoderModel(transformers.T5Config(**fields)).eval()
    for name, tensor in peer.named_parameters():
        if name.endswith("layer_norm.weight"):
            tensor.uniform_(0.5, 1.5)
        elif "relative_attention_bias" in name:
            tensor.normal_()
    return peer


def save(peer, folder):
    """Their folder, with a tokenizer of theirs."""
    peer.save_pretrained(folder)
    tokenizer = transformers.T5Tokenizer(vocab=PIECES, extra_ids=2)
    tokenizer.save_pretrained(folder)
    return tokenizer


@torch.no_grad()
def assert_same_states(ours: TextEncoder, peer, length: int) -> None:
    """Within 1e-5 of the peak wherever there is a token."""
    lengths = np.array([length, 1, length // 2])
    ids = np.random.default_rng(0).integers(0, ours.config.vocab, (3, length), np.int32)
    mask = np.arange(length)[None] < lengths[:, None]
    theirs = peer(input_ids=torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask))
    expected = theirs.last_hidden_state.numpy()[mask]
    found = np.asarray(ours.encode_tokens(ids, mask))[mask]
    error = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"largest difference {error:.1e} of the peak")
    assert error < 1e-5


@pytest.mark.parametrize("projection", ["relu", "gated-gelu", "gated-relu", "gelu_new"])
def test_states_equal_and_weights_come_back(tmp_path, projection):
    peer = peer_of(**TINY, feed_forward_proj=projection)
    save(peer, tmp_path)
    ours = TextEncoder.load(tmp_path)
    assert_same_states(ours, peer, 48)
    theirs = {name: tensor.numpy() for name, tensor in peer.state_dict().items()}
    places = t5.layout(ours.config)
    leaves = layout.read(places, t5.canonical(theirs))
    back = layout.write(places, leaves)
    assert back.keys() | {t5.TIED} == theirs.keys()
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, theirs[name], strict=True)


def test_states_equal_at_the_published_size(tmp_path):
    peer = peer_of(**BASE)
    save(peer, tmp_path)
    ours = TextEncoder.load(tmp_path)
    assert ours.config == T5Config()
    assert_same_states(ours, peer, 32)


def test_a_whole_t5_is_read_for_its_encoder(tmp_path):
    """As the published folders are."""
    torch.manual_seed(0)
    peer = transformers.T5ForConditionalGeneration(transformers.T5Config(**TINY)).eval()
    save(peer, tmp_path)
    assert_same_states(TextEncoder.load(tmp_path), peer.encoder, 32)


@pytest.mark.parametrize("projection", ["relu", "gated-gelu"])
def test_fields_are_read_and_written_as_theirs(projection):
    """What to_dict holds is known, and what we write means the same model to them."""
    theirs = transformers.T5Config(**BASE, feed_forward_proj=projection, tie_word_embeddings=False)
    ours = t5.from_fields(theirs.to_dict(), "config.json")
    gated = projection != "relu"
    assert ours == T5Config(gated=gated, activation="gelu_new" if gated else "relu")
    written = transformers.T5Config(**t5.to_fields(ours)).to_dict()
    apart = {"architectures", "scale_decoder_outputs"}
    assert {name for name in written if written[name] != theirs.to_dict()[name]} <= apart
    assert written["dense_act_fn"] == ours.activation and written["is_gated_act"] == ours.gated


@pytest.mark.parametrize("buckets, distance", [(32, 128), (12, 20), (64, 300), (8, 10)])
def test_ranges_of_distances_equal(buckets, distance):
    """Every one up to 512 tokens, also where a range begins."""
    module = transformers.models.t5.modeling_t5.T5Attention
    positions = torch.arange(512)
    ahead = positions[None] - positions[:, None]
    theirs = module._relative_position_bucket(ahead, True, buckets, distance)
    np.testing.assert_array_equal(relative_buckets(512, buckets, distance), theirs.numpy())


def test_tokens_equal(tmp_path):
    """The same ids with the same padding; their empty prompt is a closing token, ours masked."""
    theirs = save(peer_of(**TINY), tmp_path)
    expected = theirs(PROMPTS, padding="max_length", max_length=32, return_tensors="np")
    ids, mask = TextEncoder.load(tmp_path).tokens(PROMPTS)
    assert ids.shape[1] in (16, 32) and not mask[1].any()
    full = [i for i, prompt in enumerate(PROMPTS) if prompt]
    width = ids.shape[1]
    np.testing.assert_array_equal(ids[full], expected["input_ids"][full, :width])
    np.testing.assert_array_equal(mask[full], expected["attention_mask"][full, :width] == 1)


def test_tokens_of_sentencepiece_equal(tmp_path):
    """From spiece.model alone, with its normalization of characters."""
    lines = [f"a {x} in the night, lo-fi" for x in ("piano", "drum", "rain")]
    write_pieces(tmp_path, lines, 60)
    ours, theirs = load_tokenizer(tmp_path), transformers.T5Tokenizer.from_pretrained(tmp_path)
    for prompt in [*PROMPTS, "\ufb01 \uff21 \u00bd", "a\nrain", "\u3000in\u200bthe"]:
        assert ours.encode(prompt) == theirs(prompt)["input_ids"]


def test_their_tokenizer_survives_our_folder(tmp_path):
    theirs = save(peer_of(**TINY), tmp_path / "theirs")
    tokenizer = load_tokenizer(tmp_path / "theirs")
    assert isinstance(tokenizer, Tokenizer)
    TextEncoder.load(tmp_path / "theirs").save_tokenizer(tmp_path / "ours")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours", model_type="t5")
    assert again(PROMPTS)["input_ids"] == theirs(PROMPTS)["input_ids"]
    assert [tokenizer.encode(prompt) for prompt in PROMPTS] == theirs(PROMPTS)["input_ids"]
