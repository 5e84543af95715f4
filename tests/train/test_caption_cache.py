"""The caption cache: every caption is read once, by one encoder, and comes back as it was."""

import dataclasses

import numpy as np
import pytest
from small_t5 import TINY, encoder

from rvq_jax.data import loader
from rvq_jax.data.captions import CaptionStates
from rvq_jax.errors import UserError
from rvq_jax.systems.text_encoder import Tokenizer
from rvq_jax.train import captions
from rvq_jax.train.captions import caption_states

CAPTIONS = ["slow piano", "", "a very loud drum", "slow piano", "né", "a " * 20]


def tokenizer(data: bytes = b"one") -> Tokenizer:
    """A token for each character, and the closing one."""
    return Tokenizer(lambda text: [2 + ord(c) % 30 for c in text] + [1], {"tokenizer.json": data})


TEXT = encoder(TINY, tokenizer())


def test_states_are_those_of_the_encoder_whatever_their_batch(tmp_path, monkeypatch):
    """Padded to one length of all; an empty caption has nothing to attend to."""
    monkeypatch.setattr(captions, "ROWS", 2)
    found = caption_states(tmp_path / "captions.npz", TEXT, CAPTIONS)
    assert sorted(found.captions) == sorted(set(CAPTIONS)) and found.length == 48
    for caption in CAPTIONS:
        conditions = found.conditions(caption)
        states, mask = TEXT.encode([caption])
        length = mask.sum()
        assert (
            conditions["states"].shape == (48, TINY.dim)
            and conditions["states"].dtype == np.float32
        )
        assert conditions["text_mask"].sum() == length == (len(caption) + 1 if caption else 0)
        assert not conditions["states"][length:].any()
        np.testing.assert_allclose(conditions["states"][:length], states[0, :length], atol=1e-5)


def test_a_cache_is_read_until_what_made_it_changes(tmp_path, monkeypatch):
    """Other weights, another tokenizer, another limit, other captions: each is encoded anew."""
    path, made = tmp_path / "captions.npz", []
    encode = captions._encode
    monkeypatch.setattr(captions, "_encode", lambda *x: made.append(x) or encode(*x))
    first = caption_states(path, TEXT, CAPTIONS)
    again = caption_states(path, encoder(TINY, tokenizer()), CAPTIONS[::-1])
    assert len(made) == 1 and again.captions == first.captions and again.key == first.key
    for mine, theirs in zip(again.states, first.states, strict=True):
        assert mine.tobytes() == theirs.tobytes()
    other = encoder(dataclasses.replace(TINY, eps=1e-6), tokenizer(b"two"))
    weights = encoder(dataclasses.replace(TINY, mlp_dim=24), tokenizer())
    for text, words in (
        (other, CAPTIONS),
        (weights, CAPTIONS),
        (dataclasses.replace(TEXT, limit=99), CAPTIONS),
        (TEXT, CAPTIONS[:2]),
    ):
        count = len(made)
        keys = {caption_states(path, text, words).key for _ in range(2)}
        assert len(made) == count + 1 and first.key not in keys and len(keys) == 1


def test_a_damaged_cache_is_told(tmp_path):
    path = tmp_path / "captions.npz"
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UserError, match="cannot be read as a caption cache") as caught:
        caption_states(path, TEXT, CAPTIONS)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_crops_carry_the_states_of_their_caption():
    states = CaptionStates(["a", "b"], [np.ones((3, 2), np.float32), np.zeros((0, 2))], "")
    record = {"codes": np.zeros((2, 9), np.int32)}
    cut = loader.cut_codes(4, 8, states)
    for caption, length in (("a", 3), ("b", 0)):
        batch = cut({**record, "caption": caption}, np.random.default_rng(0))
        assert sorted(batch) == ["codes", "mask", "states", "text_mask"]
        assert batch["states"].shape == (16, 2) and batch["text_mask"].sum() == length
        assert batch["states"].sum() == 2 * length
