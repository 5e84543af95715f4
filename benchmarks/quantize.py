"""Residual quantization beside its peers: greedy and beam encode, the training step, memory.

All get the same vectors and codebooks, repeats take turns, and the least time of each counts. A
ratio is the peer's time over ours; null is a peer that is not installed or has no such device.
faiss's tables of codebook products are made before its clock starts. On a GPU the one peer is
EnCodec's encode through torch.compile.

Command:  python benchmarks/quantize.py --device cpu
Target:   encode 8x transformers, 18x vector-quantize-pytorch, 4.5x faiss, at 75 % of the matrix
          rate and in at most 2x the memory of its inputs; beam 5 1.5x faiss with its table and
          within 0.1 % of its error
"""

import importlib.util
import time

import common

parsed = common.arguments(__doc__)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from rvq_cases import D, K, N, problem, torch_compiled  # noqa: E402

from rvq_jax import quantize  # noqa: E402

SMALL, LARGE = 6_000, 96_000
LONG = 512  # dimensions at which tables of codebook products pay
BEAM, THREADS, SQUARE = 5, 2, 2048
PEERS = "transformers", "vector_quantize_pytorch", "faiss"


def ours(function, *inputs):
    """A call that waits for its result, compiled before any clock starts."""
    compiled = jax.jit(function).lower(*inputs).compile()
    return lambda: jax.block_until_ready(compiled(*inputs))


def matmul():
    x = jnp.ones((SQUARE, SQUARE))
    return ours(lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST), x, x)


def transformers_encode(latents_MD, books_KND):
    import torch
    from transformers import EncodecConfig
    from transformers.models.encodec import modeling_encodec

    torch.set_num_threads(THREADS)
    config = EncodecConfig(codebook_size=N, codebook_dim=D, hidden_size=D)
    quantizer = modeling_encodec.EncodecResidualVectorQuantizer(config).eval()
    quantizer.layers = quantizer.layers[:K]
    for layer, book_ND in zip(quantizer.layers, books_KND, strict=True):
        layer.codebook.embed = torch.tensor(book_ND)
    latents_1DM = torch.tensor(latents_MD.T[None].copy())
    return torch.no_grad()(lambda: quantizer.encode(latents_1DM))


def torch_residual_vq(latents_MD, books_KND, train=False):
    import torch
    from vector_quantize_pytorch import ResidualVQ

    torch.set_num_threads(THREADS)
    quantizer = ResidualVQ(
        dim=D,
        codebook_size=N,
        num_quantizers=K,
        decay=0.99,
        threshold_ema_dead_code=2,
        rotation_trick=False,
    ).train(train)
    for layer, book_ND in zip(quantizer.layers, books_KND, strict=True):
        layer._codebook.embed.data.copy_(torch.tensor(book_ND)[None])
        layer._codebook.embed_avg.data.copy_(torch.tensor(book_ND)[None])
    latents_1MD = torch.tensor(latents_MD[None])
    return torch.no_grad()(lambda: quantizer(latents_1MD))


def faiss_quantizer(books_KND, beam):
    import faiss

    faiss.omp_set_num_threads(THREADS)
    quantizer = faiss.ResidualQuantizer(books_KND.shape[2], K, int(np.log2(N)))
    faiss.copy_array_to_vector(books_KND.reshape(-1), quantizer.codebooks)
    quantizer.is_trained = True
    quantizer.max_beam_size = beam
    quantizer.use_beam_LUT = int(beam > 1)
    if beam > 1:
        quantizer.compute_codebook_tables()
    return quantizer


def faiss_encode(latents_MD, books_KND):
    quantizer = faiss_quantizer(books_KND, 1)
    return lambda: quantizer.compute_codes(latents_MD)


def has(module):
    return importlib.util.find_spec(module) is not None


def encode_peers(latents_MD, books_KND):
    """The installed peers' encoders of these vectors, by name."""
    if parsed.device == "gpu":
        if not has("torch"):
            return {}
        import torch

        makers = {"torch_compile": torch_compiled} if torch.cuda.is_available() else {}
    else:
        makers = {
            "transformers": transformers_encode,
            "vector_quantize_pytorch": torch_residual_vq,
            "faiss": faiss_encode,
        }
        makers = {name: make for name, make in makers.items() if has(name)}
    return {name: make(latents_MD, books_KND) for name, make in makers.items()}


def interleaved(calls, repeats, warm=True):
    """Least seconds of each call; they take turns, so that noise hits all alike."""
    if warm:
        for call in calls.values():
            call()
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            least[name] = min(least[name], time.perf_counter() - began)
    return least


def ratio(least, peer, mine="ours"):
    return round(least[peer] / least[mine], 3) if peer in least else None


def encode_figures(count, repeats, warm):
    latents_MD, books_KND = problem(count)
    state, latents = quantize.Codebooks.of(books_KND), jnp.asarray(latents_MD)[None]
    calls = {"ours": ours(quantize.encode, state, latents), "matmul": matmul()}
    least = interleaved({**calls, **encode_peers(latents_MD, books_KND)}, repeats, warm)
    rate = 2 * count * D * K * N / least["ours"]
    square_rate = 2 * SQUARE**3 / least["matmul"]
    names = PEERS if parsed.device != "gpu" else ("torch_compile",)
    return {
        "ms": round(1e3 * least["ours"], 2),
        "gflops": round(rate / 1e9, 1),
        "square_matmul_gflops": round(square_rate / 1e9, 1),
        "share_of_matmul_rate": round(rate / square_rate, 3),
        "times_faster_than": {name: ratio(least, name) for name in names},
    }


def beam_figures(dim):
    """By residuals and by tables of codebook products, whose making is not timed, as faiss's."""
    latents_MD, books_KND = problem(SMALL, dim)
    state, latents = quantize.Codebooks.of(books_KND), jnp.asarray(latents_MD)[None]
    tables = quantize.beam_tables(state)
    calls = {
        "ours": ours(lambda s, x: quantize.encode(s, x, beam=BEAM), state, latents),
        "by_tables": ours(
            lambda s, x, t: quantize.encode(s, x, beam=BEAM, tables=t), state, latents, tables
        ),
        "greedy": ours(quantize.encode, state, latents),
    }
    if has("faiss") and parsed.device != "gpu":
        quantizer = faiss_quantizer(books_KND, BEAM)
        calls["faiss"] = lambda: quantizer.compute_codes(latents_MD)
    least = interleaved(calls, 5)

    def error(decoded_MD):
        return float(np.mean((latents_MD - np.asarray(decoded_MD)) ** 2))

    mine = error(quantize.decode(state, calls["ours"]())[0])
    theirs = error(quantizer.decode(calls["faiss"]())) if "faiss" in calls else None
    return {
        "ms": round(1e3 * least["ours"], 2),
        "ms_by_tables": round(1e3 * least["by_tables"], 2),
        "times_faster_than_faiss_table": ratio(least, "faiss"),
        "by_tables_times_faster_than_faiss_table": ratio(least, "faiss", "by_tables"),
        "error": mine,
        "error_by_tables": error(quantize.decode(state, calls["by_tables"]())[0]),
        "error_over_faiss": theirs and mine / theirs,
        "error_over_greedy": mine / error(quantize.decode(state, calls["greedy"]())[0]),
    }


def training_figures():
    latents_MD, books_KND = problem(SMALL)
    state, latents = quantize.Codebooks.of(books_KND), jnp.asarray(latents_MD)[None]

    def step(state, latents, key):
        out = quantize.quantize(state, latents, key=key, train=True)
        return out.latents, out.codes, out.commitment, out.state

    calls = {"ours": ours(step, state, latents, jax.random.key(0))}
    if has("vector_quantize_pytorch") and parsed.device != "gpu":
        calls["peer"] = torch_residual_vq(latents_MD, books_KND, train=True)
    least = interleaved(calls, 5)
    return {
        "ms": round(1e3 * least["ours"], 2),
        "times_faster_than_vector_quantize_pytorch": ratio(least, "peer"),
    }


def memory_figures():
    latents_MD, books_KND = problem(LARGE)
    inputs = quantize.Codebooks.of(books_KND), jnp.asarray(latents_MD)[None]
    used = jax.jit(quantize.encode).lower(*inputs).compile().memory_analysis()
    given = latents_MD.nbytes + books_KND.nbytes
    own = used.temp_size_in_bytes + used.output_size_in_bytes
    return {
        "temporary_mb": round(used.temp_size_in_bytes / 1e6, 1),
        "output_mb": round(used.output_size_in_bytes / 1e6, 1),
        "over_inputs_and_codebooks": round(own / given, 3),
    }


def compile_seconds(levels, repeats=5):
    """The least of some, each from nothing: one alone is mostly noise."""
    state = quantize.init(jax.random.key(0), levels, N, D)
    latents, least = jnp.zeros((1, SMALL, D)), float("inf")
    for _ in range(repeats):
        jax.clear_caches()
        began = time.perf_counter()
        jax.jit(quantize.encode).lower(state, latents).compile()
        least = min(least, time.perf_counter() - began)
    return round(least, 3)


def rounded_share():
    """Share of all codes that differ where the vectors are rounded to bfloat16 first."""
    latents_MD, books_KND = problem(SMALL)
    state, latents = quantize.Codebooks.of(books_KND), jnp.asarray(latents_MD)[None]
    codes, rounded = (quantize.encode(state, x) for x in (latents, latents.astype(jnp.bfloat16)))
    return float((codes != rounded).mean())


common.emit(
    parsed,
    "quantize",
    {
        "shape": {"dim": D, "levels": K, "size": N, "beam": BEAM},
        f"encode_{SMALL}": encode_figures(SMALL, repeats=7, warm=True),
        # Without a first call of its own: the small one has warmed all libraries.
        f"encode_{LARGE}": encode_figures(LARGE, repeats=2, warm=False),
        "beam": beam_figures(D),
        f"beam_dim_{LONG}": beam_figures(LONG),
        "training_step": training_figures(),
        "memory": memory_figures(),
        "compile_seconds": {levels: compile_seconds(levels) for levels in (4, 64)},
        "codes_changed_by_bfloat16": rounded_share(),
    },
)
