"""`rvq-jax serve`: a page of this machine."""

import dataclasses
import functools
import json as jsons
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from rvq_jax.cli.texts import Precision, load_model, longest
from rvq_jax.errors import UserError
from rvq_jax.serve import Limits


@dataclass(frozen=True)
class Serve:
    """Opens a page, for this machine only, that plays a clip while the model generates it.

    Nobody else can reach it unless --host says so, and then whoever can reach that host can use
    it: there are no passwords. Ctrl-C ends it.

    rvq-jax serve --model musicgen_small
    """

    model: Path
    """Model folder, as of `rvq-jax generate`."""
    codec: str | None = None
    """Codec folder, or builtin, of a model that was trained without one beside it."""
    precision: Precision = "float32"
    """Of the token model's weights and cache: bfloat16 takes half the memory, int8 weights a
    quarter, and time goes with it on a GPU or TPU."""
    host: str = "127.0.0.1"
    """Address to listen on: the default is this machine alone, 0.0.0.0 everyone who can reach
    it."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    limits: Limits = field(default_factory=Limits)
    json: bool = False
    """Print the address as JSON."""

    def run(self) -> None:
        from rvq_jax import serve
        from rvq_jax.serve.requests import SHORTEST

        model = load_model(self.model, self.codec, self.precision)
        if model.codec.config.segment:
            raise UserError(f"{self.model} codes segments apart, which the page cannot play")
        seconds = max(SHORTEST, longest(model, self.limits.seconds))
        limits = dataclasses.replace(self.limits, seconds=seconds)
        show = functools.partial(print, flush=True)

        def announce(address: str) -> None:
            show(jsons.dumps({"address": address}) if self.json else f"{address} (Ctrl-C ends it)")

        names = self.model.resolve().parts[-2:]
        # Runs keep theirs in a folder called model.
        name = "/".join(names if names[-1] == "model" else names[-1:])
        if serve.serve(model, self.host, self.port, limits, announce, name=name):
            # Python's own end would wait for a program that runs, or break it off within.
            sys.stdout.flush()
            os._exit(0)
