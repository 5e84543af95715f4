"""Discriminators: as published, of audio of any length, and fair to every item and channel.

The fixtures are written by tests/parity/make_discriminator_fixtures.py.
"""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import signals
from flax import nnx
from small_runs import one_device
from tiers import tried

from rvq_jax import files
from rvq_jax.codec import adversarial
from rvq_jax.codec.discriminators import (
    DiscriminatorsConfig,
    MultiBandConfig,
    MultiPeriodConfig,
    MultiScaleConfig,
    MultiScaleSTFTConfig,
)
from rvq_jax.codec.discriminators.layers import level
from rvq_jax.train import sharding

FIXTURES = Path(__file__).parents[1] / "fixtures" / "discriminators"
KINDS = {
    "encodec_stft": {"stft": MultiScaleSTFTConfig(2, 3, (64, 32))},
    "dac_periods": {"periods": MultiPeriodConfig((2, 5), (1, 2, 8, 16, 16))},
    "dac_scales": {"scales": MultiScaleConfig((4,), (1, 1, 4, 16, 16, 16), (1, 1, 1, 1, 4, 1))},
    "dac_bands": {"bands": MultiBandConfig((64,), filters=2)},
}
APART = [name for name in KINDS if name.startswith("dac")]  # kinds that judge channels apart


@functools.cache
def made(config: DiscriminatorsConfig):
    """Untrained params, and what judges audio with them."""
    graph, params = nnx.split(config.build(nnx.Rngs(params=jax.random.key(0))), nnx.Param)
    return params, jax.jit(lambda params, audio: nnx.merge(graph, params)(audio))


def of_kind(name: str):
    return made(DiscriminatorsConfig(**{"stft": None} | KINDS[name]))


def published(path: str, encodec: bool) -> str:
    """The name there of one of our params, such as 'bands/windows/0/last/kernel/gain/value'."""
    path = path.removesuffix("/value").split("/", 2)[2]
    path, _, part = (
        path.replace("kernel/v", "weight_v").replace("kernel/gain", "weight_g").rpartition("/")
    )
    path = re.sub(r"bands/(\d+)/(\d+)", r"band_convs/\1/\2", path)
    path = path.replace("layers", "convs").replace("last", "conv_post")
    path += "/conv" if encodec else "" if path.endswith("conv_post") else "/0"
    # Its first layers alone have a kernel without a gain.
    plain = encodec and "convs/0" in path
    part = "weight" if plain and part == "weight_v" else part
    return f"discriminators/{path}/{part}".replace("/", ".")


def as_ours(array: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A kernel with its features last; those of periods have a second axis of one place."""
    array = np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array
    return array.reshape(like.shape)


@pytest.mark.parametrize("name", tried(["encodec_stft"], KINDS))
def test_as_published(name):
    """Scores, features, the losses, and their slopes to weights and to decoded audio, of a float.

    Of features EnCodec's package (audiocraft) has the mean where DAC's has the sum.
    """
    with np.load(FIXTURES / f"{name}.npz") as arrays:
        want = dict(arrays)
    encodec = name.startswith("encodec")
    params, judge = of_kind(name)
    leaves, tree = jax.tree.flatten(params)
    names = [published(path, encodec) for path in files.named(params)]
    assert sorted(names) == sorted(key[7:] for key in want if key.startswith("weight/"))
    there = zip(names, leaves, strict=True)
    params = tree.unflatten([as_ours(want[f"weight/{key}"], leaf) for key, leaf in there])
    real, fake = (want[key].swapaxes(1, 2) for key in ("real", "fake"))
    kind = "hinge" if encodec else "least_squares"

    @jax.jit
    def compute(params, real, fake):
        def learned(params):
            return adversarial.discriminator_loss(judge(params, real), judge(params, fake), kind)

        def asked(fake):
            judgements = judge(params, fake)
            features = adversarial.feature_matching(judge(params, real), judgements, False)
            count = sum(len(judgement.features) for judgement in judgements) if encodec else 1
            generator = adversarial.generator_loss(judgements, kind)
            return jnp.stack([generator, features / count]), judgements

        loss, gradient = jax.value_and_grad(learned)(params)
        losses, slope, judgements = jax.vjp(asked, fake, has_aux=True)
        return judgements, [loss, *losses], gradient, jax.vmap(slope)(jnp.eye(2))[0]

    judgements, losses, gradient, slopes = compute(params, real, fake)
    got = dict(zip(("loss/discriminator", "loss/generator", "loss/features"), losses, strict=True))
    got |= {f"gradient/{key}": x for key, x in zip(names, jax.tree.leaves(gradient), strict=True)}
    got |= {"slope/generator": slopes[0], "slope/features": slopes[1]}
    for i, judgement in enumerate(judgements):
        got |= {f"score/{i}": judgement.scores}
        got |= {f"feature/{i}/{j}": x for j, x in enumerate(judgement.features)}
    rest = {key for key in want if key.split("/")[0] not in ("real", "fake", "weight", "versions")}
    assert set(got) == rest
    for key, x in got.items():
        expected = want[key]
        if key.startswith("gradient"):
            expected = as_ours(expected, x)
        elif key.startswith(("score", "feature", "slope")):
            expected = np.moveaxis(expected, 1, -1)
            if name == "dac_periods" and not key.startswith("slope"):
                expected = np.moveaxis(expected, 2, 1)  # a period's phases are items here
            expected = expected.reshape(x.shape)
        close = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(x, expected, rtol=0, atol=close, err_msg=key)


@pytest.mark.parametrize("name", tried(["dac_periods"], APART))
def test_channels_are_judged_apart(name):
    """Those of stereo are items of their own, and no item sees another."""
    params, judge = of_kind(name)
    stereo = signals.noise(2, 347, 2)
    alone = judge(params, stereo[1:, :, 1:])
    for both, one in zip(judge(params, stereo), alone, strict=True):
        items = both.scores.shape[0] // 4
        last = both.scores[-items:]
        np.testing.assert_allclose(last, one.scores, atol=1e-5 * np.abs(last).max())


def test_channels_that_are_judged_together_are_two_views():
    params, judge = of_kind("encodec_stft")
    stereo = signals.noise(1, 347, 2)
    there, back = judge(params, stereo)[0].scores, judge(params, stereo[..., ::-1])[0].scores
    assert np.abs(there - back).max() > 0.01 * np.abs(there).max()


@pytest.mark.parametrize("name", tried(["dac_periods"], APART))
def test_a_level_and_a_mean_change_nothing(name):
    """Until -60 dB, where it stays as quiet as it is."""
    params, judge = of_kind(name)
    audio = signals.noise(1, 347, 1, scale=0.1)
    want = judge(params, audio)
    for same in (0.1 * audio, audio + 0.3):
        for a, b in zip(want, judge(params, same), strict=True):
            np.testing.assert_allclose(a.scores, b.scores, atol=1e-4 * np.abs(a.scores).max())
    quiet = np.abs(judge(params, 1e-5 * audio)[0].features[0]).max()
    assert quiet < 0.01 * np.abs(want[0].features[0]).max()


SMALL = DiscriminatorsConfig(
    stft=MultiScaleSTFTConfig(2, 2, (32,), (2,)),
    periods=MultiPeriodConfig((7,), (2, 2)),
    bands=MultiBandConfig((16,), (0.5,), 2),
    scales=MultiScaleConfig((4,), (2, 2, 2), (1, 2, 1)),
)


@pytest.mark.parametrize("samples", [1, 5, 31, 200])
def test_audio_of_any_length_is_judged(samples):
    """Every kind has a score for it."""
    params, judge = made(SMALL)
    judgements = jax.eval_shape(judge, params, jnp.zeros((1, samples, 2)))
    assert len(judgements) == 4 and all(judgement.scores.size for judgement in judgements)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 31])
def test_slopes_are_finite(samples):
    """Of short audio and of silence too, everywhere."""
    params, judge = made(SMALL)

    @jax.jit
    def slopes(params, audio):
        def loss(params, audio):
            judgements = judge(params, audio)
            return adversarial.generator_loss(judgements, "least_squares"), judgements

        return jax.grad(loss, (0, 1), has_aux=True)(params, audio)

    noise = signals.noise(1, samples, 2)
    for audio in (noise, 0 * noise):
        gradient, judgements = slopes(params, audio)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((gradient, judgements)))


def test_a_kind_more_leaves_the_others_as_they_are():
    config = DiscriminatorsConfig(**KINDS["encodec_stft"] | KINDS["dac_periods"])
    audio = jnp.zeros((1, 347, 2))
    together, stft, periods = (
        jax.eval_shape(judge, params, audio)
        for params, judge in (made(config), of_kind("encodec_stft"), of_kind("dac_periods"))
    )
    assert together == stft + periods


def test_silence_is_raised_by_a_bounded_factor():
    """As published, 1e9 at silence: what a codec then learns of it is noise."""
    slope = jax.jacobian(level)(jnp.zeros((1, 8, 1)))
    assert np.abs(slope).max() <= 800


@pytest.mark.slow
def test_gradients_on_a_mesh():
    """To params and audio those of one device."""
    params, judge = made(SMALL)
    audio = signals.noise(8, 200, 2, scale=0.1)

    def gradients(mesh):
        def loss(params, audio):
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                judgements = judge(params, audio)
                features = sum(jnp.abs(x).mean() for one in judgements for x in one.features)
                return adversarial.generator_loss(judgements, "least_squares") + features

        placed = sharding.of_params(params, mesh)
        batch = sharding.place_batch({"audio": audio}, mesh)["audio"]
        gradient = jax.jit(jax.grad(loss, (0, 1)), out_shardings=(placed, None))
        return files.named(gradient(jax.device_put(params, placed), batch))

    want, got = gradients(one_device()), gradients(sharding.make_mesh(2, 2, 2))
    for name, value in want.items():
        close = 1e-4 * np.abs(value).max()
        np.testing.assert_allclose(got[name], value, rtol=0, atol=close, err_msg=name)


REFUSED = {
    "an odd window": (lambda: MultiBandConfig((100,)), "multiples of 8"),
    "an empty band": (lambda: MultiBandConfig((8,)), "empty"),
    "cuts that fall": (lambda: MultiBandConfig(cuts=(0.5, 0.25)), "empty"),
    "groups": (lambda: MultiScaleConfig(filters=(4, 6, 6), groups=(1, 4, 1)), "4 groups"),
    "too few groups": (lambda: MultiScaleConfig(groups=(1, 4)), "as many groups"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_sizes_that_do_not_go_together_are_refused(case):
    make, say = REFUSED[case]
    with pytest.raises(ValueError, match=say):
        make()
