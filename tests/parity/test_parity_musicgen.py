"""MusicGen against transformers, through folders both ways: logits, greedy codes, weights."""

import jax
import numpy as np
import pytest

from rvq_jax import patterns
from rvq_jax.lm import forms
from rvq_jax.lm.conditions import condition
from rvq_jax.lm.model import teacher_inputs
from rvq_jax.lm.sampling import Sampling
from rvq_jax.systems.decoding import programs, windows
from rvq_jax.systems.musicgen import MusicGen

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

import musicgen_peers as peers  # noqa: E402

jax.config.update("jax_default_matmul_precision", "highest")

FRAMES = 20
IDS = np.array([[4, 5, 6, 7, 1, 0, 0], [9, 8, 7, 6, 5, 4, 1]])
MASK = (IDS > 0).astype(np.int64)
KINDS = ("text", "stereo", "melody")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Of every kind: their model, ours of its folder, and the folder."""

    def make(kind):
        folder = tmp_path_factory.mktemp("peers") / kind
        peer = peers.peer_of(kind)
        peers.save(peer, folder)
        return peer, MusicGen.load(folder), folder

    return {kind: make(kind) for kind in (*KINDS, "alone")}


def melody_of(ours: MusicGen, rows: int) -> np.ndarray | None:
    """A random melody as chroma, for models that follow one."""
    c = ours.config
    bins = np.random.default_rng(1).integers(0, c.melody_bins or 1, (rows, c.melody_frames))
    return np.eye(c.melody_bins, dtype=np.float32)[bins] if c.melody_bins else None


@torch.no_grad()
def logits_of(peer, ours: MusicGen, ids: np.ndarray, mask: np.ndarray, frames: int = FRAMES):
    """Teacher-forced logits `[B, K, T, N]` of both for random codes."""
    c = ours.config
    pattern = patterns.named(ours.pattern, c.levels, frames)
    codes = np.random.default_rng(0).integers(0, c.codebook_size, (len(ids), c.levels, frames))
    tokens = np.asarray(pattern.interleave(codes, fill=c.codebook_size))
    inputs = np.asarray(teacher_inputs(tokens, c.codebook_size))
    melody = melody_of(ours, len(ids))
    conditions = ours.encode_conditions({"input_ids": ids, "attention_mask": mask})
    if melody is not None:
        conditions["melody"] = condition(melody)
    got = np.asarray(forms.model(c, ours.params)(inputs, conditions))
    theirs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    if melody is not None:
        theirs["input_features"] = torch.tensor(melody)
    found = peer(**theirs, decoder_input_ids=peers.rows(inputs)).logits
    found = found[:, -inputs.shape[2] :]
    return got, found.reshape(len(ids), c.levels, -1, c.codebook_size).numpy()


def assert_same_logits(got, want):
    assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_theirs(pairs, kind):
    """Padded prompts too where padding is masked; the prefix form of theirs attends to padding,
    so it is compared row by row."""
    peer, ours, _ = pairs[kind]
    if kind == "melody":
        for i in range(2):
            here = MASK[i : i + 1].sum()
            row = IDS[i : i + 1, :here], MASK[i : i + 1, :here]
            assert_same_logits(*logits_of(peer, ours, *row))
        return
    assert_same_logits(*logits_of(peer, ours, IDS, MASK))


@torch.no_grad()
def test_logits_of_the_token_model_alone_are_theirs(pairs):
    peer, ours, _ = pairs["alone"]
    c, rng = ours.config, np.random.default_rng(0)
    inputs = rng.integers(0, c.codebook_size + 1, (2, c.levels, FRAMES))
    states = rng.normal(size=(2, 7, c.dim)).astype(np.float32)
    got = forms.model(c, ours.params)(inputs, {"text": condition(states, MASK > 0)})
    theirs = peer(
        peers.rows(inputs),
        encoder_hidden_states=torch.tensor(states * MASK[..., None]).float(),
        encoder_attention_mask=torch.tensor(MASK),
    ).logits
    assert_same_logits(np.asarray(got), theirs.reshape(got.shape).numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_codes_are_theirs(pairs, kind):
    """100 frames with guidance 3, at batch 1: theirs pads the null condition of a batch."""
    peer, ours, _ = pairs[kind]
    c = ours.config
    for i in range(2):
        here = MASK[i : i + 1].sum()
        ids, mask = IDS[i : i + 1, :here], MASK[i : i + 1, :here]
        conditions = ours.encode_conditions({"input_ids": ids, "attention_mask": mask})
        inputs = {"input_ids": ids, "attention_mask": mask}
        if kind == "melody":
            conditions["melody"] = condition(melody_of(ours, 1))
            inputs["input_features"] = melody_of(ours, 1)
        want = peers.drawn(peer, 100, **inputs)
        got = greedy(ours, conditions, 100)
        assert want.shape == got.shape == (1, c.levels, 100)
        assert len(np.unique(want)) > c.codebook_size // 4, (
            "a model that repeats itself shows nothing"
        )
        np.testing.assert_array_equal(got, want)


def greedy(ours: MusicGen, conditions, frames: int) -> np.ndarray:
    c = ours.config
    forced = np.full((1, c.levels, frames), -1, np.int32)
    window = windows.window_of(ours.pattern, forced, np.array([frames]))
    args = window.pattern, conditions, jax.random.key(0), window.forced, window.lengths
    drawn = programs.generate_codes(c, ours.params, *args, guidance=3.0, sampling=Sampling(0.0))
    return np.asarray(drawn.codes)[:, :, :frames]


@pytest.mark.parametrize("kind", (*KINDS, "alone"))
def test_weights_come_back_to_the_bit(pairs, kind, tmp_path):
    """Ours written as a folder is read by transformers, every tensor as it was."""
    peer, ours, _ = pairs[kind]
    ours.save(tmp_path / "model")
    again, report = type(peer).from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    before, after = peer.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name], after[name]), name
    for field in ("pad_token_id", "decoder_start_token_id", "max_length"):
        assert getattr(again.generation_config, field) == getattr(peer.generation_config, field)
    reloaded = MusicGen.load(tmp_path / "model")
    assert (reloaded.config, reloaded.pattern) == (ours.config, ours.pattern)
    if ours.text is not None:
        assert reloaded.text.tokenizer.files == ours.text.tokenizer.files


def test_the_published_small_size(tmp_path):
    """MusicGen small and t5-base, one pass of a short sequence."""
    sizes = {
        "vocab_size": 2048,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "ffn_dim": 4096,
        "pad_token_id": 2048,
        "bos_token_id": 2048,
    }
    base = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
    peer = peers.peer_of("text", sizes, base)
    peers.save(peer, tmp_path / "small")
    ours = MusicGen.load(tmp_path / "small")
    assert_same_logits(*logits_of(peer, ours, IDS, MASK, frames=8))
