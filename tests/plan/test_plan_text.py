"""Nothing of a compiled program's text is lost: it is read, or refused; and kernels count."""

import pytest

from rvq_jax.errors import UserError
from rvq_jax.plan import chips, hlo, kernels, traffic
from rvq_jax.plan.compiled import compile_for, cost
from rvq_jax.plan.doubts import doubts

# As XLA writes a kernel for TPUs: of one line in three the last begins as a computation ends.
NOTES = '"xprof_metadata":"{\\"block_q\\": 128, \\"block_kv\\": 256, \\"block_kv_compute\\": 256}"'
CALL = """%splash_mha_fwd_residuals.3 = (bf16[2,4,512,64]{3,2,1,0}, f32[2,4,512,128]{3,2,1,0}) \
custom-call(%next, %mask, %q, %q, %q, /*index=5*/%places), custom_call_target="tpu_custom_call", \
frontend_attributes={kernel_metadata={
NOTES
}}, metadata={op_name="jit(f)/splash_mha_fwd_residuals/pallas_call" stack_frame_id=12}, \
backend_config={"custom_call_config":{"body":"TUz}}vUgF{(=="}}""".replace("NOTES", NOTES)
TEXT = """HloModule jit_f, num_partitions=2, frontend_attributes={a="b;c"}

FileNames
1 "/a/file.py"

StackFrames
1 {file_location_id=1 parent_frame_id=1}


%body (t: (s32[], bf16[2,4,512,64])) -> (s32[], bf16[2,4,512,64]) {
  %t = (s32[], bf16[2,4,512,64]{3,2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %q = bf16[2,4,512,64]{3,2,1,0} get-tuple-element(%t), index=1
  %next = s8[1,4,2]{2,1,0} constant({...})
  %mask = s8[1,4,2]{2,1,0} constant({...})
  %places = s32[512,128]{1,0} iota(), iota_dimension=0
  CALL
  %out = bf16[2,4,512,64]{3,2,1,0} get-tuple-element(%splash_mha_fwd_residuals.3), index=0
  %dot = f32[2,4,64,64]{3,2,1,0} dot(%q, %out), lhs_batch_dims={0,1}, lhs_contracting_dims={2}, \
rhs_batch_dims={0,1}, rhs_contracting_dims={2}
  ROOT %tuple = (s32[], bf16[2,4,512,64]{3,2,1,0}) tuple(%i, %out)
}

%condition (t.1: (s32[], bf16[2,4,512,64])) -> pred[] {
  %t.1 = (s32[], bf16[2,4,512,64]{3,2,1,0}) parameter(0)
  ROOT %true = pred[] constant(true)
}, execution_thread="main"

ENTRY %main (p: (s32[], bf16[2,4,512,64])) -> (s32[], bf16[2,4,512,64]) {
  %p = (s32[], bf16[2,4,512,64]{3,2,1,0}) parameter(0)
  ROOT %while = (s32[], bf16[2,4,512,64]{3,2,1,0}) while(%p), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"24"}}
}
""".replace("CALL", CALL)


def test_what_follows_a_kernel_is_read():
    """Its own products, of six of the eight blocks that a causal mask does not hide whole, and the
    product after it, both in a loop of 24."""
    found = cost(TEXT)
    kernel = 2 * 2 * (2 * 4) * 6 * 128 * 256 * 64
    after = 2 * 2 * 4 * 64 * 64 * 512
    assert found.flops == 24 * (kernel + after) and found.unknown == ()
    module = hlo.parse(TEXT)
    assert list(module.computations) == ["body", "condition", "main"] and module.spread == 2
    assert len(module.computations["body"]) == 10


def test_a_kernel_reads_keys_as_often_as_it_comes_by_them():
    """Queries once, keys and values for each block of queries that sees them, and its results."""
    module = hlo.parse(TEXT)
    body = module.computations["body"]
    call = body["splash_mha_fwd_residuals.3"]
    one, sums, tables = 2 * 4 * 512 * 64 * 2, 2 * 4 * 512 * 128 * 4, 2 * 8 + 512 * 128 * 4
    # Six blocks of 256 keys are three times the 512.
    want = one + 2 * 3 * one + tables + one + sums
    assert traffic.of_instruction(module, body, call) == want


BROKEN = {
    "a computation that is not there": ("body=%body", "body=%nobody", "nobody"),
    "a loop's other name": ("condition=%condition", "condition=%lost", "lost"),
    "a line of another kind": ("  %i = s32[] get", "  something = else\n  %i = s32[] get", "line"),
    "no opcode": ("%i = s32[] get-tuple-element(%t)", "%i = s32[] (%t)", "line 12"),
    "an end before its time": ("  %out = bf16", "}\n  %out = bf16", "line"),
    "a brace that stays open": ("lhs_batch_dims={0,1}", "lhs_batch_dims={0,1", "brace"),
    "a name twice": ("%places = s32", "%mask = s32", "second"),
    "a part that is cut off": ("ENTRY %main", "cut off", "brace"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_understood_is_refused(name):
    before, after, said = BROKEN[name]
    assert TEXT.count(before) == 1
    with pytest.raises(ValueError, match=said):
        cost(TEXT.replace(before, after))


@pytest.mark.parametrize("end", [-3, -200, -900])
def test_a_text_that_ends_early_is_refused(end):
    with pytest.raises(ValueError, match=r"ends inside|brace|no|not"):
        cost(TEXT[:end])


def test_a_kernel_that_nobody_knows_is_named():
    """Unless it says itself what it costs."""
    other = TEXT.replace("splash_mha_fwd_residuals", "my_kernel")
    assert cost(other).unknown == ("my_kernel",)
    assert cost(TEXT.replace('"tpu_custom_call"', '"__cublas$gemm"')).unknown == ("__cublas$gemm",)
    said = other.replace('"body":', '"cost_estimate":{"flops":"1000","bytes_accessed":"5"},"body":')
    assert cost(said).unknown == () and cost(said).flops == cost(other).flops + 24 * 1000


def test_a_text_that_cannot_be_read_is_one_line_for_people():
    class Lowered:
        def compile(self):
            return self

        def memory_analysis(self):
            class Memory:
                argument_size_in_bytes = output_size_in_bytes = alias_size_in_bytes = 0
                temp_size_in_bytes = generated_code_size_in_bytes = 0

            return Memory()

        def as_text(self):
            return TEXT.replace("body=%body", "body=%nobody")

    with pytest.raises(UserError, match="nobody"):
        compile_for(chips.CHIPS["cpu"], Lowered(), "a step")


@pytest.mark.parametrize(
    ("kind", "results", "products"), [("fwd", 2, 2), ("dq", 1, 3), ("dkv", 2, 4), ("dkv", 3, 5)]
)
@pytest.mark.parametrize("causal", [True, False])
def test_kernels_work_out_blocks_that_are_not_hidden_whole(kind, results, products, causal):
    """Counted one by one."""
    T, E, q, kv = 768, 64, 256, 128
    shown = sum(not causal or j * kv < (i + 1) * q for i in range(T // q) for j in range(T // kv))
    notes = f'"block_q_dq": {q}, "block_kv_dq": {kv}'
    operands = [(False, (1, 3, 6))] * 2 * causal + [(True, (3, 2, T, E))] * 6
    found = kernels.splash(f"x/splash_mha_{kind}_no_residuals", notes, operands, [()] * results)
    assert found.flops == 2 * products * 3 * 2 * shown * q * kv * E


def test_counts_that_contradict_each_other_are_said():
    """No number stands on them: fewer FLOPs than the model needs, fewer bytes than parameters."""
    assert doubts(100.0, 90.0, 50.0, 40.0, ()) == []
    assert doubts(99.0, 100.0, 50.0, 40.0, ("a",)) == []
    (few,) = doubts(6.8e12, 6.4e13, 50.0, 40.0, ("my_kernel",))
    assert "6.8e+12" in few and "my_kernel" in few
    (little,) = doubts(100.0, 90.0, 30.0, 40.0, ())
    assert "parameters" in little
