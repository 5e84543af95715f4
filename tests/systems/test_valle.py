"""VALL-E: what is said, in whose voice, where it ends, and what cannot be said."""

import itertools

import jax
import numpy as np
import pytest
import small_parallel as small
from small_lm import KEY

from rvq_jax import patterns
from rvq_jax.errors import UserError
from rvq_jax.lm import forms
from rvq_jax.lm.conditions import text_condition
from rvq_jax.systems.decoding import programs
from rvq_jax.systems.generators import load_generator
from rvq_jax.systems.spelling import Spelling
from rvq_jax.systems.valle import VALLE, Voice

K, N, RATE, HOP = small.K, small.N, small.RATE, 10
WORDS = ["two", "one one"]


def voice(frames: int = 12, text: str = "a") -> Voice:
    time = np.arange(frames * HOP)[:, None] / RATE
    return Voice(0.3 * np.sin(2 * np.pi * 90 * time).astype(np.float32), text)


def said(model: VALLE, words=WORDS, key=KEY, seconds=0.2, **options):
    return model.speak(words, key, seconds=seconds, **options)


@pytest.mark.slow
def test_a_row_is_said_as_it_is_alone():
    """With a voice of its own, longer or shorter than the others', and texts of any length."""
    model, voices = small.valle(), [voice(12, "a"), voice(19, "so be")]
    keys = jax.random.split(KEY, 2)
    together = said(model, key=keys, voices=voices)
    for i in range(2):
        alone = said(model, [WORDS[i]], keys[i : i + 1], voices=[voices[i]])
        assert together.samples[i] == alone.samples[0] and together.ended[i] == alone.ended[0]
        count = together.samples[i]
        np.testing.assert_allclose(together.audio[i, :count], alone.audio[0, :count], atol=1e-5)
        assert not together.audio[i, count:].any()


@pytest.mark.slow
def test_a_soundstorm_speaks_too():
    """By a semantic model of words: a row as it is alone, its voice gone on with in tokens and in
    codes and left out, what ended shorter than what was cut."""
    model = small.speaking()
    voices, keys = [voice(12, "a"), voice(21, "so")], jax.random.split(KEY, 2)
    words = ["two", "on"]
    together = said(model, words, keys, voices=voices)
    for i in range(2):
        alone = said(model, [words[i]], keys[i : i + 1], voices=[voices[i]])
        count = together.samples[i]
        assert (count, together.ended[i]) == (alone.samples[0], alone.ended[0])
        np.testing.assert_allclose(together.audio[i, :count], alone.audio[0, :count], atol=1e-5)
    free = said(model, ["a"] * 12)
    assert set(free.ended) == {True, False} and (free.samples[~free.ended] == 200).all()
    with pytest.raises(ValueError, match="was not trained on words"):
        said(small.soundstorm())
    with pytest.raises(ValueError, match=r"'\?'"):
        said(model, ["two?"])


def test_a_clip_is_as_long_as_it_is_said_to_be():
    """Ended rows have whole frames, cut ones all that was asked for; the voice is not in it."""
    model = small.valle()
    found = said(model, ["a"] * 12, seconds=0.15)
    assert set(found.ended) == {True, False}
    assert (found.samples[~found.ended] == 150).all() and (found.samples[found.ended] < 150).all()
    assert not (found.samples % HOP).any()
    assert said(model, voices=[voice()], seconds=0.1).audio.shape[1] <= 100
    assert model.generate(["a", "b"], [0.1, 0.05], KEY).shape == (2, 100, 1)


def test_lengths_have_a_proper_distribution():
    """All sequences of two codes that end within three frames, and all that do not."""
    config = small.FIRST.__class__(
        levels=1, codebook_size=2, dim=16, layers=1, heads=2, mlp_dim=24, text_as="prefix",
        caption_layers=0, caption_bytes=4, end=True,
    )  # fmt: skip
    params, frames = small.params_of(config), 3
    codes, lengths = [], []
    for length in range(frames + 1):
        for some in itertools.product(range(2), repeat=length):
            codes.append([*some, *[0] * (frames - length)])
            lengths.append(length)
    codes, lengths = np.array(codes)[:, None], np.array(lengths)
    mask_BF = np.arange(frames)[None] < lengths[:, None]
    text = {"text": text_condition(np.tile([[1, 2, 0, 0]], (len(codes), 1)))}
    pattern = patterns.padded_pattern("parallel", 1, frames)
    bits = programs.score_codes(config, params, pattern, codes, text, mask_BF)
    assert np.sum(2.0 ** -np.asarray(bits).sum((1, 2))) == pytest.approx(1.0, abs=1e-5)


def test_the_cached_decode_costs_what_the_whole_does():
    model, keys = small.valle(), jax.random.split(KEY, 4)
    words = ["a", "two", "so", "b"]
    lm, text = model.first.lm, model.encode_conditions(words)
    pattern = patterns.padded_pattern("parallel", 1, 16)
    forced, lengths = np.full((4, 1, 16), -1), np.full(4, 12)
    found = programs.generate_codes(lm.config, lm.params, pattern, text, keys, forced, lengths)
    mask_BF = np.arange(16)[None] < np.asarray(found.lengths)[:, None]
    whole = programs.score_codes(lm.config, lm.params, pattern, found.codes, text, mask_BF)
    ended = np.asarray(found.lengths) < 12
    assert ended.any()
    np.testing.assert_allclose(np.asarray(found.bits)[ended], whole[ended], atol=1e-4)


def test_the_other_levels_are_the_likeliest_given_those_below():
    """As a pass over all of them has it, level by level; a voice's stay as they are."""
    model, words = small.valle(), ["two", "so be"]
    rng = np.random.default_rng(0)
    forced = np.full((2, K, 9), -1, np.int32)
    forced[:, 0], forced[:, :, :3] = rng.integers(0, N, (2, 9)), rng.integers(0, N, (2, K, 3))
    lengths = np.array([9, 6])
    forced[1, :, 6:] = -1
    codes = model.refine(words, forced, lengths, KEY)
    inside = np.arange(9)[None] < lengths[:, None]
    given = (forced >= 0) & inside[:, None]
    np.testing.assert_array_equal(codes[given], forced[given])
    network = forms.model(model.config, model.params)
    features = network.read(model.encode_conditions(words))
    for level in range(1, K):
        shown = codes.copy()
        shown[:, level:, 3:] = N
        logits = np.asarray(network.logits(shown, level, features, lengths))
        new = inside & (np.arange(9)[None] >= 3)
        np.testing.assert_array_equal(logits.argmax(-1)[new], codes[:, level][new])


def test_a_folder_holds_all_of_it(tmp_path):
    model = small.valle()
    model.save(tmp_path / "valle")
    again = load_generator(tmp_path / "valle")
    assert isinstance(again, VALLE) and again.spelling == model.spelling
    np.testing.assert_array_equal(said(again).audio, said(model).audio)


def test_a_code_that_was_said_too_often_is_said_less():
    """With the likeliest code alone to choose from, rows that repeat it are sampled from all: not
    before it is more than three of the last ten."""
    first, words = small.valle().first, ["so", "a", "two", "bad", "one", "no", "tone", "west"]
    greedy, same, aware = (
        first.sample(words, 0.3, KEY, top_k=1, repetition=share) for share in (None, 1.0, 0.3)
    )
    np.testing.assert_array_equal(greedy.tokens, same.tokens)
    np.testing.assert_array_equal(greedy.tokens[:, :3], aware.tokens[:, :3])
    assert not np.array_equal(greedy.tokens, aware.tokens)


SILENCE = Voice(np.zeros((200, 1), np.float32), "a")
BROKEN = Voice(np.full((200, 1), np.nan, np.float32), "a")


@pytest.mark.parametrize(
    ("words", "options", "say"),
    [
        ([" "], {}, "a text is empty"),
        (["two?"], {}, r"'two\?' has '\?', which the model was not trained on"),
        (["one two one two one two one"], {}, "longer than the 24 bytes"),
        (["two"], {"voices": [voice(5)]}, "a voice must be 0.1 s or longer"),
        (["two"], {"voices": [SILENCE]}, "the voice is silent"),
        (["two"], {"voices": [BROKEN]}, "not finite"),
        (["two"], {"voices": [Voice(np.ones((200, 2)), "a")]}, r"must be audio \[S, 1\]"),
        (["two"], {"voices": [voice(50)]}, "was trained on 0.4 in all"),
        (["two"], {"voices": [voice(30)]}, "ask for at most 0.1"),
        (["two"], {"voices": [voice()] * 2}, "voices must be one, or 1"),
        (["two"], {"seconds": 0.5}, "more than the 0.4 s"),
        (["two"], {"seconds": 0}, "seconds must be seconds above 0"),
        (["two"], {"repetition": -1}, "repetition must not be negative"),
        ([], {}, "captions must be a list"),
    ],
)
def test_what_cannot_be_said(words, options, say):
    with pytest.raises(ValueError, match=say):
        said(small.valle(), words, **options)


def test_phonemes_need_a_program(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="phonemes need espeak-ng"):
        Spelling("en-us").written(["two"], 24)
