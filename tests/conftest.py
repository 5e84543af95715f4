"""Two tiers on eight simulated CPU devices, with rank promotion an error.

The fast tier is what `pytest` runs: every law, in its smallest form. `pytest -m slow` runs the
large forms, and hypothesis tests with all their examples; `pytest -m ""` runs everything.
"""

import gc
import os
import sys
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from tiers import FAST, THOROUGH

from rvq_jax import cache, progress

ROOT = Path(__file__).parents[1]

# What one worker, process or run has compiled is read by the others, those that tests start too.
kept = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache" / cache.key()))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
jax.config.update("jax_compilation_cache_dir", kept)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

# As an activated environment has it: pages of the documentation start `rvq-jax` by name.
FOLDERS = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
os.environ["PATH"] = os.pathsep.join(FOLDERS)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Here all compile, and many look at every line.
progress.PATIENCE = 1e6

# Compiling takes most of an example's time here, so a deadline would measure XLA, not us.
OPTIONS = {"deadline": None, "derandomize": True, "print_blob": True}
hypothesis.settings.register_profile("fast", max_examples=FAST, **OPTIONS)
hypothesis.settings.register_profile("thorough", max_examples=THOROUGH, **OPTIONS)

MAPS = Path("/proc/self/maps")


def pytest_configure(config):
    tier = config.option.markexpr
    fast = tier == "not slow and not wide"  # as setup.cfg has it
    if not config.getoption("--hypothesis-profile"):
        hypothesis.settings.load_profile("fast" if fast else "thorough")
    # Both tiers compile much and compute little: LLVM's first level costs them more than it gives;
    # what runs all of a folder, as parity does, has models of published sizes. Before any backend
    # starts, and for the workers and processes that inherit it.
    small = fast or tier in ("slow", "wide")
    flags = f"--xla_backend_optimization_level={0 if small else 1}"
    if small and version("jaxlib").startswith("0.10."):
        # Its older emitters compile in a third of the time; later versions have the new ones only.
        flags += " --xla_cpu_use_fusion_emitters=false"
    os.environ.setdefault("XLA_FLAGS", flags)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """`-m slow` has the fast tier's hypothesis tests too: there they see all their examples."""
    if config.option.markexpr == "slow":
        for item in items:
            if not item.get_closest_marker("wide") and hypothesis.is_hypothesis_test(item.obj):
                item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """What imports and collection made lives as long as the process: no use in looking at it."""
    gc.collect()
    gc.freeze()
    # Tracing makes many objects and few cycles: looking for those took a twentieth of the time.
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Every compiled program keeps pages mapped, and a process may have 65,530 mappings on Linux:
    a worker that has run most of the suite would end in the middle of a compilation. Nor are those
    that trainings share another module's, which may have been made of other functions."""
    yield
    if "rvq_jax.train.state" in sys.modules:
        sys.modules["rvq_jax.train.state"].SHARED.clear()
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


@pytest.fixture(scope="module")
def compiled_anew():
    """For tests that read what the compiler says of a program: from the cache it says less."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()
