"""The codec that comes with the library: 16 kHz, causal, 50 frames per second, 8 levels of 1024.

4 million weights, codebooks included, between learned filterbanks, which learn waveforms on a
processor sooner than a SEANet of that size (experiments/codec/forms.py). The rate is constant up to
a cool-down, so that training goes on whenever there is a machine to spare: from a run's folder with
more --loop.steps, or from the weights and discriminators of the last step with --init-from.

Two runs made it. The first learned waveforms: at the decoder's output the gradient of the mel
distance is by weight hundreds of times that of L1. The second went on from there with weights under
which both distances count. The third, as it is written here, goes on from the second with
discriminators and balanced gradients; it was better in all but DNSMOS, and did not take the place.

Command:  python experiments/codec/corpus.py --out runs/corpus --audio FOLDER --pieces
          rvq-jax data build runs/corpus --out runs/audio_16khz
          python experiments/codec/heldout.py runs/audio_16khz runs/corpus
          alone="--adversarial.optimizer.start 20000 --loss.no-balanced --batch 16 --seconds 1"
          rvq-jax train configs/builtin_codec.py --data runs/audio_16khz --out runs/waveforms \
              $alone --loss.waveform 200 --loss.mel 0.6 --loss.decay 0.99 --loss.commitment 0.2 \
              --loop.steps 1000 --optimizer.learning-rate 1e-3 --optimizer.warmup 100 \
              --optimizer.cooldown 0
          rvq-jax train configs/builtin_codec.py --data runs/audio_16khz --out runs/spectra \
              --init-from runs/waveforms/model $alone --loss.waveform 60 --loss.mel 2 \
              --loss.commitment 0.5 --loop.steps 4200
          rvq-jax train configs/builtin_codec.py --data runs/audio_16khz --out runs/builtin \
              --init-from runs/spectra/model --loop.steps 3200
Time:     0.5 s an update on two cores with discriminators, 0.2 without
Expect:   experiments/codec/RESULTS.md keeps what every step of it reached
"""

from rvq_jax.codec.discriminators import DiscriminatorsConfig, MultiScaleSTFTConfig
from rvq_jax.codec.filterbank import FilterbankConfig
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import FilterbankRun
from rvq_jax.train.state import OptimizerConfig
from rvq_jax.train.tasks.adversarial import AdversarialConfig
from rvq_jax.train.tasks.codec_losses import CodecLossConfig


def get_config() -> FilterbankRun:
    moves = OptimizerConfig(
        learning_rate=5e-4,
        warmup=50,
        schedule="constant",
        cooldown=1500,
        b1=0.8,
        b2=0.99,
        weight_decay=0.0,
    )
    judges = MultiScaleSTFTConfig(filters=8, windows=(1024, 512, 256))
    return FilterbankRun(
        codec=FilterbankConfig(),
        # EnCodec's shares of L1 and of mel (0.1 to 1), and less of what discriminators say (3, 3).
        loss=CodecLossConfig(
            waveform=0.2,
            mel=2.0,
            balanced=True,
            commitment=5.0,
            autoencoder_warmup=1000,
            decay=0.95,
        ),
        adversarial=AdversarialConfig(
            DiscriminatorsConfig(16_000, judges),
            weight=1.0,
            features=2.0,
            optimizer=OptimizerConfig(3e-4, schedule="constant", b1=0.5, b2=0.9, weight_decay=0.0),
        ),
        loop=LoopConfig(steps=6000, checkpoint_every=500),
        optimizer=moves,
        batch=12,
        seconds=0.5,
    )
