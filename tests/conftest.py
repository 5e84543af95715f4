"""The whole suite runs on eight simulated CPU devices, with rank promotion an error."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: LLVM's second level and above cost more than they give.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

import hypothesis
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiling takes most of an example's time here, so a deadline would measure XLA, not us.
hypothesis.settings.register_profile(
    "rvq_jax", deadline=None, max_examples=15, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("rvq_jax")

MAPS = Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Every compiled program keeps pages mapped, and a process may have 65,530 mappings on Linux:
    a worker that has run most of the suite would end in the middle of a compilation."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
