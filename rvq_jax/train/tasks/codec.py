"""What training a codec means: reconstruction, and codebooks that learn beside the gradient."""

import functools
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax import draws, metrics, quantize
from rvq_jax.audio.augment import Augmentation, augment
from rvq_jax.codec import balancer as balancers
from rvq_jax.codec import losses
from rvq_jax.codec.autoencoder import graph, latents, loudness
from rvq_jax.codec.balancer import Balancer
from rvq_jax.codec.discriminators import init_params as init_discriminators
from rvq_jax.codec.edges import Edges
from rvq_jax.quantize import Quantized, State
from rvq_jax.quantize.learn import Learning
from rvq_jax.quantize.moved import divide, settled, unite
from rvq_jax.systems.codec import Codec, Config
from rvq_jax.train.state import OptimizerConfig, Task
from rvq_jax.train.tasks.adversarial import AdversarialConfig
from rvq_jax.train.tasks.codec_losses import (
    CodecLossConfig,
    distances,
    output_loss,
    output_weights,
    quantizer_loss,
    semantic_latents,
)
from rvq_jax.typing import Array, Audio, Key, Latents

CODEC, DISCRIMINATORS = "codec", "discriminators"  # networks of a run
CODEWORDS = "codewords"  # of a running mean, beside the parts below
Parts = dict[str, Any]  # encoder, decoder, quantizer: those of its arrays that an optimizer moves


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what one update of a codec is."""

    config: Config
    loss: CodecLossConfig = field(default_factory=CodecLossConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)  # of the codec
    trained: Literal["all", "decoder"] = "all"
    augmentation: Augmentation = field(default_factory=Augmentation)
    features: int = 1024  # dimensions of those that are distilled; WavLM large has so many

    @property
    def learning(self) -> Learning:
        """How the codebooks learn: those in few dimensions by gradient, others by running means."""
        if self.trained == "decoder":
            return quantize.Frozen()
        if isinstance(quantizer_shapes(self.config), quantize.Projected):
            return quantize.Gradient()
        return quantize.EMA(self.loss.decay, self.loss.expiry)


class CodecAux(NamedTuple):
    """What no optimizer moves."""

    books: dict[str, Array]  # of the quantizer, by name
    started: Array  # whether codebooks have: before that latents pass as they are
    fixed: Parts  # of the codec, not trained
    updates: Array  # done
    balancer: Balancer | None


class Passed(NamedTuple):
    """A batch on its way through a codec."""

    latents: Latents  # [B, F, D]
    mask: Array  # [B, F]
    quantized: Quantized
    decoded: Audio  # [B, S, C]


@functools.lru_cache(maxsize=32)
def quantizer_shapes(config: Config) -> State:
    """The quantizer of a codec, in shapes."""
    return jax.eval_shape(lambda: config.quantizer(jax.random.key(0)))


def codec_task(
    recipe: Recipe,
    codebook_batches: int = 8,
    codec: Codec | None = None,
    discriminators: nnx.State | None = None,
    seed: int = 0,
) -> Task:
    """Reconstruction of batches of audio `[B, S, C]` with mask `[B, S]` (False: padding).

    What is evaluated and saved is the running mean of the weights, and codewords that fit it.
    Those that an optimizer moves are averaged alike. Those that follow running means lag behind the
    newest encoder by themselves, and are averaged by so much less that they lag as the mean encoder
    does: the newest ones fit it where both decays are equal, and means of those would be too old.

    Args:
      recipe: the codec and its losses.
      codebook_batches: batches on which codebooks start.
      codec: what the run begins with; random weights for None.
      discriminators: parameters that they begin with; random ones for None.
      seed: of what is random beside a codec that is given.

    Returns:
      The task.
    """
    config, weights, rule = recipe.config, recipe.loss, recipe.learning
    judges = recipe.adversarial.discriminators
    starts = codec is None and isinstance(rule, quantize.EMA)

    def init(key: Key) -> dict:
        codec_key, judge_key, head_key = jax.random.split(key, 3)
        return networks(Codec.init(config, codec_key), judge_key, head_key)

    def networks(codec: Codec, judge_key: Key, head_key: Key, judging=None) -> dict:
        parts = {"decoder": codec.params["decoder"]}
        if recipe.trained == "all":
            moved, _ = divide(codec.quantizer, rule)
            parts |= {"encoder": codec.params["encoder"], "quantizer": moved}
        if weights.distillation:
            head = draws.normal(head_key, (config.dim, recipe.features), config.dim**-0.5)
            parts["head"] = nnx.Param(head, axes=("embed", None))
        found = {CODEC: parts}
        if recipe.adversarial.on:
            random = init_discriminators(judges, judge_key) if judging is None else judging
            found[DISCRIMINATORS] = random
        return found

    def init_codebooks(params, aux, batches, key):
        parts = aux.fixed | params[CODEC]
        model = nnx.State({name: parts[name] for name in ("encoder", "decoder")})
        heard = [_unscaled(config, batch["audio"], batch["mask"])[0] for batch in batches]
        frames = [latents(config, model, audio) for audio in heard]
        vectors = jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in frames])
        state = _quantizer(config, aux, parts)
        books = divide(jax.jit(quantize.start)(key, state, vectors), rule)[1]
        return aux._replace(books=books, started=jnp.array(True))

    def loss(params, aux, batch, key):
        parts, audio, mask = aux.fixed | params[CODEC], batch["audio"], batch["mask"]
        # A key that is not one of those which `key` is split into.
        audio = augment(jax.random.fold_in(key, 2), audio, mask, recipe.augmentation, config.rate)
        passed = _forward(recipe, aux, parts, audio, mask, key)
        total, balancer, found = output_loss(
            weights,
            recipe.adversarial,
            params.get(DISCRIMINATORS),
            aux.balancer,
            aux.updates,
            audio,
            passed.decoded,
            config.rate,
        )
        of_codes, more = quantizer_loss(
            weights,
            passed.latents,
            passed.quantized,
            aux.started,
            isinstance(rule, quantize.Gradient),
        )
        total, found = total + of_codes, found | more
        if weights.distillation:
            quantizer = _quantizer(config, aux, parts)
            said = semantic_latents(quantizer, passed.latents) @ parts["head"][...]
            found["distillation"] = losses.distillation(said, batch["features"], passed.mask)
            total += weights.distillation * found["distillation"]
        books = divide(passed.quantized.state, rule)[1]
        aux = aux._replace(books=books, updates=aux.updates + 1, balancer=balancer)
        return total, (aux, found)

    def averaged(params, aux):
        mean = {"decoder": params[CODEC]["decoder"]}
        if recipe.trained == "decoder":
            return mean
        codewords = {name: x for name, x in aux.books.items() if name.endswith("vectors")}
        moved = {name: params[CODEC][name] for name in ("encoder", "quantizer")}
        return mean | moved | {CODEWORDS: codewords}

    def evaluate(mean, aux, batch):
        return _evaluate(recipe, aux, aux.fixed | mean, batch)

    if codec is None:
        quantizer = config.quantizer(jax.random.key(0))
    else:
        quantizer = settled(codec.quantizer)
    fixed = {}
    if recipe.trained == "decoder":
        fixed = {"encoder": codec.params["encoder"], "quantizer": {}}
    aux = CodecAux(
        divide(quantizer, rule)[1],
        jnp.array(not starts),
        fixed,
        jnp.zeros((), jnp.int32),
        balancers.init(output_weights(weights, recipe.adversarial)) if weights.balanced else None,
    )
    init_params = None
    if codec is not None:
        init_params = networks(codec, *jax.random.split(jax.random.key(seed)), discriminators)
    averages = isinstance(rule, quantize.EMA) and rule.decay < 1.0
    lags = {CODEWORDS: rule.decay / (1.0 - rule.decay)} if averages else {}
    each = {CODEC: recipe.optimizer, DISCRIMINATORS: recipe.adversarial.optimizer}
    return Task(
        init,
        aux,
        loss,
        init_codebooks if starts else None,
        codebook_batches,
        weights.autoencoder_warmup,
        init_params,
        optimizers=each if recipe.adversarial.on else None,
        averaged=averaged,
        lags=lags,
        evaluate=evaluate,
        # What is shared is kept, and with it what the functions hold: no weights of others.
        alike=("codec", recipe) if codec is None else None,
    )


def mean_codec(config: Config, mean: Parts, aux: CodecAux) -> Codec:
    """The codec that is evaluated and saved: the running means of a run."""
    parts = aux.fixed | mean
    quantizer = _quantizer(config, aux, parts)
    return Codec(config, nnx.State({n: parts[n] for n in ("encoder", "decoder")}), quantizer)


def _forward(
    recipe: Recipe, aux: CodecAux, parts: Parts, audio: Audio, mask_BS: Array, key: Key
) -> Passed:
    """Training's way through: levels and quantization are dropped, codebooks learn."""
    config, weights, rule = recipe.config, recipe.loss, recipe.learning
    quantizer_key, pass_key = jax.random.split(key)
    quantizer = _quantizer(config, aux, parts)

    def middle(latents_BFD: Latents) -> Quantized:
        # A frame counts if its first sample does.
        mask_BF = mask_BS[:, :: config.hop][:, : latents_BFD.shape[1]]
        return quantize.quantize(
            quantizer,
            latents_BFD,
            key=quantizer_key,
            train=True,
            mask=mask_BF,
            learning=rule,
            dropout=weights.dropout(),
            per_level=isinstance(rule, quantize.Gradient),
        )

    def quantized_latents(latents_BFD: Latents, out: Quantized) -> Latents:
        passes_B = ~aux.started
        if weights.unquantized:
            keys_B = jax.vmap(jax.random.fold_in, (None, 0))(pass_key, jnp.arange(len(audio)))
            drawn_B = jax.vmap(jax.random.bernoulli, (0, None))(keys_B, weights.unquantized)
            passes_B = passes_B | drawn_B
        return jnp.where(jnp.reshape(passes_B, (-1, 1, 1)), latents_BFD, out.latents)

    return _pass(config, parts, audio, mask_BS, middle, quantized_latents)


def _pass(config: Config, parts: Parts, audio: Audio, mask_BS: Array, middle, choose) -> Passed:
    """Through encoder, a quantizer and decoder, at unit loudness where the codec wants that."""
    model = nnx.merge(graph(config), nnx.State({n: parts[n] for n in ("encoder", "decoder")}))
    heard, scale = _unscaled(config, audio, mask_BS)
    latents_BFD = model.encoder(heard)
    out = middle(latents_BFD)
    decoded = model.decoder(choose(latents_BFD, out))[:, : audio.shape[1]] * scale
    mask_BF = mask_BS[:, :: config.hop][:, : latents_BFD.shape[1]]
    return Passed(latents_BFD, mask_BF, out, decoded * mask_BS[..., None])


def _unscaled(config: Config, audio: Audio, mask_BS: Array) -> tuple[Audio, Array | float]:
    """What an encoder is given, and what its decoder's audio is multiplied by."""
    if not config.normalize:
        return audio, 1.0
    lengths_B = mask_BS.sum(axis=1)
    scale = loudness(audio, Edges(jnp.zeros_like(lengths_B), lengths_B))[:, None, None]
    return audio / scale, scale


def _quantizer(config: Config, aux: CodecAux, parts: Parts) -> State:
    """Of parameters, or of a running mean of them and of codewords."""
    shapes, codewords = quantizer_shapes(config), parts.get(CODEWORDS, {})
    return unite(shapes, aux.books, parts["quantizer"], codewords)


def _evaluate(recipe: Recipe, aux: CodecAux, parts: Parts, batch: dict) -> tuple[dict, Array]:
    """Sums over items of distances and metrics, and what they are means over."""
    config, weights = recipe.config, recipe.loss
    audio, mask_BS = batch["audio"], batch["mask"]
    quantizer = _quantizer(config, aux, parts)

    def middle(latents_BFD: Latents) -> Quantized:
        # By the codebooks also where they have not started: so the codec would be saved.
        return quantize.quantize(quantizer, latents_BFD)

    passed = _pass(config, parts, audio, mask_BS, middle, lambda _, out: out.latents)
    # Of a crop with padding the losses are means over all of it: that much is not theirs.
    share_B = mask_BS.mean(axis=1)
    found = jax.vmap(lambda *pair: distances(weights, *pair, config.rate))(
        audio[:, None], passed.decoded[:, None]
    )
    weighted = [getattr(weights, name) * x_B for name, x_B in found.items()]
    signals = audio.mean(axis=-1), passed.decoded.mean(axis=-1)
    found |= {
        "si_sdr": share_B * metrics.si_sdr(*signals, mask_BS),
        "mel_distance": share_B * metrics.mel_distance(*signals, config.rate, mask_BS),
    }
    # Mimi's recipe has no distance, and what discriminators say tells nothing of one codec.
    found["loss"] = sum(weighted) if weighted else found["mel_distance"]
    return {name: x_B.sum() for name, x_B in found.items()}, share_B.sum()
