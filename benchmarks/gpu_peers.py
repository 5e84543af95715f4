"""The peers' side of a run on a card, in torch: transformers' MusicGen, EnCodec's encode.

MusicGen is run as users call it, and with a static cache, for which transformers compiles the step
and records it as a graph. float32 products are TF32, as XLA's are by default, but in quantization.
`over_peer` is their time over ours; null where we have none.

Command:  benchmarks/gpu.sh
"""

import importlib.util
import time

import gpu_lines

parsed = gpu_lines.arguments(__doc__, ("peers",))

import jax  # noqa: E402

# Patterns and configs alone are ours here: the card is torch's.
jax.config.update("jax_platforms", "cpu")

import musicgen_cases as cases  # noqa: E402
import musicgen_peer  # noqa: E402
import numpy as np  # noqa: E402
import rvq_cases  # noqa: E402

from rvq_jax import patterns  # noqa: E402

STEPS = 32 if parsed.tiny else 256
FRAMES = 16 if parsed.tiny else 500
VECTORS = 500 if parsed.tiny else 96_000
DEVICE = "cpu" if parsed.tiny else "cuda"
CONFIG = cases.tiny() if parsed.tiny else cases.SIZES["small"]()
LINES = gpu_lines.Lines(parsed)


def timed(call, repeats: int) -> tuple[float, float]:
    """The least time of a call, and that of the one before."""
    began = time.perf_counter()
    call()
    first = time.perf_counter() - began
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times), first


def decode(model, dtype: str, batch: int, peer: str) -> dict:
    import torch

    model.to(getattr(torch, dtype))
    frames = STEPS - cases.DELAY
    if peer == "eager":
        # In bfloat16 a first call was seen to take three times as long as the second.
        spent, first = timed(lambda: musicgen_peer.draw(model, batch, frames), 1)
        more = {"first_step_ms": 1e3 * first / STEPS}
    else:
        call = musicgen_peer.StaticDraw(model, batch, frames)
        call()
        spent, again = timed(call, 1)
        spent, more = min(spent, again), {"compiled": call.compiled}
    step = spent / STEPS
    keys = {"size": "small", "dtype": dtype, "batch": batch}
    ours = LINES.least("decode", "step_ms", **keys)
    return {
        "step_ms": 1e3 * step,
        "steps_per_second": 1 / step,
        "real_time_factor": step * 50,
        "over_peer": gpu_lines.ratio(1e3 * step, ours),
        **more,
    }


def decoding(model, dtype: str, batch: int, peer: str, need: float) -> None:
    import torch

    keys = {"size": "small", "dtype": dtype, "batch": batch, "steps": STEPS, "peer": peer}
    LINES.attempt("decode_peer", keys, need, lambda: decode(model, dtype, batch, peer))
    # What was compiled for one shape or type would be guarded against in the next.
    model.__dict__.pop("_compiled_call", None)
    torch._dynamo.reset()


def train(model, batch: int, compiled: bool) -> dict:
    import torch

    model.to(torch.float32)
    pattern = patterns.named("delay", CONFIG.levels, FRAMES)
    shape = batch, CONFIG.levels, FRAMES
    codes = np.random.default_rng(0).integers(0, CONFIG.codebook_size, shape)
    tokens = np.asarray(pattern.interleave(codes.astype("int32"), fill=2048))
    call = musicgen_peer.training(model, tokens, autocast=True, compiled=compiled)
    call()
    spent, _ = timed(call, 3)
    flops = cases.training_flops(CONFIG, batch, pattern.steps)
    ours = LINES.least("train", "step_ms", size="small", batch=batch)
    return {
        "frames": FRAMES,
        "step_ms": 1e3 * spent,
        "tflops": flops / spent / 1e12,
        "mfu": gpu_lines.ratio(flops / spent, LINES.limit("matrix_bfloat16")),
        "over_peer": gpu_lines.ratio(1e3 * spent, ours),
    }


def training(model, compiled: bool, need: float) -> None:
    import torch

    peer = "compiled" if compiled else "eager"
    keys = {"size": "small", "dtype": "bfloat16", "batch": 8, "peer": peer}
    LINES.attempt("train_peer", keys, need, lambda: train(model, 8, compiled))
    model.zero_grad(set_to_none=True)
    model.eval()
    torch._dynamo.reset()


def rvq(dtype: str) -> dict:
    import torch

    torch.set_float32_matmul_precision("highest")
    latents_MD, books_KND = rvq_cases.problem(VECTORS)
    call = rvq_cases.torch_compiled(latents_MD, books_KND, dtype, DEVICE)
    call()
    spent, _ = timed(call, 10)
    ours = LINES.least("rvq_encode", "ms", dtype=dtype)
    return {"ms": 1e3 * spent, "over_peer": gpu_lines.ratio(1e3 * spent, ours)}


def peers() -> None:
    missing = [x for x in ("torch", "transformers") if importlib.util.find_spec(x) is None]
    if missing:
        LINES.emit("peers", {"peer": None, "missing": missing})
        return
    import torch

    torch.set_float32_matmul_precision("high")
    made = []

    def build() -> dict:
        made.append(musicgen_peer.build(CONFIG, DEVICE))
        return {"torch_device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"}

    if not LINES.attempt("peers", {"size": "small"}, 10, build):
        return
    (model,) = made
    decoding(model, "bfloat16", 1, "eager", 28)
    decoding(model, "bfloat16", 1, "static", 25)
    decoding(model, "bfloat16", 8, "eager", 28)
    for dtype in ("float32", "bfloat16"):
        keys = {"dtype": dtype, "vectors": VECTORS, "peer": "compiled"}
        LINES.attempt("rvq_encode_peer", keys, 10, lambda dtype=dtype: rvq(dtype))
    torch.set_float32_matmul_precision("high")
    decoding(model, "float32", 1, "eager", 12)
    training(model, False, 8)
    decoding(model, "float32", 8, "eager", 12)
    decoding(model, "bfloat16", 8, "static", 25)
    if DEVICE == "cuda":
        training(model, True, 30)
    decoding(model, "float32", 1, "static", 25)
    decoding(model, "float32", 8, "static", 25)


peers()
