"""Every public operation as a function of rows, small: what `test_transforms.py` transforms."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from small_lm import CONFIG as LM
from small_lm import PARAMS, TEXT, aligned_pattern, of_text, random_codes
from small_quantizers import ARRANGEMENTS, LEVELS, LOOKUPS

import rvq_jax as rj
from rvq_jax import metrics
from rvq_jax import quantize as q
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.dac import DACConfig
from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.codec.transformer import TransformerConfig
from rvq_jax.lm.sampling import Sampling
from rvq_jax.systems.decoding.programs import generate_codes, score_codes


def seanet(**changes) -> SEANetConfig:
    tiny = {"dim": 4, "filters": 2, "ratios": (2,), "kernel": 3, "last_kernel": 3, "lstm_layers": 0}
    return SEANetConfig(**tiny | changes)


CODECS = {
    "mirrored": CodecConfig(600, seanet(lstm_layers=1), levels=2, codebook_size=4),
    "segments": CodecConfig(
        100,
        seanet(channels=2, causal=False, norm="time_group_norm"),
        levels=2,
        codebook_size=4,
        normalize=True,
        segment=0.4,
        overlap=0.1,
    ),
    "levelled": CodecConfig(
        600, seanet(causal=False, pad_mode="constant"), levels=2, codebook_size=4, normalize=True
    ),
    "dac": DACConfig(600, (2,), 2, 4, 4, levels=2, codebook_size=4, code_dim=2),
    "mimi": MimiConfig(
        1200,
        seanet(dim=8, true_skip=True, norm="none", pad_mode="constant"),
        TransformerConfig(8, 1, 2, 2, 4, 8, context=3, layer_scale=0.3),
        levels=2,
        codebook_size=4,
        code_dim=4,
    ),
}
ROWS, F, D = 8, 4, 8


class Operation(NamedTuple):
    run: Callable  # of an array whose first axis is split
    given: np.ndarray


def latents(seed: int = 0, rows: int = ROWS, frames: int = F, dim: int = D) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, frames, dim)).astype(np.float32)


def with_gradient(run: Callable) -> Callable:
    """What a function gives, and the gradient of the sum of all its floats."""

    def both(x):
        def total(x):
            out = run(x)
            floats = [y for y in jax.tree.leaves(out) if jnp.issubdtype(y.dtype, jnp.floating)]
            return sum(y.astype(jnp.float32).sum() for y in floats), out

        gradient, out = jax.grad(total, has_aux=True)(x)
        return out, gradient

    return both


def family(lookup: str, arrangement: str = "residual"):
    """All that a quantizer does: codes, latents of them, evaluation, training."""

    def make(key):
        state = ARRANGEMENTS[arrangement](LOOKUPS[lookup], key(0))
        has_means = lookup in ("euclidean", "sizes", "cosine", "shared")
        learning = q.EMA(0.9, expiry=0.5) if has_means else q.Gradient()
        temperature = 0.0 if lookup in ("fsq", "projected fsq", "lfq", "qinco") else 0.1

        def run(x):
            codes = q.encode(state, x)
            out = q.quantize(state, x, per_level=True, learning=q.Gradient())
            learned = q.quantize(
                state, x, key=key(1), train=True, learning=learning, per_level=True,
                temperature=temperature, dropout=q.Dropout(0.5),
            )  # fmt: skip
            return codes, q.decode(state, codes), out._replace(state=None), learned

        return Operation(with_gradient(run), latents())

    return make


def beam(key):
    state = q.init(key(0), LEVELS, 16, D)
    tables = q.beam_tables(state)

    def run(x):
        return q.encode(state, x, beam=3), q.encode(state, x, 2, beam=3, tables=tables)

    return Operation(run, latents())


def long(key):
    """More vectors than one tile of the search has."""
    state = q.init(key(0), 2, 4, 2)
    return Operation(
        lambda x: (q.encode(state, x), q.encode(state, x, beam=2)),
        latents(rows=ROWS, frames=2100, dim=2),
    )


def started(lookup: str, plus_plus: bool = False, arrangement: str = "residual"):
    def make(key):
        state = ARRANGEMENTS[arrangement](LOOKUPS[lookup], key(0))

        def run(x):
            return q.start(key(1), state, x, 2, plus_plus)

        return Operation(run, latents(rows=1, frames=ROWS * 48)[0])

    return make


def fitted(key):
    def run(x):
        return q.fit(key(0), x, 2, 4, iterations=1, rounds=1, beam=2)

    return Operation(run, latents(rows=1, frames=ROWS * 12, dim=4)[0])


def decoded(key):
    # Of float64 where there is one, as states come to be by other arithmetic.
    state = jax.tree.map(lambda x: x.astype(float), q.Projected.init(key(0), LEVELS, 16, D, 3))
    codes = np.random.default_rng(0).integers(0, 16, (ROWS, 2, F)).astype(np.int32)
    return Operation(lambda codes: q.decode(state, codes), codes)


def helpers(key):
    state = q.init(key(0), LEVELS, 16, D)

    def run(x):
        codes = q.nearest(x, state.vectors[0])
        weight = jnp.full(len(x), 1 / len(x), jnp.float32)
        return codes, q.level_stats(codes, x, 0.5 * x, weight, 16), q.rotation(x, 0.5 * x)

    return Operation(run, latents()[:, 0])


@functools.cache
def small_codec(name: str) -> rj.Codec:
    return rj.Codec.init(CODECS[name], jax.random.key(0))


def coding(name: str, samples: int):
    def make(key):
        codec = small_codec(name)
        audio = np.random.default_rng(0).uniform(-1, 1, (ROWS, samples, codec.config.channels))

        def run(x):
            lengths = jnp.full(len(x), samples - 5, jnp.int32)
            coded = codec.encode(x, levels=1, lengths=lengths)
            return coded, codec.decode(coded), codec.decode(codec.encode(x))

        return Operation(
            with_gradient(run) if name == "levelled" else run, audio.astype(np.float32)
        )

    return make


def bare_codes(key):
    codes = np.random.default_rng(0).integers(0, 4, (ROWS, 2, F)).astype(np.int32)
    return Operation(small_codec("dac").decode, codes)


PATTERN = aligned_pattern("delay")


def scored(key):
    def run(codes):
        conditions = of_text(np.tile(TEXT[:1], (len(codes), 1)))
        return score_codes(LM, PARAMS, PATTERN, codes, conditions, None, 2.0)

    return Operation(run, random_codes(ROWS))


def generated(key):
    def run(forced):
        conditions = of_text(np.tile(TEXT[:1], (len(forced), 1)))
        sampling = Sampling(1.0, 3, 0.9)
        return generate_codes(
            LM, PARAMS, PATTERN, conditions, key(0), forced, guidance=2.0, sampling=sampling
        )

    return Operation(run, np.where(np.arange(5) < 2, random_codes(ROWS), -1).astype(np.int32))


def interleaved(key):
    def run(codes):
        tokens = PATTERN.interleave(codes, fill=7)
        return tokens, PATTERN.deinterleave(tokens)

    return Operation(run, random_codes(ROWS))


def measured(key):
    def run(x):
        return metrics.si_sdr(x, 0.5 * x**2), metrics.mel_distance(x, 0.5 * x**2, 8_000)

    return Operation(with_gradient(run), latents(frames=1, dim=2048)[:, 0])


OPERATIONS = {
    **{f"quantize {name}": family(name) for name in LOOKUPS},
    **{
        f"quantize {name}": family("euclidean", name) for name in ARRANGEMENTS if name != "residual"
    },
    "beam": beam,
    "long": long,
    "decode": decoded,
    "start": started("euclidean"),
    "start plus_plus": started("cosine", plus_plus=True),
    "start shared": started("shared"),
    "start grouped": started("projected", arrangement="grouped"),
    "fit": fitted,
    "helpers": helpers,
    **{f"codec {name}": coding(name, 59 if name == "segments" else 17) for name in CODECS},
    "bare codes": bare_codes,
    "score": scored,
    "generate": generated,
    "pattern": interleaved,
    "metrics": measured,
}


@functools.cache
def operation(name: str) -> Operation:
    return OPERATIONS[name](jax.random.key)


@functools.cache
def eager(name: str):
    run, given = operation(name)
    return jax.tree.map(np.asarray, run(given))


@functools.cache
def row_by_row(name: str):
    run, given = operation(name)
    rows = [run(x) for x in np.split(given, ROWS)]
    return jax.tree.map(lambda *x: np.stack(x), *rows)
