"""MusicGen beside transformers on the same cores: milliseconds per step, memory, a training step.

Both have the same random weights of a published size (its token model; text encoder and codec are
small, so that they cost nothing) and draw with guidance 3 and top-k 250; repeats take turns, those
of a training step follow one another, and the least time counts. The bound is reading every weight
that a step needs once at the machine's bandwidth. A ratio is the peer's time over ours; null is a
peer that is not installed.

Command:  python benchmarks/generate.py --device cpu
          python benchmarks/generate.py --device gpu --size medium --dtype bfloat16
Target:   2x transformers, 70 % of the bandwidth at batch 1; training 1.2x
"""

import argparse
import dataclasses
import importlib.util
import tempfile
import time
from pathlib import Path

import common

PARSER = argparse.ArgumentParser(add_help=False)
PARSER.add_argument("--size", choices=("small", "medium", "large"), default="small")
PARSER.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
PARSER.add_argument("--batch", nargs="+", type=int, default=[1, 4, 16])
PARSER.add_argument("--steps", nargs="+", type=int, default=[500, 100, 50], help="for each batch")
PARSER.add_argument("--no-training", action="store_true")
parsed = common.arguments(__doc__, PARSER)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from rvq_jax import files, patterns  # noqa: E402
from rvq_jax.codec.config import CodecConfig  # noqa: E402
from rvq_jax.codec.seanet import SEANetConfig  # noqa: E402
from rvq_jax.lm import forms  # noqa: E402
from rvq_jax.lm.conditions import condition  # noqa: E402
from rvq_jax.lm.model import teacher_inputs  # noqa: E402
from rvq_jax.lm.sampling import Sampling  # noqa: E402
from rvq_jax.systems.decoding import programs, windows  # noqa: E402
from rvq_jax.systems.musicgen import sizes  # noqa: E402
from rvq_jax.train import sharding  # noqa: E402
from rvq_jax.train.state import OptimizerConfig, make_program  # noqa: E402
from rvq_jax.train.tasks.lm import lm_task  # noqa: E402

SIZES = {
    "small": sizes.musicgen_small,
    "medium": sizes.musicgen_medium,
    "large": sizes.musicgen_large,
}
CONFIG = dataclasses.replace(SIZES[parsed.size](), dtype=parsed.dtype)
TOKENS, THREADS = 16, 2


def bandwidth() -> float:
    """Bytes per second of reading a gigabyte, summed on the device."""
    x = jnp.ones(2**28, jnp.float32)
    best, _ = common.seconds(jax.jit(jnp.sum), x)
    return x.nbytes / best


def peer():
    """transformers' model of the size, with a text encoder and a codec of no weight."""
    import torch
    import transformers

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    text = transformers.T5Config(vocab_size=99, d_model=768, d_kv=8, d_ff=16, num_layers=1)
    seanet = SEANetConfig(filters=2, dim=8, ratios=(4, 4), causal=False, true_skip=True)
    codec = CodecConfig(800, seanet, levels=4, codebook_size=2048)
    from rvq_jax.convert import encodec

    decoder = {
        "hidden_size": CONFIG.dim,
        "num_hidden_layers": CONFIG.layers,
        "num_attention_heads": CONFIG.heads,
        "ffn_dim": CONFIG.mlp_dim,
        "dropout": 0.0,
    }
    config = transformers.MusicgenConfig(
        text_encoder=text.to_dict(), audio_encoder=encodec.to_fields(codec), decoder=decoder
    )
    model = transformers.MusicgenForConditionalGeneration(config).eval()
    settings = model.generation_config
    settings.pad_token_id = settings.bos_token_id = settings.decoder_start_token_id = 2048
    return model


def their_draw(model, batch: int, frames: int):
    import torch

    inputs = {
        "input_ids": torch.full((batch, TOKENS), 5),
        "attention_mask": torch.ones(batch, TOKENS, dtype=torch.long),
    }
    how = {"do_sample": True, "guidance_scale": 3.0, "top_k": 250}
    with torch.no_grad():
        model.generate(**inputs, **how, max_new_tokens=frames + 3)


def our_params(model):
    """The peer's weights, or random ones."""
    if model is None:
        rng = np.random.default_rng(0)
        shapes = forms.abstract(CONFIG)
        draw = lambda x: 0.02 * rng.standard_normal(x.shape, np.float32)  # noqa: E731
        params = jax.tree.map(draw, shapes)
    else:
        from rvq_jax.systems.musicgen import MusicGen

        with tempfile.TemporaryDirectory() as path:
            model.save_pretrained(path)
            write_tokenizer(Path(path))
            params = MusicGen.load(path).params
    return jax.device_put(jax.tree.map(lambda x: x.astype(parsed.dtype), params))


def write_tokenizer(folder: Path) -> None:
    import tokenizers

    words = tokenizers.models.WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>")
    tokenizers.Tokenizer(words).save(str(folder / "tokenizer.json"))


def generation(params, model, batch: int, steps: int, rate: float) -> dict:
    """One case: `steps` steps of `batch` rows, guided."""
    frames = steps - 3
    forced = np.full((batch, 4, frames), -1, np.int32)
    window = windows.window_of("delay", forced, np.full(batch, frames))
    states = np.random.default_rng(0).normal(size=(batch, TOKENS, 768)).astype(np.float32)
    conditions = {"text": condition(jnp.asarray(states))}
    args = (
        CONFIG,
        params,
        window.pattern,
        conditions,
        jax.random.key(0),
        window.forced,
        window.lengths,
    )
    how = {"guidance": 3.0, "sampling": Sampling(1.0, 250, 0.0)}
    began = time.perf_counter()
    compiled = programs.generate_codes.lower(*args, **how).compile()
    compile_seconds = time.perf_counter() - began
    calls = {"ours": lambda: jax.block_until_ready(compiled(*args[1:], **how))}
    if model is not None:
        calls["theirs"] = lambda: their_draw(model, batch, frames)
    best = common.least(calls, 2)
    read = sum(x.nbytes for name, x in files.named(params).items() if is_read(name))
    weights = sum(x.nbytes for x in jax.tree.leaves(params))
    item = jnp.dtype(parsed.dtype).itemsize
    cache = 2 * CONFIG.layers * 2 * batch * (window.pattern.steps + TOKENS) * CONFIG.dim * item
    memory = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    ours = best["ours"] / steps
    return {
        "size": parsed.size,
        "dtype": parsed.dtype,
        "batch": batch,
        "rows": 2 * batch,
        "steps": steps,
        "step_ms": 1e3 * ours,
        "over_peer": best["theirs"] / best["ours"] if model is not None else None,
        "real_time_factor": ours * 50,
        "read_gb_per_step": read / 1e9,
        "bandwidth_gb_per_second": rate / 1e9,
        "share_of_bandwidth": read / ours / rate,
        "compile_seconds": compile_seconds,
        "memory_gb": used / 1e9,
        "memory_over_weights_and_cache": used / (weights + cache),
    }


def is_read(name: str) -> bool:
    """Whether a step reads all of a weight: not tables of words, nor what reads the text once."""
    once = name.startswith("embed") or "attend_cross/key_value" in name
    return not once and not name.startswith("readers/")


def training(model) -> dict:
    """A step of AdamW on two clips of two seconds."""
    batch, frames = 2, 100
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    pattern = patterns.named("delay", 4, frames)
    task = lm_task(dataclasses.replace(CONFIG, remat=False), pattern)
    program = make_program(task, OptimizerConfig(), 1000, mesh)
    holder = [program.init(jax.random.key(0), task.aux)]
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2048, (batch, 4, frames)).astype(np.int32)
    data = {
        "codes": codes,
        "mask": np.ones((batch, frames), bool),
        "states": rng.normal(size=(batch, TOKENS, 768)).astype(np.float32),
        "text_mask": np.ones((batch, TOKENS), bool),
        "index": np.arange(batch, dtype=np.int32),
    }

    def ours():
        holder[0], metrics = program.step(holder[0], data)
        jax.block_until_ready(metrics)

    began = time.perf_counter()
    ours()
    first = time.perf_counter() - began
    calls = {"ours": ours}
    if model is not None:
        calls["theirs"] = their_training(model, np.asarray(pattern.interleave(codes, fill=2048)))
    # One after the other, as a run goes: with turns each would pay for memory the other let go.
    best = {name: common.least({name: call}, 3)[name] for name, call in calls.items()}
    count = sum(x.size for name, x in files.named(holder[0].params).items() if "embed" not in name)
    flops = 6 * count * batch * pattern.steps
    rate = common.matmul_rate()
    return {
        "size": parsed.size,
        "batch": batch,
        "frames": frames,
        "step_seconds": best["ours"],
        "over_peer": best["theirs"] / best["ours"] if model is not None else None,
        "compile_seconds": first - best["ours"],
        "gflops": flops / best["ours"] / 1e9,
        "share_of_matrix_rate": flops / best["ours"] / rate,
    }


def their_training(model, tokens_BKT: np.ndarray):
    """Forward, backward, clipping and AdamW of the same sizes in torch."""
    import torch

    # Weight decay and clipping as ours; their text encoder and codec do not train.
    trained = [*model.decoder.parameters(), *model.enc_to_dec_proj.parameters()]
    tune = torch.optim.AdamW(trained, 1e-3, (0.9, 0.95), weight_decay=0.1)
    inputs = {
        "input_ids": torch.full((len(tokens_BKT), TOKENS), 5),
        "attention_mask": torch.ones(len(tokens_BKT), TOKENS, dtype=torch.long),
        "labels": torch.tensor(tokens_BKT.swapaxes(1, 2), dtype=torch.long),
        # Given here, as its own shift of the labels reads a field that its config lacks.
        "decoder_input_ids": torch.tensor(
            np.asarray(teacher_inputs(tokens_BKT, 2048)).reshape(-1, tokens_BKT.shape[2])
        ).long(),
    }
    model.freeze_text_encoder()
    model.freeze_audio_encoder()
    model.train()

    def step():
        tune.zero_grad()
        model(**inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        tune.step()

    return step


theirs = None
if parsed.device == "cpu" and importlib.util.find_spec("transformers"):
    theirs = peer()
params = our_params(theirs)
rate = bandwidth()
for batch, steps in zip(parsed.batch, parsed.steps, strict=False):
    common.emit(parsed, "generate", generation(params, theirs, batch, steps, rate))
if not parsed.no_training:
    del params
    common.emit(parsed, "train_lm", training(theirs))
