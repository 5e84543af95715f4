"""The pattern study: from a folder of audio to which interleaving pattern to use."""

from rvq_jax.study.latents import study_codec, study_latents
from rvq_jax.study.quickstart import StudyConfig, study

__all__ = ["StudyConfig", "study", "study_codec", "study_latents"]
