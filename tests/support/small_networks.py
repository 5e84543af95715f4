"""Two networks trained together: a codec whose codebooks learn by means, and a critic of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from small_runs import audio_records

from rvq_jax import config as configs
from rvq_jax import quantize
from rvq_jax.codec.autoencoder import graph
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.data import loader
from rvq_jax.lm.transformer import weight
from rvq_jax.systems.codec import Codec
from rvq_jax.train import hosts
from rvq_jax.train.loop import LoopConfig, fit, open_run
from rvq_jax.train.runs import Run
from rvq_jax.train.runs.batches import batches_of
from rvq_jax.train.state import OptimizerConfig, Task

WINDOW = 16
SEANET = SEANetConfig(filters=2, dim=4, ratios=(8,), lstm_layers=0)


class Critic(nnx.Module):
    """Windows `[B, S / W, W]` of audio to how real each is."""

    def __init__(self, rngs: nnx.Rngs):
        self.up = weight(rngs, (WINDOW, 8), ("embed", "mlp"), WINDOW)
        self.out = weight(rngs, (8,), ("mlp",), 8)

    def __call__(self, audio):
        x = audio[..., 0].reshape(len(audio), -1, WINDOW)
        return jnp.tanh(x @ self.up[...]) @ self.out[...]


class Books(NamedTuple):
    """What no optimizer moves."""

    books: quantize.Codebooks


@dataclass(frozen=True)
class AdversarialRun(Run):
    """A generator with codebooks by running means, and a critic updated every other step."""

    codec: CodecConfig = field(default_factory=lambda: CodecConfig(8_000, SEANET, 2, 16))
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=6, log_every=1, checkpoint_every=2)
    )
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-3, warmup=1)
    )
    critic: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=2e-3, warmup=1, b1=0.5, weight_decay=0.0, clip=0.5, every=2
        )
    )
    batch: int = 8
    samples: int = 512

    def task(self) -> Task:
        critic_graph = nnx.graphdef(nnx.eval_shape(lambda: Critic(nnx.Rngs(0))))

        def init(key):
            rngs = nnx.Rngs(params=key)
            generator = nnx.state(self.codec.build(rngs), nnx.Param)
            return {"generator": generator, "critic": nnx.state(Critic(rngs), nnx.Param)}

        def loss(params, aux, batch, key):
            model = nnx.merge(graph(self.codec), params["generator"])
            critic = nnx.merge(critic_graph, params["critic"])
            judge = nnx.merge(critic_graph, jax.lax.stop_gradient(params["critic"]))
            audio = batch["audio"]
            out = quantize.quantize(
                aux.books, model.encoder(audio), key=key, train=True, learning=quantize.EMA(0.9)
            )
            made = model.decoder(out.latents)[:, : audio.shape[1]]
            generator = jnp.square(audio - made).mean() - 0.01 * judge(made).mean()
            fake = critic(jax.lax.stop_gradient(made))
            hinge = jax.nn.relu(1.0 - critic(audio)).mean() + jax.nn.relu(1.0 + fake).mean()
            metrics = {"generator": generator, "critic": hinge}
            return generator + hinge, (Books(out.state), metrics)

        def evaluate(params, aux, batch):
            model = nnx.merge(graph(self.codec), params["generator"])
            audio = batch["audio"]
            out = quantize.quantize(aux.books, model.encoder(audio))
            made = model.decoder(out.latents)[:, : audio.shape[1]]
            return {"loss": jnp.square(audio - made).sum()}, audio.size

        books = Books(self.codec.quantizer(jax.random.key(0)))
        networks = {"generator": self.optimizer, "critic": self.critic}
        return Task(init, books, loss, optimizers=networks, evaluate=evaluate)

    def batch_shapes(self):
        rows = self.batch, self.samples
        return {
            "index": jax.ShapeDtypeStruct(rows[:1], "int32"),
            "audio": jax.ShapeDtypeStruct((*rows, 1), "float32"),
            "mask": jax.ShapeDtypeStruct(rows, "bool"),
        }

    def train(self, folder, data, mesh, *, codec=None, text=None, monitoring=None) -> Codec:
        open_run(Path(folder), configs.to_dict(self))
        state = fit(folder, self.task(), self.batches(mesh), self.loop, self.optimizer, mesh=mesh)
        params = hosts.fetch(state.ema["generator"])
        return Codec(self.codec, params, hosts.fetch(state.aux.books))

    def batches(self, mesh):
        return batches_of(audio_records(), loader.cut_audio(self.samples), self, mesh)


RUN = AdversarialRun()
