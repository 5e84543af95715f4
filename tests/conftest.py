"""The whole suite runs on eight simulated CPU devices, with rank promotion an error."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: LLVM's second level and above cost more than they give.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

import hypothesis
import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiling takes most of an example's time here, so a deadline would measure XLA, not us.
hypothesis.settings.register_profile(
    "rvq_jax", deadline=None, max_examples=15, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("rvq_jax")
