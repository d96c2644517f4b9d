"""What is read off a compiled program's text."""

from omgsr_jax.training.aot import collectives

# As XLA prints them: layouts and tilings, long tuples with numbered elements, pairs of an
# asynchronous collective's start and end.
_PROGRAM = """
  %all-reduce.1 = (f32[4,8]{1,0:T(8,128)}, f32[]{:T(128)}, f32[2]{0}, f32[2]{0}, f32[2]{0}, \
/*index=5*/bf16[16]{0}) all-reduce(%a, %b, %c, %d, %e, /*index=5*/%f), replica_groups=[1,16]<=[16]
  %ag-start = (bf16[4]{0:T(256)}, bf16[64]{0:T(256)}) all-gather-start(%g), dimensions={0}
  %ag-done = bf16[64]{0:T(256)} all-gather-done(%ag-start)
  %sum = f32[100]{0} add(%h, %i), metadata={op_name="all-reduce"}
"""


def test_collectives_are_counted_by_kind_and_bytes():
    found = collectives(_PROGRAM)
    assert set(found) == {"all-reduce", "all-gather"}
    assert found["all-reduce"] == {"count": 1, "gb": (4 * 32 + 4 + 3 * 8 + 2 * 16) / 1e9}
    assert found["all-gather"] == {"count": 1, "gb": 128 / 1e9}
