"""Does a run fit on a TPU topology, and what does a step of it cost: without a TPU.

Its own training step is compiled ahead of time for the topology, and read.
"""

from rvq_jax.plan.planning import plan

__all__ = ["plan"]
