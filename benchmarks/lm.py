"""Token model: training steps and generation steps per second, beside the machine's matrix rate.

Command:  python benchmarks/lm.py --device cpu
Size:     the quickstart's model; delay pattern, 40 frames
"""

import common

parsed = common.arguments(__doc__)

import jax  # noqa: E402
import numpy as np  # noqa: E402

from rvq_jax.lm import forms  # noqa: E402
from rvq_jax.lm.conditions import text_condition  # noqa: E402
from rvq_jax.lm.model import LMConfig  # noqa: E402
from rvq_jax.lm.sampling import Sampling  # noqa: E402
from rvq_jax.patterns import padded_pattern  # noqa: E402
from rvq_jax.systems.decoding.programs import generate_codes  # noqa: E402
from rvq_jax.train import sharding  # noqa: E402
from rvq_jax.train.state import OptimizerConfig, make_program  # noqa: E402
from rvq_jax.train.tasks.lm import lm_task  # noqa: E402

BATCH, FRAMES = 8, 60
config = LMConfig(codebook_size=128, dim=128, layers=1, mlp_dim=256)
pattern = padded_pattern("delay", config.levels, FRAMES)
task = lm_task(config, pattern)
program = make_program(task, OptimizerConfig(), 250, sharding.make_mesh(devices=jax.devices()[:1]))
state = program.init(jax.random.key(0), task.aux)
rng = np.random.default_rng(0)
codes = rng.integers(0, config.codebook_size, (BATCH, config.levels, FRAMES)).astype(np.int32)
batch = {
    "codes": codes,
    "mask": np.ones((BATCH, FRAMES), bool),
    "text": rng.integers(1, 257, (BATCH, config.caption_bytes)).astype(np.int32),
    "index": np.arange(BATCH, dtype=np.int32),
}
holder = [state]


def step():
    holder[0], metrics = program.step(holder[0], batch)
    return metrics


train, first = common.seconds(step)
params = forms.unstack(config, holder[0].params)
forced = np.full_like(codes, -1)


def generate():
    key = jax.random.key(0)
    return generate_codes(
        config,
        params,
        pattern,
        {"text": text_condition(batch["text"])},
        key,
        forced,
        guidance=3.0,
        sampling=Sampling(top_k=64),
    )


drawn, first_drawn = common.seconds(generate)
count = sum(x.size for x in jax.tree.leaves(params))
# Six FLOPs per parameter and position: two forward, four backward. Embeddings are looked up.
embedded = config.levels * (config.codebook_size + 1) * config.dim + 257 * config.dim
flops = 6 * (count - embedded) * BATCH * pattern.steps
rate = common.matmul_rate()
common.emit(
    parsed,
    "lm",
    {
        "parameters": count,
        "batch": BATCH,
        "steps": pattern.steps,
        "training_steps_per_second": 1 / train,
        "training_gflops": flops / train / 1e9,
        "square_matmul_gflops": rate / 1e9,
        "share_of_matrix_rate": flops / train / rate,
        "training_compile_seconds": first - train,
        "generation_steps_per_second": pattern.steps / drawn,
        "generation_codes_per_second": BATCH * config.levels * FRAMES / drawn,
        "generation_compile_seconds": first_drawn - drawn,
    },
)
