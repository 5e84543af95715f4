"""Before a pod is paid for: does a run fit on it, and what does a step cost."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rvq_jax.cli.terminal import parse, say
from rvq_jax.cli.texts import Precision
from rvq_jax.cli.train import load_config


@dataclass(frozen=True)
class Plan:
    """Compiles a config's training step for a TPU topology, without a TPU; tells what it takes.

    Tells memory by kind, FLOPs, bytes moved, collectives, the time that bounds a step, and the
    largest batch that fits. Fields of the config follow as flags, as with `rvq-jax train`.

    rvq-jax plan configs/musicgen_medium.py --topology v5e:16x16
    """

    config: Annotated[Path, tyro.conf.Positional]
    """Python file with get_config(), as in configs/."""
    topology: str
    """Chip and sizes: v4:4x4x4, v5e:16x16, v5p:4x4x4, v6e:8x8; or cpu:8 for simulated devices."""
    mesh: str = ""
    """Chips for each axis, such as data=16,fsdp=4,tensor=4; an axis left out has 1. Default: a
    sensible one."""
    search: bool = False
    """Compile other meshes too and take the one with the fastest step that fits: a minute or so
    each."""
    decode: bool = True
    """Also compile generation on one chip, for a token model."""
    precision: Precision = "float32"
    """Of weights and cache where it generates: bfloat16, or int8 weights."""
    largest: bool = True
    """Also find the largest batch that fits."""
    json: bool = False
    """Print a machine-readable result."""
    overrides: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> dict:
        from rvq_jax import plan
        from rvq_jax.plan import meshes
        from rvq_jax.plan.report import table

        default = load_config(self.config)
        run = parse(type(default), list(self.overrides), f"plan {self.config}", default)
        result = plan.plan(
            run,
            self.topology,
            meshes.parse(self.mesh) if self.mesh else None,
            search=self.search,
            decode=self.decode,
            largest=self.largest,
            precision=self.precision,
        )
        result = {"config": str(self.config), **result}
        say(self.json, table(result))
        return result
