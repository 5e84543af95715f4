"""What a plan says of a run, against XLA's own analysis and counts by hand."""

import dataclasses
import json
import math
import re

import jax
import jax.numpy as jnp
import pytest
from command import refuses, run
from jax.experimental.compilation_cache import compilation_cache
from small_plans import BIG, LM, by_hand, codec_run
from small_runs import CONFIG_FILE, RUN, one_device
from tiers import slow

from rvq_jax.axes import RULES, place
from rvq_jax.errors import UserError
from rvq_jax.plan import chips, meshes, plan, planning, programs
from rvq_jax.plan.collectives import Collective
from rvq_jax.plan.compiled import Compiled, Cost, compile_for, roofline
from rvq_jax.plan.report import table
from rvq_jax.train import sharding


def config_file(tmp_path, run=RUN):
    path = tmp_path / "config.py"
    path.write_text(CONFIG_FILE.format(run=run))
    return path


@pytest.fixture(scope="module")
def single():
    """On one chip, layers recomputed."""
    asked = dataclasses.replace(BIG, lm=dataclasses.replace(LM, remat=True))
    return plan(asked, "cpu:1", decode=False)


def test_a_plan_goes_past_the_persistent_cache(tmp_path):
    """Of a program that comes from there XLA may say less, and one for TPUs cannot be read."""

    def product(size: int) -> jax.stages.Lowered:
        return jax.jit(jnp.dot).lower(*[jax.ShapeDtypeStruct((size, size), "float32")] * 2)

    kept = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compilation_cache.reset_cache()
    try:
        compile_for(chips.CHIPS["cpu"], product(61), "a product")
        assert not list(tmp_path.iterdir())
        product(62).compile()
        assert list(tmp_path.iterdir())
    finally:
        jax.config.update("jax_compilation_cache_dir", kept)
        compilation_cache.reset_cache()


@dataclasses.dataclass
class Watched:
    """A lowered program that keeps what was compiled of it."""

    lowered: jax.stages.Lowered
    compiled: jax.stages.Compiled | None = None

    def compile(self) -> jax.stages.Compiled:
        self.compiled = self.lowered.compile()
        return self.compiled


@pytest.fixture(scope="module")
def meshed_and_compiled():
    """A plan for eight devices, and the program that it compiled: it takes seconds."""
    seen, compile_for = [], planning.compile_for

    def watch(chip, lowered, *args, **options):
        seen.append(Watched(lowered))
        return compile_for(chip, seen[-1], *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "compile_for", watch)
        found = plan(BIG, "cpu:8", {"data": 2, "fsdp": 2, "tensor": 2}, decode=False)
    (step,) = seen
    return found, step.compiled


@pytest.fixture(scope="module")
def meshed(meshed_and_compiled):
    return meshed_and_compiled[0]


# FLOPs.


def test_flops_are_those_counted_by_hand(single):
    """Of the compiled step within 5 %; of the model, whatever is recomputed, to the last one."""
    assert single["flops"]["executed"] == pytest.approx(by_hand(BIG, remat=True), rel=0.05)
    model = by_hand(BIG, remat=False, shown=True)
    assert single["flops"]["model"] == pytest.approx(model, rel=1e-12)


def test_one_chip_exchanges_nothing(single, meshed):
    assert not single["collectives"] and meshed["collectives"]


def test_eight_chips_share_the_flops_evenly(meshed):
    """Over data, fsdp and model together: nothing is worked out twice."""
    assert meshed["flops"]["executed"] * 8 == pytest.approx(by_hand(BIG, remat=False), rel=0.05)
    model = by_hand(BIG, remat=False, shown=True)
    assert meshed["flops"]["model"] * 8 == pytest.approx(model, rel=1e-12)


# Its twin in this tier: a codec's exchanges, in test_plan_scaling.py.
@pytest.mark.slow
def test_a_codec_is_planned_too():
    """Where sums over one channel or eight features are sums to XLA, and no products."""
    found = plan(codec_run(), "cpu:2", {"fsdp": 2, "data": 1, "tensor": 1})
    assert found["flops"]["executed"] == pytest.approx(found["flops"]["model"], rel=0.1)
    assert found["bytes_per_chip"]["other_state"] > 0 and "decode" not in found


# Memory.


def test_memory_is_xlas_own(meshed_and_compiled):
    """Of the step on eight devices; kinds add up to what XLA says.

    Every device works on its own rows: no array has those of all, as with parameters in pieces
    XLA had them where activations were not placed.
    """
    meshed, compiled = meshed_and_compiled
    memory, text = compiled.memory_analysis(), compiled.as_text()
    T = BIG.task().aux.steps
    assert f"[{BIG.batch // 4},{T}," in text and f"[{BIG.batch},{T}," not in text
    # Between the parts of a layer devices of model keep their share of the steps.
    assert f"[{BIG.batch // 4},{T // 2},{LM.dim}]" in text
    found = meshed["bytes_per_chip"]
    arguments = ("parameters", "running_mean", "optimizer", "other_state", "batch", "padding")
    assert sum(found[name] for name in arguments) == pytest.approx(
        memory.argument_size_in_bytes, abs=64
    )
    assert found["activations"] == memory.temp_size_in_bytes
    kept = memory.output_size_in_bytes - memory.alias_size_in_bytes
    whole = memory.argument_size_in_bytes + memory.temp_size_in_bytes + kept
    assert found["total"] == whole + memory.generated_code_size_in_bytes


def test_states_fall_as_the_mesh_grows(single, meshed):
    """Parameters, their mean and moments: in four pieces a quarter, but for what cannot be cut."""
    one, four = single["bytes_per_chip"], meshed["bytes_per_chip"]
    for kind in ("parameters", "running_mean", "optimizer"):
        assert four[kind] < 0.3 * one[kind]
    assert four["batch"] < 0.3 * one["batch"]


def test_what_no_rule_splits_is_listed(meshed):
    """Every parameter whole on all chips, and no other; on one chip that says nothing."""
    mesh = sharding.make_mesh(2, 2, 2)
    state = programs.step(BIG, mesh).state
    listed = sharding.whole(state.params)
    assert [size for _, size in listed] == sorted((size for _, size in listed), reverse=True)
    want = [
        x.dtype.itemsize * math.prod(x.shape)
        for x in jax.tree.leaves(state.params)
        if x.sharding.shard_shape(x.shape) == x.shape
    ]
    assert sorted(size for _, size in listed) == sorted(want) and len(want) > 3
    assert all("norm" in name for name, _ in listed), listed
    assert meshed["replicated"] == {
        "arrays": len(want),
        "bytes": sum(want),
        "largest": listed[0][0],
    }
    assert sharding.whole(programs.step(BIG, one_device()).state) == []


def test_a_refusal_says_by_how_much():
    """As XLA words it: a program it did not make has a total and no costs."""

    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
                "temporaries (19.49G) exceeds available HBM (15.75G). HLO module: jit_step."
            )

    found = compile_for(chips.CHIPS["v5e"], Lowered(), "a step")
    assert (found.fits, found.cost) == (False, None)
    assert found.memory["total"] == 19.49 * 2**30 and found.limit == 15.75 * 2**30


# Time.


def test_a_roofline_is_three_quotients():
    """At the chip's own figures; the longest bounds the step."""
    chip, mesh = chips.Chip(1e9, 100.0, 10.0, 4.0), sharding.make_mesh(2, 2, 2)
    sent = [Collective("all-gather", 3.0, 20.0, (0, 1), (), "")]
    line = roofline(chip, Cost(700.0, 60.0, sent, 0), mesh)
    assert line == (7.0, 6.0, 15.0)
    assert (line.seconds, line.bound) == (15.0, "communication")
    assert line.communication_share == 15 / (15 + 7)
    assert roofline(chip, Cost(700.0, 60.0, sent, 0)) == (7.0, 6.0, 0.0)
    assert roofline(chips.CHIPS["cpu"], Cost(700.0, 60.0, sent, 0), mesh).seconds is None


def test_a_plan_states_no_bound_that_its_own_counts_rule_out(monkeypatch):
    """Where part of the program is in no count: no share of the chip and no time, but why."""

    def compile_for(chip, lowered, label):
        memory = {"arguments": 1.0, "activations": 1.0, "outputs": 0.0, "code": 0.0, "total": 2.0}
        return Compiled(memory, True, chip.memory, 0.0, Cost(1e6, 1e9, [], 0, ("a_kernel",)))

    monkeypatch.setattr(planning, "compile_for", compile_for)
    monkeypatch.setattr(programs.Step, "lower", lambda step: None)
    monkeypatch.setitem(chips.CHIPS, "cpu", chips.Chip(1e9, 1e12, 1e9, 1e9))
    found = plan(BIG, "cpu:8", decode=False, largest=False)
    assert found["mfu"] is None and found["step_seconds"] is None and len(found["doubts"]) == 1
    said = table({"config": "x", **found})
    assert "NO BOUND" in said and "a_kernel" in said and "MFU" not in said


# Meshes.


def test_possible_meshes_share_batch_and_model_evenly():
    """192 rows on 256 chips need chips on tensor; heads must divide over those."""
    asked = dataclasses.replace(BIG, batch=192, lm=dataclasses.replace(LM, heads=8, mlp_dim=64))
    found = meshes.possible(asked, 256)
    assert found and all(math.prod(mesh.values()) == 256 for mesh in found)
    assert {mesh["tensor"] for mesh in found} == {4, 8}
    assert meshes.default(asked, 256, 0.0, 1e9) == {"data": 64, "fsdp": 1, "tensor": 4}
    # States of 8 GB fill the allowed share of 1 GB from so many pieces on.
    pieces = 8 / meshes.SHARE
    found = meshes.default(asked, 256, 8e9, 1e9)
    assert found["fsdp"] * found["tensor"] >= pieces > found["fsdp"] * found["tensor"] / 2
    assert meshes.default(asked, 64, 1e30, 1e9) == {"data": 1, "fsdp": 64, "tensor": 1}
    for mesh in meshes.candidates(asked, 64, 1e9, 1e9):
        assert mesh in meshes.possible(asked, 64)


def test_a_search_names_the_cheapest_of_the_meshes(monkeypatch):
    """Of those that fit the fastest; here by what is made up for each."""
    seconds = {(8, 1, 1): 3.0, (4, 2, 1): 1.0, (1, 8, 1): 2.0}

    def compile_for(chip, lowered, label):
        sizes = tuple(int(word) for word in re.findall(r"(?:data|fsdp|tensor) (\d+)", label))
        took = seconds.get(sizes, 9.0) - label.endswith("attention")
        fits = sizes != (4, 2, 1)
        memory = {"arguments": 1.0, "activations": 1.0, "outputs": 0.0, "code": 0.0, "total": 2.0}
        return Compiled(memory, fits, chip.memory, 0.0, Cost(took * 1e12, 1e9, [], 0))

    monkeypatch.setattr(planning, "compile_for", compile_for)
    monkeypatch.setattr(programs.Step, "lower", lambda step: None)
    monkeypatch.setitem(chips.CHIPS, "cpu", chips.Chip(1e9, 1e12, 1e9, 1e9))
    found = plan(BIG, "cpu:8", search=True, decode=False, largest=False)
    assert tuple(found["mesh"].values()) == (1, 8, 1) and found["remat"] == "attention"
    # On the cheapest mesh what is recomputed is tried too.
    again = [one["remat"] for one in found["meshes"] if tuple(one["mesh"].values()) == (1, 8, 1)]
    assert again == ["attention", "nothing", "everything"]
    tried = [tuple(one["mesh"].values()) for one in found["meshes"] if one["remat"] == "nothing"]
    assert tried[:2] == [(1, 8, 1), (8, 1, 1)]
    assert tried[-1] == (4, 2, 1) or (4, 2, 1) not in tried
    assert len(set(tried)) == len(tried) > 3 and all(math.prod(mesh) == 8 for mesh in tried)
    assert "meshes tried" in table({"config": "x", **found})


def test_the_largest_batch_is_one_that_was_seen_to_fit(monkeypatch):
    """Memory of 100 and 10 for every row, of 1000: after one compile more, the rows it allows.
    Less of XLA's effort goes only where the first compile says that they fit."""
    levels = []

    def compile_for(chip, lowered, label, level=None):
        levels.append(level)
        total = 100.0 + 10.0 * lowered
        memory = {"activations": total, "total": total}
        return Compiled(memory, total <= chip.memory, chip.memory, 0.0, None)

    monkeypatch.setattr(planning, "compile_for", compile_for)
    monkeypatch.setattr(planning, "_local", lambda tree: 0)
    monkeypatch.setattr(programs.Step, "lower", lambda step: step.run.batch)
    step = programs.step(dataclasses.replace(RUN, batch=20), one_device())
    chip = chips.Chip(1000.0, None, None, None)
    first = compile_for(chip, 20, "")
    found = planning._largest(step, first, chip)
    assert found == {"batch": 66, "estimate": 90} and levels == [None, "O1"]
    # From one that does not fit downwards.
    step = programs.step(dataclasses.replace(RUN, batch=200), one_device())
    levels.clear()
    assert planning._largest(step, compile_for(chip, 200, ""), chip)["batch"] == 90
    assert not any(levels)


def test_less_effort_is_for_one_compile_alone():
    class Lowered:
        def compile(self):
            seen.append(jax.config.jax_optimization_level)
            return jax.jit(lambda x: x).lower(1.0).compile()

    seen, before = [], jax.config.jax_optimization_level
    for level in (None, "O1", None):
        compile_for(chips.CHIPS["cpu"], Lowered(), "a step", level=level)
    assert seen == [before, "O1", before]


# Where activations live.


def test_activations_are_placed_under_a_mesh_alone():
    """By the table; without a mesh, or on one device, as they were."""
    x = jax.ShapeDtypeStruct((8, 6, 4), "float32")

    def traced(mesh):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return str(jax.make_jaxpr(lambda x: place(x, "batch", None, None))(x))

    assert "sharding_constraint" in traced(sharding.make_mesh(2, 2, 2))
    assert "sharding_constraint" not in traced(one_device())
    assert "sharding_constraint" not in str(
        jax.make_jaxpr(lambda x: place(x, "batch", None, None))(x)
    )
    assert set(RULES["batch"]) == {"data", "fsdp"}


# The command.


@pytest.mark.parametrize("flags", [["--no-decode"], slow([])])
def test_the_command_prints_a_table_or_json(capsys, tmp_path, flags):
    path = config_file(tmp_path)
    words = ("plan", path, "--topology", "cpu:8", "--mesh", "data=2,fsdp=2", "--batch", "8")
    assert run(capsys, *words[:-2], "--json")[0] == 2  # four chips of eight
    words = (*words[:4], "--mesh", "data=2,fsdp=2,tensor=2", *words[6:])
    code, out, _ = run(capsys, *words, *flags, "--json")
    found = json.loads(out)
    wanted = {"fits", "bytes_per_chip", "flops", "collectives", "step_seconds", "mfu"}
    assert code == 0 and wanted <= set(found) and found["batch"] == 8
    assert flags or (found["decode"]["fits"] and found["decode"]["flops"] > 0)
    lines = table(found).splitlines()
    assert max(map(len, lines)) <= 110
    assert all(any(word in line for line in lines) for word in ("parameters", "all-reduce"))


def test_mistakes_are_one_line(capsys, tmp_path, monkeypatch):
    path = config_file(tmp_path)
    for words, say in (
        (("--topology", "v9:2x2"), ("v9:2x2", "v5e:16x16", "v6e:8x8")),
        (("--topology", "cpu"), ("'cpu'", "known are")),
        (("--topology", "cpu:800"), ("8 CPU devices",)),
        (("--topology", "cpu:8", "--mesh", "data=3"), ("3 × 1 × 1", "8 devices")),
        (("--topology", "cpu:8", "--mesh", "rows=8"), ("rows=8", "data=16,fsdp=4,tensor=2")),
        (("--topology", "cpu:8", "--mesh", "data=8", "--batch", "9"), ("batch is 9", "8")),
        (("--topology", "cpu:8", "--batch", "7"), ("7", "8 chips")),
        (("--topology", "cpu:8", "--init-from", "somewhere"), ("init_from",)),
        (("--topology", "cpu:8", "--lm.layer", "2"), ("--lm.layer", "did you mean")),
    ):
        refuses(capsys, "plan", path, *words, say=say)
    refuses(capsys, "plan", tmp_path / "none.py", "--topology", "cpu:8", say=("none.py",))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refuses(capsys, "plan", "x", "--topology", "v5e:2x2", say=("x",))
    with pytest.raises(UserError, match="tpu-plan"):
        chips.devices("v5e:2x2")
