"""Real training steps compile for TPUs that are not here, and the tool reads what comes out."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_plans import BIG, by_hand
from small_runs import CONFIG_FILE

ROOT = Path(__file__).parents[2]
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install -e '.[tpu-plan]'"
)


def planned(*words) -> dict:
    """What the command prints, in a process of its own: libtpu reads its environment once."""
    ours = {"JAX_PLATFORMS", "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-m", "rvq_jax", "plan", *map(str, words), "--json"],
        env={name: value for name, value in os.environ.items() if name not in ours},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert all(line.startswith("compiling ") for line in lines), done.stderr
    return json.loads(done.stdout)


@needs_libtpu
@pytest.mark.parametrize("topology", ["v4:2x2x2", "v5p:2x2x2", "v6e:2x4", "v5e:2x4"])
def test_a_small_run_is_planned_for_every_chip(topology, tmp_path):
    """Eight chips of each: it fits, they share the work, and no step is faster than its parts."""
    path = tmp_path / "config.py"
    path.write_text(CONFIG_FILE.format(run=BIG))
    found = planned(
        path, "--topology", topology, "--mesh", "data=2,fsdp=2,tensor=2", "--no-largest"
    )
    assert found["chips"] == 8 and found["fits"]
    assert found["flops"]["executed"] * 8 == pytest.approx(by_hand(BIG, False), rel=0.05)
    line = found["roofline"]
    assert found["step_seconds"] == max(line["compute"], line["memory"], line["communication"]) > 0
    assert 0 < found["mfu"] < 1 and found["collectives"]
    memory = found["bytes_per_chip"]
    assert memory["total"] == sum(memory.values()) - memory["total"] - memory["limit"]
    assert found["decode"]["fits"] and found["decode"]["seconds"] > 0


@needs_libtpu
def test_musicgen_small_at_its_published_batch():
    """192 crops of 30 s on 64 chips: layers counted out of their loop to within 1 % of the count
    by hand, every chip works on its three rows, and its states are those it should hold."""
    path = ROOT / "configs/musicgen_small.py"
    words = ("--topology", "v5e:8x8", "--mesh", "data=8,fsdp=8", "--no-largest", "--no-decode")
    found = planned(path, *words)
    assert (found["chips"], found["batch"], found["rows_per_chip"]) == (64, 192, 3)
    D, F, T, L, layers, heads = 1024, 4096, 1536, 64, 24, 4 * 2048
    cross = 2 * T * D * D * 2 + 2 * L * D * D * 2 + 4 * T * L * D
    rest, shown = 2 * T * D * D * 4 + cross + 4 * T * D * F, 2 * T * (T + 1) * D
    outside = 3 * 2 * T * D * heads + 2 * 2 * L * 768 * D
    assert found["flops"]["model"] == 3 * (3 * layers * (rest + shown) + outside)
    # Nine products of scores, two forward and once more, five backward, in six of the nine blocks
    # of 512 that a causal mask leaves something of; the last of the feed-forward is not repeated.
    kernel, again = 9 * 2 * T * T * D * 6 / 9, rest - 2 * T * D * F
    executed = 3 * (layers * (3 * rest + again + kernel) + outside)
    assert found["flops"]["executed"] == pytest.approx(executed, rel=0.01)
    memory, count = found["bytes_per_chip"], 420e6
    assert memory["parameters"] == pytest.approx(4 * count / 8, rel=0.02)
    assert memory["optimizer"] == pytest.approx(2 * memory["parameters"], rel=0.02)
    # The whole batch on every chip took 56 GB.
    assert found["fits"] and memory["activations"] < 4e9
    assert found["replicated"]["bytes"] < 1e-3 * 4 * count


# A token model long enough for kernels, its step as JAX wrote it and as XLA compiled it.
COUNTED = """
import dataclasses, json, re, sys
from small_plans import BIG
from rvq_jax.plan import chips, programs
from rvq_jax.plan.compiled import compile_for, cost
from rvq_jax.plan.model_flops import model_flops, of_jaxpr
from rvq_jax.train.sharding import make_mesh
from rvq_jax.train.state import make_program

devices, found = chips.devices(sys.argv[1]), []
for remat in sys.argv[2:]:
    run = dataclasses.replace(BIG, frames=312).computed(remat, "auto")
    step = programs.step(run, make_mesh(2, 2, 2, devices=devices))
    program = make_program(step.task, run.optimizer, run.loop.steps, step.mesh)
    traced = program.step.trace(step.state, step.batch)
    text = traced.lower().compile().as_text()
    steps, counted = run.task().aux.steps, cost(text)
    scores = re.findall(rf"\\w+\\[(?:\\d+,)*(?:{steps}|384),(?:\\d+,)?(?:{steps}|384)\\]", text)
    written = of_jaxpr(traced.jaxpr.jaxpr) / 8
    print(json.dumps([counted.flops, written, model_flops(run) / 8, counted.unknown, scores]))
"""


@needs_libtpu
@pytest.mark.parametrize("topology", ["v5e:2x4", "v6e:2x4"])
def test_kernels_are_counted_and_keep_no_scores(topology):
    """To within 2 % of the program as it was written, never below what the model needs."""
    ours = {"JAX_PLATFORMS", "XLA_FLAGS"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    paths = [ROOT, ROOT / "tests/support", ROOT / "tests"]
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, topology, "attention", "everything"],
        env=environment | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 2
    for executed, written, needed, unknown, scores in lines:
        assert executed == pytest.approx(written, rel=0.02) and executed >= needed
        assert unknown == [] and scores == []
