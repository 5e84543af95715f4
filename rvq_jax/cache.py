"""Compiled programs, kept from one process to the next by JAX's persistent cache."""

import hashlib
import importlib.util
import os
import platform
import sys
import tempfile
import warnings
from importlib import metadata
from pathlib import Path

VARIABLE = "RVQ_JAX_CACHE"  # 0 for no cache, or its folder
MOST = 2 << 30  # bytes; what was not used for longest goes first
# Seconds of compiling from which a program is kept: smaller ones are many, and all files are looked
# at whenever one is added.
LEAST = 0.1


def key() -> str:
    """What machine code is of: a version of jaxlib and a kind of processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    features = next((x for x in lines if x.startswith(("flags", "Features"))), platform.processor())
    digest = hashlib.sha256(features.encode()).hexdigest()[:8]
    return f"{metadata.version('jaxlib')}-{digest}"


def place() -> Path | None:
    """The folder of this user's programs; None where there shall be none, or no home.

    `RVQ_JAX_CACHE` is 0 for none, or names the folder that has it.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked == "0":
        return None
    if asked:
        return Path(asked) / f"jax-{key()}"
    names = {"darwin": "~/Library/Caches", "win32": "~/AppData/Local"}
    home = os.path.expanduser(names.get(sys.platform, "~/.cache"))
    base = os.environ.get("XDG_CACHE_HOME", "")
    base = base if os.path.isabs(base) else home  # as XDG has it
    return Path(base) / "rvq_jax" / f"jax-{key()}" if os.path.isabs(base) else None


def keep_programs() -> Path | None:
    """Makes JAX read programs from `place`, and keep there what takes it long to compile.

    Nothing where the user has a cache of JAX already, or where the folder cannot be written to, or
    can be by others.
    Its size is bounded where the package filelock is installed, which JAX needs for that.

    Returns:
      The folder; None for no cache.
    """
    import jax

    folder = place()
    if folder is None or jax.config.jax_compilation_cache_dir is not None:
        return None
    try:
        # Whoever writes programs there has them run.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stated = folder.stat()
        if hasattr(os, "getuid") and (stated.st_uid != os.getuid() or stated.st_mode & 0o022):
            return None
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None
    # A program that cannot be read or kept is compiled, which is no news.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST)
    if importlib.util.find_spec("filelock") is not None:
        jax.config.update("jax_compilation_cache_max_size", MOST)
    return folder
