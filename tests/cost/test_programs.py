"""What is read off a compiled program's text."""

from omgsr_jax.cost.programs import collectives

# As XLA prints them: layouts and tilings, long tuples with numbered elements, pairs of an
# asynchronous collective's start and end.
_PROGRAM = """
%wide.body.spmd (p.0: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %p.0 = (s32[]{:T(128)}, f32[8,16]{1,0}) parameter(0)
  %rs = f32[1,16]{1,0:T(1,128)} reduce-scatter(%x), dimensions={0}
  ROOT %t = (s32[]{:T(128)}, f32[8,16]{1,0}) tuple(%n, %y)
}

%wide.condition.spmd (p.2: (s32[], f32[8,16])) -> pred[] {
  %constant.9 = s32[]{:T(128)} constant(19)
  %i = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %constant.9), direction=LT
}

ENTRY %main.1_spmd (a: f32[4,8]) -> f32[] {
  %all-reduce.1 = (f32[4,8]{1,0:T(8,128)}, f32[]{:T(128)}, f32[2]{0}, f32[2]{0}, f32[2]{0}, \
/*index=5*/bf16[16]{0}) all-reduce(%a, %b, %c, %d, %e, /*index=5*/%f), replica_groups=[1,16]<=[16]
  %ag-start = (bf16[4]{0:T(256)}, bf16[64]{0:T(256)}) all-gather-start(%g), dimensions={0}
  %ag-done = bf16[64]{0:T(256)} all-gather-done(%ag-start)
  %sum = f32[100]{0} add(%h, %i), metadata={op_name="all-reduce"}
  %while.1 = (s32[]{:T(128)}, f32[8,16]{1,0}) while(%j), condition=%wide.condition.spmd, \
body=%wide.body.spmd, metadata={op_name="jit(step)/jvp()/while"}
}
"""


def test_collectives_are_counted_by_kind_and_bytes():
    found = collectives(_PROGRAM)
    assert set(found) == {"all-reduce", "all-gather", "reduce-scatter"}
    assert found["all-reduce"] == {"count": 1, "gb": (4 * 32 + 4 + 3 * 8 + 2 * 16) / 1e9}
    assert found["all-gather"] == {"count": 1, "gb": 128 / 1e9}


def test_what_stands_in_a_loop_is_counted_as_often_as_it_runs():
    assert collectives(_PROGRAM)["reduce-scatter"] == {"count": 19, "gb": 19 * 64 / 1e9}
