"""DAC at 44.1 kHz (Kumar et al. 2023): 86 frames per second, 9 levels of 1024.

The published recipe (conf/final/44khz.yml): 72 crops of 0.38 s per update, 400,000 updates; AdamW
1e-4 with betas 0.8 and 0.99, the rate times 0.999996 after each; gradients clipped at 1000 (codec)
and 10 (discriminators); mel 15 (windows 32 to 2048 of 5 to 320 bands), feature matching 2,
adversarial 1, codebook 1 and commitment 0.25 for each level; discriminators of periods 2 to 11 and
of bands of spectra, least squares; half of the items keep a random number of levels; crops brought
to -16 LUFS, their phases shifted.

Open, or other than published: the published data are drawn so that full-band recordings have their
share; loudness is measured without a gate; what is kept is a running mean of 0.99.

Command:  rvq-jax data build FOLDER --out runs/audio_44khz --rate 44100
          rvq-jax train configs/dac_44khz.py --data runs/audio_44khz --out runs/codec \\
              --fsdp 4
Time:     for a pod; it was not run
Expect:   not measured; only its shapes are tested
"""

from rvq_jax.codec.dac import DACConfig
from rvq_jax.train.runs import DACRun
from rvq_jax.train.runs.codec_recipes import dac_recipe


def get_config() -> DACRun:
    return dac_recipe(DACConfig(norm="weight_norm"))
