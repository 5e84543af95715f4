"""MusicGen with a frozen text encoder: one result, however it is drawn."""

import dataclasses
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_lm import SIX
from small_musicgen import CONFIGS, HOP, LM, PROMPTS, K, codes_of, melody_of, small
from tiers import slow, tried

from rvq_jax import patterns
from rvq_jax.lm import forms
from rvq_jax.lm.conditions import branches, condition, drop, guide
from rvq_jax.lm.decode import row_keys
from rvq_jax.lm.sampling import Sampling
from rvq_jax.systems.decoding import audio as sound
from rvq_jax.systems.decoding import programs, windows
from rvq_jax.train.tasks.lm import ConditionDropout, apply_dropout

KEY = jax.random.key(5)
HOW = Sampling(top_k=5)


def conditions_of(model, rows: int = 3):
    """Prompts of different lengths, one of them empty, and a melody for who follows one."""
    melody = melody_of(rows) if model.config.melody_bins else None
    return model.encode_conditions([PROMPTS[i] for i in (1, 6, 3)][:rows], melody)


def draw(model, conditions, keys, forced, lengths, **options):
    window = windows.window_of(model.pattern, forced, np.asarray(lengths))
    args = window.pattern, conditions, keys, window.forced, window.lengths
    options = {"guidance": 3.0, "sampling": HOW, "prefill_steps": window.prefill_steps} | options
    drawn = programs.generate_codes(model.config, model.params, *args, **options)
    codes, bits = (np.asarray(x)[:, :, : forced.shape[2]] for x in (drawn.codes, drawn.bits))
    return drawn._replace(codes=codes, bits=bits)


def free(model, rows: int, frames: int) -> np.ndarray:
    return np.full((rows, model.config.levels, frames), -1, np.int32)


# Scores are the bits of stepwise decoding.


GUIDANCE = {"none": None, "plain": 2.5, "double": (2.0, 3.0)}
EACH_ONCE = list(zip(CONFIGS, GUIDANCE, strict=True))


@pytest.mark.parametrize(
    ("kind", "guidance"), tried(EACH_ONCE, product(CONFIGS, GUIDANCE), share=2)
)
def test_scores_are_those_of_decoding_step_by_step(kind, guidance):
    """With all forms of conditions, guidance and padding: rows that end before others feed
    nothing after their end, whichever way they are computed."""
    model, lengths, guidance = small(kind), np.array([9, 4, 7]), GUIDANCE[guidance]
    conditions, codes = conditions_of(model), codes_of(model, 3, 9)
    mask = np.arange(9)[None] < lengths[:, None]
    pattern = patterns.named(model.pattern, model.config.levels, 9)
    args = model.config, model.params, pattern
    scored = programs.score_codes(*args, codes, conditions, mask, guidance)
    stepped = programs.generate_codes(*args, conditions, KEY, codes, lengths, guidance=guidance)
    assert np.array_equal(np.where(mask[:, None], codes, 0), stepped.codes)
    np.testing.assert_allclose(stepped.bits, scored, atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", SIX)
def test_scores_of_every_pattern_with_guidance(name):
    model = small("text")
    codes, conditions = codes_of(model, 3, 6), conditions_of(model)
    # All in the steps of the longest, so that they share their programs.
    pattern = patterns.named(name, K, 6).pad(18)
    args = model.config, model.params, pattern
    scored = programs.score_codes(*args, codes, conditions, None, 3.0)
    stepped = programs.generate_codes(*args, conditions, KEY, codes, guidance=3.0)
    np.testing.assert_allclose(stepped.bits, scored, atol=2e-4, rtol=0)


def test_conditions_of_every_form_score_alike():
    """Captions, their tokens with a mask in another padding, and states encoded before."""
    model, codes = small("text"), codes_of(small("text"), 3, 6)
    captions = PROMPTS[1:4]
    ids, mask = model.text.tokens(captions)
    wider = {
        "input_ids": np.pad(ids, ((0, 0), (0, 16)), constant_values=7),
        "attention_mask": np.pad(mask, ((0, 0), (0, 16))),
    }
    want = model.score(codes, captions)
    np.testing.assert_allclose(model.score(codes, wider), want, atol=1e-4)
    np.testing.assert_allclose(
        model.score(codes, model.encode_conditions(captions)), want, atol=1e-6
    )
    assert np.abs(np.asarray(model.score(codes, captions[::-1])) - want).max() > 1e-2


# Conditions, and what is dropped.


@pytest.mark.parametrize("kind", ["text", "melody"])
def test_padding_of_a_prompt_changes_nothing(kind):
    """Neither in cross-attention nor as a prefix, where codes keep their positions."""
    model = small(kind)
    conditions, codes = conditions_of(model), codes_of(model, 3, 6)
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 12)), jnp.float32)
    text = conditions["text"]
    text = text._replace(
        states=jnp.concatenate([text.states, noise], 1),
        mask=np.pad(text.mask, ((0, 0), (0, 5))),
    )
    wide = conditions | {"text": text}
    np.testing.assert_allclose(model.score(codes, wide), model.score(codes, conditions), atol=1e-4)


def test_attention_to_padding_is_a_switch():
    """As in audiocraft: the padding's zeros take a share of the attention of a padded row, and of
    no other; without padding it changes nothing."""
    model = small("text")
    seeing = dataclasses.replace(model, config=dataclasses.replace(LM, attend_padding=True))
    ids, mask = model.text.tokens(PROMPTS[3:4])
    full = {"input_ids": ids[:, : mask.sum()]}
    codes = codes_of(model, 1, 6)
    np.testing.assert_allclose(seeing.score(codes, full), model.score(codes, full), atol=1e-5)
    padded = {"input_ids": ids, "attention_mask": mask}
    assert np.abs(seeing.score(codes, padded) - model.score(codes, padded)).max() > 1e-3


def test_what_is_left_out_has_no_effect_and_what_is_not_has():
    model = small("melody")
    conditions, codes = conditions_of(model), codes_of(model, 3, 6)
    none = drop(conditions)
    null = model.encode_conditions(["other", "words", "here"], None)
    kept = np.array([True, False, True])
    assert np.abs(model.score(codes, conditions) - model.score(codes, none))[0].max() > 1e-3
    # Another melody and other words of the same lengths are as absent.
    text = conditions["text"]
    text = text._replace(states=text.states[::-1] + 1.0)
    other = {"text": text, "melody": null["melody"]}
    np.testing.assert_allclose(
        model.score(codes, drop(other, "text")), model.score(codes, none), atol=1e-4
    )
    some = model.score(codes, drop(conditions, "text", where_B=~kept))
    np.testing.assert_allclose(some[::2], model.score(codes, conditions)[::2], atol=1e-4)
    silent = model.score(codes, drop(conditions, "text"))
    np.testing.assert_allclose(some[1], silent[1], atol=1e-4)


def test_guidance_is_its_definition():
    """In numbers: full 4, without text 2, null 1."""
    full, middle, null = (jnp.full(3, float(x)) for x in (4, 2, 1))
    assert (guide([full], None) == 4).all()
    assert (guide([full, null], 3.0) == 1 + 3 * (4 - 1)).all()
    assert (guide([full, middle, null], (3.0, 2.0)) == 1 + 3 * (2 + 2 * (4 - 2) - 1)).all()
    conditions = conditions_of(small("melody"))
    counts = [len(branches(conditions, guidance)) for guidance in (None, 3.0, (3.0, 2.0))]
    assert counts == [1, 2, 3]


@pytest.mark.parametrize("kind", ["text", slow("melody")])
def test_steps_in_bfloat16_are_as_exact_as_the_whole(kind):
    """Both round on their own; steps that summed a cache in bfloat16 would be further from what
    float32 gives than the whole is."""
    model, codes = small(kind), codes_of(small(kind), 3, 9)
    config = dataclasses.replace(model.config, dtype="bfloat16")
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model.params)
    pattern, conditions = patterns.named(model.pattern, K, 9), conditions_of(model)
    scored = programs.score_codes(config, params, pattern, codes, conditions)
    stepped = programs.generate_codes(config, params, pattern, conditions, KEY, codes)
    exact = np.asarray(model.score(codes, conditions))
    errors = [np.abs(np.asarray(bits) - exact).mean() for bits in (stepped.bits, scored)]
    assert 0 < errors[0] < 2 * errors[1]


def test_each_condition_is_dropped_by_its_own_share():
    """Of 4000 rows: none of both where all is dropped, and of the rest each by its own draw."""
    rows = 4000
    melody = np.eye(12, dtype=np.float32)[np.full((rows, 1), 5)]
    states = np.ones((rows, 1, 12), np.float32)
    conditions = {"text": condition(states), "melody": condition(melody)}
    kept = apply_dropout(
        KEY, conditions, jnp.arange(rows), ConditionDropout(all=0.3, text=0.5, melody=0.2)
    )
    text, melody = (np.asarray(kept[name].kept) for name in ("text", "melody"))
    shares = {(True, True): 0.28, (False, True): 0.28, (True, False): 0.07, (False, False): 0.37}
    for (with_text, with_melody), share in shares.items():
        found = ((text == with_text) & (melody == with_melody)).mean()
        assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / rows)


# One result, however it is drawn.


SECONDS = np.array([0.09, 0.05, 0.12, 0.09, 0.01, 0.12, 0.07, 0.05])


@pytest.mark.parametrize("pattern", ["delay", slow("flatten")])
def test_a_batch_of_eight_is_eight_single_runs_code_for_code(pattern):
    """Different prompts and lengths."""
    model, keys = small("text", pattern), row_keys(KEY, 8)
    lengths = np.round(SECONDS * 100).astype(int)
    both = draw(model, model.encode_conditions(PROMPTS), keys, free(model, 8, 12), lengths)
    for i, length in enumerate(lengths):
        conditions = model.encode_conditions([PROMPTS[i]])
        one = draw(model, conditions, keys[i : i + 1], free(model, 1, length), lengths[i : i + 1])
        assert np.array_equal(both.codes[i, :, :length], one.codes[0])


@pytest.mark.parametrize("pattern", ["delay", "flatten", "coarse_first"])
@pytest.mark.slow  # its twin: code for code, above
def test_a_batch_of_eight_is_eight_single_runs_sample_for_sample(pattern):
    """A pattern that looks a level ahead has a table for each length, and rows of one length are
    drawn together."""
    model, keys = small("text", pattern), row_keys(KEY, 8)
    audio = model.generate(PROMPTS, SECONDS, KEY, top_k=5)
    assert audio.shape == (8, 12 * HOP, 1)
    for i in range(8):
        alone = model.generate([PROMPTS[i]], SECONDS[i], keys[i : i + 1], top_k=5)
        samples = round(SECONDS[i] * 100) * HOP
        assert alone.shape[1] == samples and not audio[i, samples:].any()
        np.testing.assert_allclose(alone[0], audio[i, :samples], atol=1e-4)


@pytest.mark.parametrize("kind", tried(["melody"], CONFIGS))
def test_a_prompt_read_at_once_is_one_read_step_by_step(kind):
    """Prefill of whole buckets of steps, in every kind of model."""
    model = small(kind)
    conditions = conditions_of(model)
    forced = free(model, 3, 90)
    forced[:, :, :80] = codes_of(model, 3, 80)
    forced[1, :, :70] = codes_of(model, 3, 80, seed=1)[1, :, :70]
    keys, lengths = row_keys(KEY, 3), np.array([90, 90, 85])
    assert windows.window_of(model.pattern, forced, lengths).prefill_steps == 64
    at_once = draw(model, conditions, keys, forced, lengths)
    stepped = draw(model, conditions, keys, forced, lengths, prefill_steps=0)
    assert np.array_equal(at_once.codes, stepped.codes)
    np.testing.assert_allclose(at_once.bits, stepped.bits, atol=2e-4)


@pytest.mark.parametrize("guidance", [slow("plain"), "double"])
def test_two_passes_are_one(guidance):
    """Branches of guidance one after another draw what they draw as one batch."""
    model = small("melody")
    conditions, keys, options = (
        conditions_of(model),
        row_keys(KEY, 3),
        {"guidance": GUIDANCE[guidance]},
    )
    one = draw(model, conditions, keys, free(model, 3, 8), [8, 8, 8], **options)
    two = draw(
        model, conditions, keys, free(model, 3, 8), [8, 8, 8], sequential_guidance=True, **options
    )
    assert np.array_equal(one.codes, two.codes)
    np.testing.assert_allclose(one.bits, two.bits, atol=1e-4)


def test_another_length_prompt_or_setting_is_the_same_program():
    """Frames up to a bucket, prompts, patterns and all numbers of sampling are arguments."""
    model = small("text")
    model.generate(PROMPTS[2:5], 0.3, KEY)
    before = [x._cache_size() for x in (programs.generate_codes, sound._decode)]
    for name, seconds, options in (
        ("delay", 0.22, {"top_k": 3, "temperature": 0.5}),
        ("partial_delay", 0.4, {"top_p": 0.5, "guidance_scale": 2.0}),
        ("parallel", 0.25, {"top_k": 0}),
    ):
        other = dataclasses.replace(model, pattern=name)
        other.generate(PROMPTS[3:6], seconds, KEY, **options)
    after = [x._cache_size() for x in (programs.generate_codes, sound._decode)]
    assert after == before


@pytest.mark.parametrize("kind", [slow("text"), "melody"])
def test_windows_are_their_definition(kind):
    """Each further window keeps the last frames of the one before and samples `stride` more, told
    the melody from where it begins."""
    model = small(kind)
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, window=8))
    captions, keys = PROMPTS[1:3], row_keys(KEY, 2)
    melody = melody_of(2) if kind == "melody" else None
    audio = model.generate(captions, 0.17, KEY, melody=melody, stride=0.03, top_k=5)
    conditions = model.encode_conditions(captions, melody)
    codes = draw(model, conditions, keys, free(model, 2, 8), [8, 8]).codes
    for begin in (3, 6, 9):
        forced = free(model, 2, min(8, 17 - begin))
        forced[:, :, :5] = codes[:, :, begin:]
        if melody is not None:
            conditions = model.encode_conditions(captions, np.roll(melody, -begin * HOP, axis=1))
        folded = jax.vmap(jax.random.fold_in, (0, None))(keys, begin)
        new = draw(model, conditions, folded, forced, [forced.shape[2]] * 2).codes
        codes = np.concatenate([codes, new[:, :, 5:]], axis=2)
    assert codes.shape[2] == 17
    np.testing.assert_allclose(audio, model.codec.decode(codes), atol=1e-4)


STREAMED = product(("delay", "flatten", "coarse_first"), (True, False), (0.3, 0.07))


# Each chunk's length is a program of its own.
@pytest.mark.parametrize(
    ("pattern", "causal", "chunk"),
    tried([("delay", True, 0.07)], STREAMED),
)
def test_a_stream_is_the_whole_in_pieces(pattern, causal, chunk):
    """Chunks of any length, decoded by the codec's stream or by windows with halos; the first
    comes before the last step is drawn."""
    model = small("text", pattern, causal)
    seconds = [0.3] * 2 if pattern == "coarse_first" else [0.3, 0.17]
    whole = model.generate(PROMPTS[1:3], seconds, KEY, top_k=5)
    pieces = list(model.stream(PROMPTS[1:3], seconds, KEY, chunk=chunk, top_k=5))
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, atol=1e-4)
    assert len(pieces) >= 2 or chunk == 0.3


# Its twin in files, as that of the next: test_cli_generate.py::test_a_stream_makes_the_same_files.
@pytest.mark.slow
def test_a_stream_of_stereo():
    stereo = small("stereo", "stereo_partial_delay")
    assert stereo.channels == 2
    whole = stereo.generate(PROMPTS[:2], 0.2, KEY, top_k=5)
    assert whole.shape == (2, 20 * HOP, 2) and np.abs(whole[..., 0] - whole[..., 1]).max() > 1e-3
    pieces = np.concatenate(list(stereo.stream(PROMPTS[:2], 0.2, KEY, chunk=0.06, top_k=5)), 1)
    np.testing.assert_allclose(pieces, whole, atol=1e-4)


@pytest.mark.slow
def test_a_stream_of_windows_of_stereo():
    stereo = small("stereo", "stereo_partial_delay")
    long = dataclasses.replace(stereo, config=dataclasses.replace(stereo.config, window=8))
    whole = long.generate(PROMPTS[:2], 0.2, KEY, stride=0.05, top_k=5)
    pieces = long.stream(PROMPTS[:2], 0.2, KEY, stride=0.05, chunk=0.03, top_k=5)
    np.testing.assert_allclose(np.concatenate(list(pieces), 1), whole, atol=1e-4)


# Its twin: captions become audio of a stereo model, in test_musicgen_published.py.
@pytest.mark.slow
def test_each_channel_of_stereo_has_its_own_levels():
    """Left at levels 0, 2, 4 and right at 1, 3, 5, each heard as the mono codec decodes it; audio
    that is continued is taken apart the same way."""
    model = small("stereo", "stereo_partial_delay")
    codes = codes_of(model, 2, 12)
    heard = sound.decode(model.codec, codes, np.array([12, 12]), 2)
    for channel in range(2):
        mono = model.codec.decode(codes[:, channel::2])
        np.testing.assert_allclose(heard[..., channel], mono[..., 0], atol=1e-5)
    audio = np.random.default_rng(0).normal(size=(2, 120, 2)).astype(np.float32)
    found = model._prompt(audio)
    for channel in range(2):
        mono = model.codec.encode(audio[..., channel : channel + 1]).codes
        assert np.array_equal(found[:, channel::2], mono)
    kept = model.generate(PROMPTS[:2], 0.2, KEY, prompt=audio, top_k=5)
    assert np.array_equal(kept, model.generate(PROMPTS[:2], 0.2, KEY, prompt=found, top_k=5))


# Bad input.

BAD = {
    "no captions": ({"captions": []}, "at least one"),
    "a string": ({"captions": "slow"}, "list"),
    "no seconds": ({"seconds": 0.0}, "positive"),
    "negative": ({"seconds": -1.0}, "positive"),
    "not a number": ({"seconds": float("nan")}, "positive"),
    "beyond the window": ({"seconds": 0.5}, "stride"),
    "no stride": ({"seconds": 0.5, "stride": 0.0}, "stride"),
    "stride beyond": ({"seconds": 0.5, "stride": 0.31}, "stride"),
    "long prompt": ({"prompt": np.zeros((1, K, 21), np.int32)}, "21 frames"),
    "melody": ({"melody": np.zeros((1, 100, 1), np.float32)}, "melody"),
    "temperature": ({"temperature": -1.0}, "temperature"),
    "top_k": ({"top_k": -1}, "top_k"),
    "top_p": ({"top_p": float("nan")}, "top_p"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_done_is_said(case):
    changes, word = BAD[case]
    model = small("text")
    model = dataclasses.replace(model, config=dataclasses.replace(LM, window=30))
    given = {"captions": ["slow"], "seconds": 0.2, "key": KEY} | changes
    with pytest.raises(ValueError, match=word):
        model.generate(**given)
    with pytest.raises(ValueError, match=word):
        list(model.stream(**given))


def test_parts_that_are_missing_are_said():
    model = small("text")
    with pytest.raises(ValueError, match="text encoder"):
        dataclasses.replace(model, text=None).generate(["slow"], 0.1, KEY)
    with pytest.raises(ValueError, match="codec"):
        dataclasses.replace(model, codec=None).generate(["slow"], 0.1, KEY)
    with pytest.raises(ValueError, match="different lengths"):
        list(small("text", "coarse_first").stream(PROMPTS[:2], [0.1, 0.2], KEY))
    with pytest.raises(ValueError, match="text_dim"):
        forms.abstract(dataclasses.replace(LM, text_dim=None, melody_bins=12))
