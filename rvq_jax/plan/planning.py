"""From a run and a topology to everything a plan says."""

import dataclasses
import math
import time
import typing
from collections import defaultdict

import jax

from rvq_jax.lm.precision import Precision
from rvq_jax.plan import chips, meshes, programs
from rvq_jax.plan.compiled import Compiled, compile_for, roofline
from rvq_jax.plan.doubts import doubts
from rvq_jax.plan.model_flops import model_flops
from rvq_jax.plan.programs import Step
from rvq_jax.train import sharding
from rvq_jax.train.runs import Run
from rvq_jax.train.runs.run import Decoding
from rvq_jax.train.sharding import make_mesh
from rvq_jax.train.state import TrainState, make_optimizer
from rvq_jax.typing import Remat

ROWS = 64  # times the rows of a batch that are looked at for the largest that fits


def plan(
    run: Run,
    topology: str,
    mesh: dict[str, int] | None = None,
    *,
    search: bool = False,
    decode: bool = True,
    largest: bool = True,
    precision: Precision = "float32",
) -> dict:
    """Plans a training run on a topology: memory, cost and time of a step, without running it.

    Args:
      run: the training run.
      topology: chip and sizes, such as v5e:16x16 (see `chips.EXAMPLES`).
      mesh: sizes of data, fsdp and tensor; None for those of `meshes.default`.
      search: also compile other meshes, on the cheapest also other choices of what the backward
        pass recomputes, and name the cheapest of all.
      decode: also compile the program that generates, for a token model.
      largest: also find the largest batch that fits, by one or two more compiles.
      precision: of weights and cache where it generates, as of `MusicGen.load`.

    Returns:
      What `rvq-jax plan --json` prints; numbers are bytes, FLOPs, and seconds, of one chip.

    Raises:
      UserError: when the topology is unknown, libtpu is missing, or a mesh or a batch cannot be
        shared out.
    """
    began = time.perf_counter()
    name, _ = chips.split(topology)
    chip, devices = chips.CHIPS[name], chips.devices(topology)
    state = _state_bytes(run)
    sizes = mesh or meshes.default(run, len(devices), state, chip.memory)
    needed = model_flops(run)

    def look(sizes: dict[str, int], run: Run = run) -> tuple[Step, Compiled, dict]:
        step = programs.step(run, make_mesh(**sizes, devices=devices))
        label = f"a step on {topology}, {', '.join(f'{k} {v}' for k, v in sizes.items())}"
        label += f", recomputing {run.remat}" if run.remat else ""
        found = compile_for(chip, step.lower(), label)
        return step, found, _figures(step, found, chip, needed)

    tried = [look(sizes)]
    if search:
        for other in meshes.candidates(run, len(devices), state, chip.memory):
            if other != sizes:
                tried.append(look(other))
        # Of every mesh it would be three times as many compiles.
        cheapest = min(tried, key=_price)[2]["mesh"]
        for remat in typing.get_args(Remat):
            if run.remat and remat != run.remat:
                tried.append(look(cheapest, run.computed(remat)))
        tried.sort(key=_price)
    step, found, figures = tried[0]
    result = {"topology": topology, "chip": name, "chips": len(devices), **figures}
    if search:
        result["meshes"] = [_brief(figures) for _, _, figures in tried]
    if largest and chip.memory is not None:
        result["largest_batch"] = _largest(step, found, chip)
    decoding = run.decoding(devices[0], precision) if decode else None
    if decoding is not None:
        result["decode"] = {"precision": precision, **decode_figures(decoding, chip)}
    result["tool_seconds"] = time.perf_counter() - began
    return result


def _figures(step: Step, found: Compiled, chip: chips.Chip, needed: float) -> dict:
    """All that a plan says of a compiled step."""
    count = step.mesh.size
    ways = step.mesh.shape["data"] * step.mesh.shape["fsdp"]
    figures = {
        "mesh": dict(step.mesh.shape),
        "remat": step.run.remat,
        "batch": step.run.batch,
        "rows_per_chip": step.run.batch // ways,
        "fits": found.fits,
        "bytes_per_chip": _bytes(step, found),
        "replicated": _replicated(step.state),
        "compile_seconds": found.compile_seconds,
        "flops": {"executed": None, "model": needed / count},
    }
    if found.cost is None:
        empty = ("bytes_moved", "uncounted_loops", "uncounted_calls", "doubts", "collectives")
        return figures | dict.fromkeys((*empty, "roofline", "step_seconds", "mfu"))
    line = roofline(chip, found.cost, step.mesh)
    cost, params = found.cost, figures["bytes_per_chip"]["parameters"]
    doubted = doubts(cost.flops, needed / count, cost.moved, params, cost.unknown)
    seconds = None if doubted else line.seconds
    mfu = None if seconds is None else needed / (count * chip.flops * seconds)
    figures["flops"]["executed"] = cost.flops
    return figures | {
        "bytes_moved": cost.moved,
        "uncounted_loops": cost.uncounted,
        "uncounted_calls": list(cost.unknown),
        "doubts": doubted,
        "collectives": _by_kind(found, chip, step.mesh),
        "roofline": line._asdict()
        | {"bound": line.bound, "communication_share": line.communication_share},
        "step_seconds": seconds,
        "mfu": mfu,
    }


def _by_kind(found: Compiled, chip: chips.Chip, mesh) -> dict:
    kinds = defaultdict(lambda: {"count": 0, "bytes": 0.0, "seconds": 0.0})
    for one in found.cost.collectives:
        kind = kinds[one.kind]
        kind["count"] += int(one.times)
        kind["bytes"] += one.times * one.bytes
        alone = found.cost._replace(collectives=[one])
        kind["seconds"] += roofline(chip, alone, mesh).communication or 0.0
    return dict(sorted(kinds.items()))


def _bytes(step: Step, found: Compiled) -> dict:
    """Bytes per chip by kind; what a chip's layout adds to small arrays counts as padding."""
    state = step.state
    kinds = {
        "parameters": _local(state.params),
        "running_mean": _local(state.ema),
        "optimizer": _local(state.opt),
        "other_state": _local(state.aux),
        "batch": _local(step.batch),
    }
    if "arguments" in found.memory:
        kinds["padding"] = max(0, found.memory["arguments"] - sum(kinds.values()))
        kinds |= {name: found.memory[name] for name in ("activations", "outputs", "code")}
    else:
        kinds["activations"] = max(0.0, found.memory["total"] - sum(kinds.values()))
    return kinds | {"total": found.memory["total"], "limit": found.limit}


def _local(tree) -> int:
    """Bytes of a tree that one device holds."""
    return sum(
        x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree)
    )


def _replicated(state: TrainState) -> dict:
    """Parameters that no rule splits: every chip has them whole."""
    found = sharding.whole(state.params)
    largest = found[0][0] if found else None
    return {"arrays": len(found), "bytes": sum(size for _, size in found), "largest": largest}


def _state_bytes(run: Run) -> float:
    """Bytes of parameters, their mean and the optimizer, on all chips together."""
    params = jax.eval_shape(run.task().init, jax.random.key(0))
    opt = jax.eval_shape(
        make_optimizer(run.optimizer, run.loop.steps, run.task().optimizers).init, params
    )
    return float(
        sum(x.dtype.itemsize * math.prod(x.shape) for x in jax.tree.leaves((params, params, opt)))
    )


def _price(tried) -> tuple:
    """Programs in order: those that fit, by time, then by memory; last what can be in no order."""
    figures = tried[2]
    seconds = math.inf if figures["step_seconds"] is None else figures["step_seconds"]
    return not figures["fits"], seconds, figures["bytes_per_chip"]["total"]


def _brief(figures: dict) -> dict:
    kept = ("mesh", "remat", "fits", "step_seconds", "mfu", "roofline", "compile_seconds")
    return {name: figures[name] for name in kept} | {
        "total_bytes": figures["bytes_per_chip"]["total"]
    }


def _largest(step: Step, found: Compiled, chip: chips.Chip) -> dict:
    """The largest batch that was seen to fit, and an estimate of the largest that would.

    Memory is a constant and a part that grows with the rows of a chip: the first compile bounds
    that part, a second with the rows this allows settles both. Where the first did not fit a third
    may be needed. A fit that the bound promises is looked at with less of XLA's effort, in a third
    of the time and with somewhat less memory: the estimate is then a generous one.
    """
    ways = step.mesh.shape["data"] * step.mesh.shape["fsdp"] * step.run.optimizer.accumulate
    rows, args = step.run.batch // ways, sum(map(_local, (step.state, step.batch)))
    seen = {rows: found}

    def most(slope: float, at: int) -> int:
        room = chip.memory - seen[at].memory["total"]
        return min(max(0, at + math.floor(room / max(slope, 1.0))), ROWS * rows)

    guess = most((found.memory["total"] - args) / rows, rows)
    while guess not in (0, *seen) and len(seen) < 3:
        other = programs.step(dataclasses.replace(step.run, batch=guess * ways), step.mesh)
        level = "O1" if found.fits else None
        seen[guess] = compile_for(chip, other.lower(), f"a batch of {guess * ways}", level=level)
        low, high = min(seen), max(seen)
        slope = (seen[high].memory["total"] - seen[low].memory["total"]) / (high - low)
        if any(one.fits for one in seen.values()):
            break
        guess = most(slope, min(seen))
    fit = [n for n, one in seen.items() if one.fits]
    estimate = max([*fit, 0 if len(seen) == 1 else most(slope, high)])
    return {"batch": max(fit, default=0) * ways, "estimate": estimate * ways}


def decode_figures(decoding: Decoding, chip: chips.Chip) -> dict:
    """Generation of a crop's frames, all steps, on one chip as `rvq-jax generate` runs it.

    Args:
      decoding: the program.
      chip: that it is compiled for.

    Returns:
      Bytes of weights, cache and all; the least seconds, and frames of all prompts a second.
    """
    found = compile_for(chip, decoding.lowered, "decoding on one chip", decoding.steps)
    params = _local(decoding.params)
    figures = {
        "prompts": decoding.rows,
        "steps": decoding.steps,
        "fits": found.fits,
        "frames": decoding.frames,
        "bytes": {
            "parameters": params,
            "cache": decoding.cache,
            "total": found.memory["total"],
            "limit": found.limit,
        },
        "compile_seconds": found.compile_seconds,
    }
    if found.cost is None:
        empty = ("flops", "bytes_moved", "seconds", "frames_per_second")
        return figures | dict.fromkeys(empty)
    line = roofline(chip, found.cost)
    return figures | {
        "flops": found.cost.flops,
        "bytes_moved": found.cost.moved,
        "seconds": line.seconds,
        "frames_per_second": line.seconds and decoding.rows * decoding.frames / line.seconds,
        "bound": line.bound,
    }
