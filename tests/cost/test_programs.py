"""What is read off a compiled program's text."""

import jax
import jax.numpy as jnp
import pytest

from omgsr_jax.cost.programs import collectives, traffic

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


# A norm whose input is sliced for a sample, a convolution that a norm is fused into, a copy that a
# convolution asked for, a kernel described over two lines, and a sum in a loop of three turns.
_LAYERS = """
%sample (param_0.1: bf16[8,4]) -> f32[4] {
  %param_0.1 = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  %slice.1 = bf16[1,4]{1,0:T(8,128)(2,1)} slice(%param_0.1), slice={[0:1], [0:4]}
  ROOT %r = f32[4]{0} convert(%slice.1)
}

%fused (param_0.2: bf16[8,4], param_1.2: bf16[3,4,4]) -> bf16[8,4] {
  %param_0.2 = bf16[8,4]{1,0} parameter(0)
  %param_1.2 = bf16[3,4,4]{2,1,0} parameter(1)
  %m = bf16[8,4]{1,0} multiply(%param_0.2, %param_0.2), metadata={op_name="jit(f)/group_norm/mul"}
  %c = f32[8,4]{1,0} convolution(%m, %param_1.2), metadata={op_name="jit(f)/convolve/cond/conv"}
  ROOT %b = bf16[8,4]{1,0} convert(%c), metadata={op_name="jit(f)/convert_element_type"}
}

%body (p.0: (s32[], f32[100])) -> (s32[], f32[100]) {
  %p.0 = (s32[], f32[100]{0}) parameter(0)
  %x = f32[100]{0} get-tuple-element(%p.0), index=1
  %s = f32[100]{0} add(%x, %x), metadata={op_name="jit(f)/while/body/add"}
  ROOT %t = (s32[], f32[100]{0}) tuple(%n, %s)
}

%condition (p.2: (s32[], f32[100])) -> pred[] {
  %limit = s32[] constant(3)
  %p.2 = (s32[], f32[100]{0}) parameter(0)
}

ENTRY %main (a: bf16[8,4], k: bf16[3,4,4]) -> bf16[8,4] {
  %a = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  %k = bf16[3,4,4]{2,1,0} parameter(1)
  %mean = f32[4]{0:T(128)} fusion(%a), kind=kLoop, calls=%sample, \
metadata={op_name="jit(f)/jvp(group_norm)/sum"}, backend_config={"estimated_cycles":"2000000"}
  %copy.1 = bf16[8,4]{0,1} copy(%a), metadata={op_name="jit(f)/convolve/cond/conv"}
  %y = bf16[8,4]{1,0} fusion(%copy.1, %k), kind=kOutput, calls=%fused
  %attended = bf16[8,4]{1,0} custom-call(%y), frontend_attributes={kernel={
}}, metadata={op_name="jit(f)/attention/pallas_call"}
  %loop = (s32[], f32[100]{0}) while(%j), condition=%condition, body=%body
}
"""


def test_traffic_is_counted_by_kind_of_layer():
    found = {kind: count["gb"] * 1e9 for kind, count in traffic(_LAYERS).items()}
    assert found == pytest.approx(
        {
            "norm": 4 * 4 + 2 * 4,  # what it writes, and the slice
            "convolution": 64 + 64 + (64 + 64 + 96),  # the copy; out, in and kernel
            "copies": 64 + 64,
            "attention": 64 + 64,
            "elementwise": 3 * 3 * 400,
        }
    )
    assert traffic(_LAYERS)["norm"]["megacycles"] == 2


def test_traffic_is_what_the_compiler_counts():
    """Of a program of a few kernels, where nothing is in a cache."""
    x, k = jnp.ones((64, 96)), jnp.ones((96, 80))
    compiled = jax.jit(lambda x, k: jnp.tanh(x @ k)).lower(x, k).compile()
    ours = sum(count["gb"] for count in traffic(compiled.as_text()).values()) * 1e9
    assert ours == pytest.approx(compiled.cost_analysis()["bytes accessed"], rel=0.02)
