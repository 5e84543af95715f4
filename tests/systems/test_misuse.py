"""What callers get wrong is one error, never silence: codes, scales, lengths, numbers, arrays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_musicgen import codec, codes_of, melody_of, small

import rvq_jax as rj
from rvq_jax import metrics
from rvq_jax import quantize as q

KEY = jax.random.key(0)
STATE = q.init(KEY, 2, 4, 3)
CODES = np.zeros((2, 3, 4), np.int32)
NAN = float("nan")


class Foreign:
    """An array of another library: shape and dtype, and no JAX type."""

    shape, ndim, dtype = (1, 2, 3), 3, np.dtype("float32")


def refused(call, *words: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300
    assert not [word for word in words if word not in message], message


def wrong(code: int, at=(1, 1, 2)) -> np.ndarray:
    codes = CODES.copy()
    codes[at] = code
    return codes


@pytest.mark.parametrize("code", [-1, 11, 2**31 - 1, -(2**31)])
def test_codes_that_there_are_not(code):
    """Outside of a program an error, whole, in steps, as a stream, as a prompt, in a score; inside
    of one audio of the nearest code, which is finite."""
    one, model, bad = codec(causal=True), small(), wrong(code)
    said = "codes of level 2 must be in 0..10"
    refused(lambda: one.decode(bad), said)
    refused(lambda: one.decode(bad, chunk=0.02), said)
    refused(lambda: one.decode(rj.Coded(bad, None, 40)), said)
    refused(lambda: one.decode_stream(2).push(bad), said)
    refused(lambda: model.score(bad, ["x", "y"]), "codes must be in 0..10")
    if code != -1:  # which is sampled
        generate = functools.partial(model.generate, ["x", "y"], 0.04, KEY)
        refused(lambda: generate(prompt=bad), "codes must be in -1..10")
    got = np.asarray(jax.jit(one.decode)(bad))
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, one.decode(np.clip(bad, 0, 10)), atol=1e-5)
    scores = np.asarray(jax.jit(lambda x: model.score(x, ["x", "y"]))(bad))
    np.testing.assert_allclose(scores, model.score(np.clip(bad, 0, 10), ["x", "y"]), atol=1e-4)


def test_codes_under_a_mask_may_be_anything():
    model, mask = small(), np.array([[True, True, False, False]] * 2)
    scores = model.score(wrong(99), ["x", "y"], mask)
    np.testing.assert_array_equal(scores, model.score(CODES, ["x", "y"], mask))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scales": np.full((2, 1), np.nan, np.float32)}, "scales must be finite"),
        ({"scales": np.array([[1.0], [-1.0]])}, "scales must be finite and not negative"),
        ({"scales": np.ones(2)}, "scales must be [2, 1], got [2]"),
        ({"scales": [[1.0], [1.0]]}, "scales must be a JAX or numpy array, got list"),
        ({"samples": 41}, "41 samples need 5 frames of codes, got 4"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"samples": -3}, "samples must be at least 1"),
        ({"samples": 2.5}, "samples must be a whole number"),
        ({"lengths": np.array([40, 41])}, "lengths must be 2 whole numbers in 1..40"),
        ({"lengths": np.array([40, 0])}, "lengths must be 2 whole numbers in 1..40"),
        ({"lengths": np.array([40])}, "lengths must be 2 whole numbers in 1..40"),
        ({"lengths": np.array([1.5, 2.0])}, "lengths must be 2 whole numbers in 1..40"),
        ({"codes": CODES[0]}, "codes must be integers [B, K, F]"),
        ({"codes": CODES.astype(np.float32)}, "codes must be integers [B, K, F]"),
        ({"codes": CODES.tolist()}, "codes must be a JAX or numpy array, got list"),
        ({"codes": CODES[:0]}, "codes must not be empty"),
        ({"codes": CODES[:, :, :0]}, "codes must not be empty"),
        ({"codes": np.zeros((2, 4, 4), np.int32)}, "levels must be in 1..3, got 4"),
    ],
)
def test_codes_with_what_does_not_fit_them(changes, words):
    coded = rj.Coded(CODES, None, 40)._replace(**changes)
    refused(lambda: codec().decode(coded), words)


AUDIO = np.zeros((1, 20, 1), np.float32)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: codec().encode(AUDIO.tolist()), "audio must be a JAX or numpy array, got list"),
        (lambda: codec().encode(AUDIO[:0]), "at least one item"),
        (lambda: codec().encode(AUDIO.astype(int)), "audio must be float"),
        (lambda: codec().encode(AUDIO, levels=2.5), "levels must be in 1..3"),
        (lambda: codec().encode(AUDIO, kbps=NAN), "kbps must be at least"),
        (lambda: codec().encode(AUDIO, chunk=NAN), "chunk must be seconds above 0"),
        (lambda: codec().encode(AUDIO, chunk=-1.0), "chunk must be seconds above 0"),
        (lambda: codec().decode(CODES, chunk=0.0), "chunk must be seconds above 0"),
        (lambda: q.encode(STATE, Foreign()), "latents must be a JAX or numpy array, got"),
        (lambda: q.encode(STATE, [[[0.0] * 3]]), "latents must be a JAX or numpy array, got list"),
        (lambda: q.encode(STATE, np.zeros((1, 2, 3), int)), "latents must be float, got int64"),
        (lambda: q.encode(STATE, np.zeros((0, 2, 3), np.float32)), "latents must not be empty"),
        (lambda: q.quantize(STATE, np.zeros((2, 0, 3), np.float32)), "latents must not be empty"),
        (lambda: q.quantize(STATE, AUDIO), "latents must be [B, F, 3], got [1, 20, 1]"),
        (lambda: q.decode(STATE, CODES[0]), "codes must be integers [B, K, F], got int32 [3, 4]"),
        (lambda: q.decode(STATE, Foreign()), "codes must be a JAX or numpy array, got"),
        (lambda: q.start(KEY, STATE, [[0.0] * 3]), "vectors must be a JAX or numpy array"),
        (lambda: q.start(KEY, STATE, np.zeros((0, 3), np.float32)), "vectors must not be empty"),
        (lambda: q.start(0, STATE, np.zeros((9, 3), np.float32)), "key must be made by"),
        (
            lambda: q.refine(STATE, np.zeros((9, 3), np.float32), np.full((2, 9), 4)),
            "codes of level 1 must be in 0..3, got 4",
        ),
        (lambda: metrics.code_counts(CODES - 1, 4), "codes must be in [0, 4), got -1..-1"),
        (lambda: metrics.between_levels(CODES + 4, 4), "codes must be in [0, 4), got 4..4"),
        (
            lambda: metrics.mutual_information(CODES[0, 0] - 1, CODES[0, 0], 4),
            "codes must be in [0, 4), got -1..0",
        ),
    ],
)
def test_arrays_and_numbers_that_are_none(call, words):
    refused(call, words)


GENERATE = [
    ({"melody": melody_of(1)}, "follows no melody"),
    ({"text_guidance_scale": 2.0}, "text_guidance_scale weighs the text over a melody"),
    ({"guidance_scale": NAN}, "guidance_scale must be finite"),
    ({"guidance_scale": float("inf")}, "guidance_scale must be finite"),
    ({"temperature": NAN}, "temperature must not be negative"),
    ({"temperature": -1.0}, "temperature must not be negative"),
    ({"temperature": float("inf")}, "temperature must be finite"),
    ({"top_k": -1}, "top_k must not be negative"),
    ({"top_k": 2.5}, "top_k must be a whole number"),
    ({"top_p": NAN}, "top_p must not be negative"),
    ({"top_p": 1.5}, "top_p must be in 0..1"),
    ({"stride": NAN}, "stride must be seconds above 0"),
    ({"stride": -1.0}, "stride must be seconds above 0"),
    ({"seconds": NAN}, "seconds must be positive"),
    ({"seconds": [0.1, 0.1, 0.1]}, "seconds must be one number, or 2"),
    ({"captions": []}, "captions must be a list"),
    ({"captions": [None, "x"]}, "captions must be a list"),
    ({"key": 3}, "key must be made by"),
    ({"key": jax.random.split(KEY, 3)}, "keys must be one, or 2"),
    ({"prompt": np.zeros((2, 3), np.int32)}, "prompt must be codes"),
    ({"prompt": np.zeros((3, 3, 2), np.int32)}, "prompt must be codes"),
    ({"prompt": np.zeros((2, 4, 2), np.int32)}, "codes must be integers [B, 3, F]"),
    ({"prompt": np.zeros((2, 20, 2), np.float32)}, "prompt of audio must be [2, S, 1]"),
    ({"prompt": np.full((2, 20, 1), np.nan, np.float32)}, "audio must be finite"),
    ({"prompt": np.zeros((2, 3, 2), bool)}, "prompt must be codes or audio"),
]


@pytest.mark.parametrize(("changes", "words"), GENERATE)
def test_arguments_of_generate_that_cannot_be(changes, words):
    options = {"captions": ["x", "y"], "seconds": 0.04, "key": KEY} | changes
    refused(lambda: small().generate(**options), words)
    if changes.keys() & {"melody", "guidance_scale"}:
        refused(lambda: small().score(CODES, ["x", "y"], **changes), words)
    if "seconds" not in changes:
        refused(lambda: next(small().stream(**options)), words)


@pytest.mark.parametrize(
    ("melody", "words"),
    [
        (np.zeros(100, np.float32), "melody must be audio [2, S, C]"),
        (np.zeros((3, 100, 1), np.float32), "melody must be audio [2, S, C]"),
        (np.zeros((1, 0, 1), np.float32), "melody must be audio [2, S, C]"),
        (np.zeros((1, 100, 1), np.int16), "melody must be float"),
        (np.full((1, 100, 1), np.inf, np.float32), "melody must be finite"),
        ([0.0], "melody must be a JAX or numpy array"),
    ],
)
def test_melodies_that_are_none(melody, words):
    refused(lambda: small("melody").encode_conditions(["x", "y"], melody), words)


def test_scores_need_a_caption_for_each_row():
    model = small()
    refused(lambda: model.score(codes_of(model, 3, 4), ["x", "y"]), "need as many captions")
    refused(lambda: model.score(CODES[0], ["x"]), "codes must be integers [B, 3, F]")
    mask = jnp.ones((2, 3), bool)
    refused(lambda: model.score(CODES, ["x", "y"], mask), "mask must be [2, 4], got [2, 3]")
