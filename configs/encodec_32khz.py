"""EnCodec at 32 kHz as MusicGen has it (Copet et al. 2023): 50 frames per second, 4 levels of 2048.

The published recipe (audiocraft's compression solver): 64 crops of 1 s per update, 400,000 updates
(200 epochs of 2,000); Adam 3e-4 with betas 0.5 and 0.9, running mean of 0.99; a balancer of L1 0.1,
mel 2 (windows 64 to 1024, 64 bands), adversarial 4 and feature matching 4; MS-STFT discriminators
of 32 features with a slope of 0.3, hinge, updated every time; all levels, no augmentation.

Other than published: dead codes are those below a tenth of uniform use, not two vectors a batch.
Feature matching is divided by the size of the features, which audiocraft computes and forgets.

Command:  rvq-jax data build FOLDER --out runs/audio_32khz --rate 32000
          rvq-jax train configs/encodec_32khz.py --data runs/audio_32khz --out runs/codec \\
              --fsdp 4
Time:     for a pod; it was not run
Expect:   not measured; only its shapes are tested
"""

from rvq_jax.systems.encodec import encodec_32khz
from rvq_jax.train.runs import CodecRun
from rvq_jax.train.runs.codec_recipes import audiocraft_recipe


def get_config() -> CodecRun:
    return audiocraft_recipe(encodec_32khz())
