"""EnCodec at 24 kHz (Défossez et al. 2022): causal, 75 frames per second, 32 levels of 1024.

The published recipe: 64 crops of 1 s per update, 600,000 updates (300 epochs of 2,000; 8 A100);
Adam 3e-4 with betas 0.5 and 0.9, no decay; a balancer of L1 0.1, mel 1, adversarial 3 and feature
matching 3, means over 0.999; MS-STFT discriminators of windows 2048 to 128 with 32 features, hinge,
updated with probability 2/3; a multiple of four levels for each batch; gain of -10 to 6 dB.

Open, or other than published: the paper's mel has windows 32 to 2048, audiocraft's code (here) 64
to 1024; of the mixtures 0.36 of all items are, of two sources each, and there is no reverb; one
discriminator for all bandwidths; commitment has weight 1, dead codes are those below a tenth of
uniform use, as the paper gives neither; the running mean of 0.99 is audiocraft's.

Command:  rvq-jax data build FOLDER --out runs/audio_24khz --rate 24000
          rvq-jax train configs/encodec_24khz.py --data runs/audio_24khz --out runs/codec \\
              --fsdp 4
Time:     for a pod; it was not run
Expect:   not measured; only its shapes are tested
"""

from rvq_jax.systems.encodec import encodec_24khz
from rvq_jax.train.runs import CodecRun
from rvq_jax.train.runs.codec_recipes import encodec_recipe


def get_config() -> CodecRun:
    return encodec_recipe(encodec_24khz())
