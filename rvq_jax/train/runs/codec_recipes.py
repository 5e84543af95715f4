"""How published codecs were trained, for codecs of any size: losses, discriminators, optimizers."""

from dataclasses import replace

from rvq_jax import quantize
from rvq_jax.audio.augment import Augmentation
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.dac import DACConfig
from rvq_jax.codec.discriminators import (
    DiscriminatorsConfig,
    MultiBandConfig,
    MultiPeriodConfig,
    MultiScaleSTFTConfig,
)
from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs.codec import CodecRun, DACRun, MimiRun
from rvq_jax.train.state import OptimizerConfig
from rvq_jax.train.tasks.adversarial import AdversarialConfig
from rvq_jax.train.tasks.codec_losses import CodecLossConfig

UNCLIPPED = 1e6
ADAM = OptimizerConfig(
    learning_rate=3e-4,
    warmup=0,
    schedule="constant",
    b1=0.5,
    b2=0.9,
    weight_decay=0.0,
    clip=UNCLIPPED,
)


def encodec_recipe(
    codec: CodecConfig, updates: int = 600_000, batch: int = 64, judges: int = 32
) -> CodecRun:
    """Makes the run that trained EnCodec at 24 kHz (Défossez et al. 2022, §3.4 and §4).

    The balancer weighs L1 0.1, mel 1, adversarial 3 and feature matching 3. Discriminators are
    updated in two of three updates, as drawn; of the levels a multiple of four is kept, the same
    number for a whole batch.

    Args:
      codec: its sizes.
      updates: of the run.
      batch: crops of a second in each.
      judges: features of each layer of the discriminators.

    Returns:
      The run.
    """
    some = codec.levels > 4
    loss = CodecLossConfig(
        waveform=0.1,
        mel=1.0,
        mel_kind="encodec",
        balanced=True,
        commitment=1.0,
        relative=False,
        autoencoder_warmup=0,
        quantizer_dropout=1.0 if some else 0.0,
        prefixes=quantize.multiples(4, codec.levels) if some else (),
        prefix_per_batch=True,
        decay=0.99,
    )
    stft = MultiScaleSTFTConfig(codec.channels, judges)
    adversarial = AdversarialConfig(
        DiscriminatorsConfig(codec.rate, stft),
        optimizer=replace(ADAM, probability=2 / 3),
    )
    sound = Augmentation(gain_db=(-10.0, 6.0), mix=0.36)
    return CodecRun(codec, loss, adversarial, _loop(updates), ADAM, batch, 1.0, augmentation=sound)


def audiocraft_recipe(
    codec: CodecConfig, updates: int = 400_000, batch: int = 64, judges: int = 32
) -> CodecRun:
    """Makes the run that trained MusicGen's EnCodec at 32 kHz, as audiocraft's configs have it.

    The balancer weighs L1 0.1, mel 2, adversarial 4 and feature matching 4; all levels in every
    update (Copet et al. 2023).

    Args:
      codec: its sizes.
      updates: of the run.
      batch: crops of a second in each.
      judges: features of each layer of the discriminators.

    Returns:
      The run.
    """
    run = encodec_recipe(codec, updates, batch)
    loss = replace(run.loss, mel=2.0, quantizer_dropout=0.0, prefixes=(), prefix_per_batch=False)
    stft = MultiScaleSTFTConfig(codec.channels, judges, slope=0.3)
    adversarial = AdversarialConfig(
        DiscriminatorsConfig(codec.rate, stft), weight=4.0, features=4.0, optimizer=ADAM
    )
    return replace(run, loss=loss, adversarial=adversarial, augmentation=Augmentation())


def dac_recipe(
    codec: DACConfig,
    updates: int = 400_000,
    batch: int = 72,
    judges: tuple[MultiPeriodConfig, MultiBandConfig] | None = None,
) -> DACRun:
    """Makes the run that trained DAC at 44.1 kHz (Kumar et al. 2023, and its 44khz.yml).

    Fixed weights: mel 15, feature matching 2, adversarial 1, codebook 1 and commitment 0.25 for
    each level; least squares; half of the items keep a random number of levels.

    Args:
      codec: its sizes.
      updates: of the run.
      batch: crops of 0.38 s in each.
      judges: sizes of the discriminators of periods and of bands; the published ones by default.

    Returns:
      The run.
    """
    periods, bands = judges or (MultiPeriodConfig(), MultiBandConfig())
    loss = CodecLossConfig(
        waveform=0.0,
        mel=15.0,
        mel_kind="dac",
        # Published as sums over levels.
        commitment=0.25 * codec.levels,
        codebook=1.0 * codec.levels,
        relative=False,
        autoencoder_warmup=0,
    )
    adamw = replace(ADAM, learning_rate=1e-4, b1=0.8, b2=0.99, weight_decay=0.01, gamma=0.999996)
    adversarial = AdversarialConfig(
        DiscriminatorsConfig(codec.rate, None, periods=periods, bands=bands),
        "least_squares",
        weight=1.0,
        features=2.0,
        normalized=False,
        optimizer=replace(adamw, clip=10.0),
    )
    return DACRun(
        codec,
        loss,
        adversarial,
        _loop(updates),
        replace(adamw, clip=1000.0),
        batch,
        0.38,
        augmentation=Augmentation(loudness_db=-16.0, phase=1.0),
    )


def mimi_recipe(
    codec: MimiConfig, updates: int = 4_000_000, batch: int = 128, judges: int = 32
) -> MimiRun:
    """Makes the run that trained Mimi (Défossez et al. 2024, §3.3).

    Adversarial and feature matching losses alone, and the cosine distance of the semantic level to
    features of a speech model; half of the items are not quantized; weight decay on transformers.

    Args:
      codec: its sizes.
      updates: of the run.
      batch: crops of 12 s in each.
      judges: features of each layer of the discriminators.

    Returns:
      The run.
    """
    loss = CodecLossConfig(
        waveform=0.0,
        mel=0.0,
        commitment=1.0,
        relative=False,
        distillation=1.0,
        autoencoder_warmup=0,
        quantizer_dropout=1.0,
        unquantized=0.5,
        decay=0.99,
    )
    stft = MultiScaleSTFTConfig(codec.channels, judges)
    adamw = replace(ADAM, learning_rate=8e-4)
    adversarial = AdversarialConfig(
        DiscriminatorsConfig(codec.rate, stft), weight=4.0, features=4.0, optimizer=adamw
    )
    decayed = replace(adamw, weight_decay=0.05, decayed=("middle",))
    return MimiRun(codec, loss, adversarial, _loop(updates), decayed, batch, 12.0)


def _loop(updates: int) -> LoopConfig:
    return LoopConfig(updates, log_every=100, checkpoint_every=min(2000, max(1, updates // 4)))
