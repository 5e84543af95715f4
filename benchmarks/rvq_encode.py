"""Residual vector quantization: encode beside the same products alone and a plain argmin.

Command:  python benchmarks/rvq_encode.py --device cpu
Target:   at least 60 % of the machine's rate on the same matrix products
"""

import common

parsed = common.arguments(__doc__)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from rvq_jax import quantize  # noqa: E402

M, D, K, N = 6000, 128, 8, 2048
HIGHEST = jax.lax.Precision.HIGHEST


@jax.jit
def products(vectors_MD, books_KND):
    """The matrix products of K levels and nothing else."""

    def level(x_MD, book_ND):
        scores_MN = jnp.matmul(x_MD, book_ND.T, precision=HIGHEST)
        # A dependence that costs nothing, so that no product is dropped or hoisted.
        return x_MD + 1e-20 * scores_MN[:, : x_MD.shape[1]], None

    return jax.lax.scan(level, vectors_MD, books_KND)[0]


@jax.jit
def plain(vectors_MD, books_KND):
    """The same codes by an argmin over all distances."""

    def level(x_MD, book_ND):
        product_MN = jnp.matmul(x_MD, book_ND.T, precision=HIGHEST)
        codes_M = jnp.argmin(jnp.sum(book_ND**2, 1)[None] - 2 * product_MN, axis=1)
        return x_MD - book_ND[codes_M], codes_M

    return jax.lax.scan(level, vectors_MD, books_KND)[1]


state = quantize.init(jax.random.key(0), K, N, D)
vectors = jax.random.normal(jax.random.key(1), (1, M, D))
encode, compile_seconds = common.seconds(jax.jit(quantize.encode), state, vectors)
alone, _ = common.seconds(products, vectors[0], state.vectors)
argmin, _ = common.seconds(plain, vectors[0], state.vectors)
flops = 2 * M * D * K * N
common.emit(
    parsed,
    "rvq_encode",
    {
        "shape": {"vectors": M, "dim": D, "levels": K, "size": N},
        "encode_ms": 1e3 * encode,
        "products_alone_ms": 1e3 * alone,
        "plain_argmin_ms": 1e3 * argmin,
        "gflops": flops / encode / 1e9,
        "products_alone_gflops": flops / alone / 1e9,
        "square_matmul_gflops": common.matmul_rate() / 1e9,
        "share_of_products_alone": alone / encode,
        "times_faster_than_plain": argmin / encode,
        "compile_seconds": compile_seconds,
    },
)
