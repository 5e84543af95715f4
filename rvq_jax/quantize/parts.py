"""What the public functions do with each arrangement: its parts' own results, put together."""

import dataclasses

import jax
import jax.numpy as jnp

from rvq_jax.quantize import rvq
from rvq_jax.quantize.arrangements import Bottleneck, Grouped, Split, State, Strided
from rvq_jax.quantize.beam import pair_products
from rvq_jax.quantize.implicit import QINCo
from rvq_jax.quantize.lookups import Shared, SimVQ
from rvq_jax.quantize.rvq import Quantized, Rules
from rvq_jax.quantize.start import residual_kmeans, shared_kmeans
from rvq_jax.quantize.state import Codebooks, Lookup
from rvq_jax.typing import Array, Codes, Key, Latents, Vectors

HIGHEST = jax.lax.Precision.HIGHEST
Tables = Array | tuple  # as the state: one for each part of a split


def encode(
    state: State,
    latents: Latents,
    levels: int | None,
    beam: int,
    tables: Tables | None,
    kernel: bool,
) -> Codes:
    match state:
        case Grouped():
            books = jax.vmap(lambda b: b.first(_per_group(state, levels)))(state.books)
            codes_GBKF = jax.vmap(lambda b, x, t: rvq.encode(b, x, beam, t, kernel))(
                books, _grouped(latents, state.groups), tables
            )
            return _level_major(codes_GBKF)
        case Split():
            first, rest = _split_levels(state, levels)
            of_first, of_rest = (None, None) if tables is None else tables
            parts = [encode(state.first, latents, first, beam, of_first, kernel)]
            if rest:
                parts.append(encode(state.rest, latents, rest, beam, of_rest, kernel))
            return jnp.concatenate(parts, axis=1)
        case Bottleneck():
            inside = jnp.matmul(latents, state.down, precision=HIGHEST)
            return encode(state.inner, inside, levels, beam, tables, kernel)
        case Strided():
            books = state.books.first(levels)
            return rvq.encode(books, latents, strides=_whole(state, latents)[: books.levels])
        case _:
            return rvq.encode(state.first(levels), latents, beam, tables, kernel)


def beam_tables(state: State) -> Tables:
    match state:
        case Grouped():
            return jax.vmap(lambda books: pair_products(books.stacked().table()))(state.books)
        case Split():
            return beam_tables(state.first), beam_tables(state.rest)
        case Bottleneck():
            return beam_tables(state.inner)
        case _:
            return pair_products(state.stacked().table())


def decode(codes: Codes, state: State) -> Latents:
    levels = codes.shape[1]
    match state:
        case Grouped():
            books = jax.vmap(lambda b: b.first(_per_group(state, levels)))(state.books)
            batch, _, frames = codes.shape
            codes_BKGF = codes.reshape(batch, -1, state.groups, frames)
            parts_GBFD = jax.vmap(rvq.decode)(books, jnp.moveaxis(codes_BKGF, 2, 0))
            return jnp.concatenate(list(parts_GBFD), axis=-1)
        case Split():
            first, rest = _split_levels(state, levels)
            total = decode(codes[:, :first], state.first)
            return total + decode(codes[:, first:], state.rest) if rest else total
        case Bottleneck():
            return jnp.matmul(decode(codes, state.inner), state.up, precision=HIGHEST)
        case Strided():
            return rvq.decode(state.books.first(levels), codes)
        case _:
            return rvq.decode(state.first(levels), codes)


def quantize(
    state: State, latents: Latents, key: Key | None, mask_BF: Array, kept_B: Array, rules: Rules
) -> Quantized:
    match state:
        case Grouped():
            keys_G = None if key is None else jax.random.split(key, state.groups)
            # All groups of a level stay or go together.
            kept_B = -(-kept_B // state.groups)
            out = jax.vmap(
                lambda b, x, k: rvq.quantize(b, x, k, mask_BF, kept_B, rules),
                in_axes=(0, 0, None if key is None else 0),
            )(state.books, _grouped(latents, state.groups), keys_G)
            joined = jnp.concatenate(list(out.latents), axis=-1)
            by_level = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1), _by_level(out))
            return Quantized(joined, _level_major(out.codes), **by_level, state=Grouped(out.state))
        case Split():
            keys = (None, None) if key is None else jax.random.split(key)
            one = quantize(state.first, latents, keys[0], mask_BF, kept_B, rules)
            kept_B = kept_B - state.first.levels
            two = quantize(state.rest, latents, keys[1], mask_BF, kept_B, rules)
            codes = jnp.concatenate([one.codes, two.codes], axis=1)
            by_level = jax.tree.map(lambda *x: jnp.concatenate(x), _by_level(one), _by_level(two))
            total = one.latents + two.latents
            plain = isinstance(state.first, Lookup) and isinstance(state.rest, Lookup)
            if plain and not rules.per_level:
                # Each part passed the gradient on whole: their sum would pass it twice.
                total = rules.estimator(latents, jax.lax.stop_gradient(total))
            return Quantized(total, codes, **by_level, state=Split(one.state, two.state))
        case Bottleneck():
            inside = jnp.matmul(latents, state.down, precision=HIGHEST)
            out = quantize(state.inner, inside, key, mask_BF, kept_B, rules)
            outside = jnp.matmul(out.latents, state.up, precision=HIGHEST)
            return out._replace(latents=outside, state=Bottleneck(state.down, state.up, out.state))
        case Strided():
            strides = _whole(state, latents)
            out = rvq.quantize(state.books, latents, key, mask_BF, kept_B, rules, strides)
            return out._replace(state=Strided(out.state, state.strides))
        case _:
            return rvq.quantize(state, latents, key, mask_BF, kept_B, rules)


def start(key: Key, state: State, vectors: Vectors, *rest) -> State:
    match state:
        case Grouped():
            keys_G = jax.random.split(key, state.groups)
            parts_GMD = jnp.stack(jnp.split(vectors, state.groups, axis=1))
            books = jax.vmap(lambda *x: start(*x, *rest))(keys_G, state.books, parts_GMD)
            return Grouped(books)
        case Split():
            keys, parts = jax.random.split(key), (state.first, state.rest)
            pairs = zip(keys, parts, strict=True)
            return Split(*(start(k, part, vectors, *rest) for k, part in pairs))
        case Bottleneck():
            inside_ME = jnp.matmul(vectors, state.down, precision=HIGHEST)
            inner = start(key, state.inner, inside_ME, *rest)
            return Bottleneck(state.down, state.up, inner)
        case Strided():
            return Strided(start(key, state.books, vectors, *rest), state.strides)
        case Shared():
            return Shared(shared_kmeans(key, state.one, state.levels, vectors, *rest), state.levels)
        case QINCo():
            books = residual_kmeans(key, Codebooks.of(state.base), vectors, *rest)
            return dataclasses.replace(state, base=books.vectors)
        case SimVQ():
            books = residual_kmeans(key, Codebooks.of(state.frozen), vectors, *rest)
            eye = jnp.eye(state.dim, dtype=jnp.float32)
            return SimVQ(books.vectors, jnp.broadcast_to(eye, state.matrix.shape))
        case _:
            return residual_kmeans(key, state, vectors, *rest)


def sizes(state: State) -> int | Array:
    """Codes of each level: a number, or [K] where they differ."""
    match state:
        case Split():
            parts = (state.first, state.rest)
            return jnp.concatenate([jnp.broadcast_to(sizes(p), (p.levels,)) for p in parts])
        case Bottleneck():
            return sizes(state.inner)
        case Strided():
            return sizes(state.books)
        case Grouped():
            one = sizes(state.one)
            return jnp.repeat(one, state.groups) if jnp.ndim(one) else one
        case _:
            per_level = None if state.books is None else state.books.sizes
            return state.size if per_level is None else per_level


def _by_level(out: Quantized) -> dict:
    """What a result says of each level."""
    return {name: getattr(out, name) for name in ("commitment", "codebook", "entropy", "stats")}


def _grouped(latents: Latents, groups: int) -> Array:
    return jnp.stack(jnp.split(latents, groups, axis=-1))


def _level_major(codes_GBKF: Array) -> Codes:
    groups, batch, levels, frames = codes_GBKF.shape
    return codes_GBKF.transpose(1, 2, 0, 3).reshape(batch, levels * groups, frames)


def _per_group(state: Grouped, levels: int | None) -> int | None:
    if levels is not None and levels % state.groups:
        raise ValueError(f"levels must be a multiple of the {state.groups} groups, got {levels}")
    return None if levels is None else levels // state.groups


def _split_levels(state: Split, levels: int | None) -> tuple[int, int]:
    levels = state.levels if levels is None else levels
    if not 1 <= levels <= state.levels:
        raise ValueError(f"levels must be in 1..{state.levels}, got {levels}")
    first = min(levels, state.first.levels)
    return first, levels - first


def _whole(state: Strided, latents: Latents) -> tuple[int, ...]:
    frames = latents.shape[1]
    if len(state.strides) != state.levels or any(s < 1 or frames % s for s in state.strides):
        raise ValueError(
            f"{state.levels} levels need as many strides that divide {frames} frames, "
            f"got {state.strides}"
        )
    return state.strides
