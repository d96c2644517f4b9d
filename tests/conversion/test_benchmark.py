"""The benchmark of inference: who hangs, dies or fails costs itself alone, and numbers add up."""

import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from conversion.parity import inference_peers, layer_kinds
from conversion.parity.inference_benchmark import Plan, measured
from conversion.parity.inference_cases import Case, Weights
from conversion.parity.workers import Lost, worker
from omgsr_jax.models.ops import attention, convolution
from tests.conversion import stub_peers

_CASES = [Case("bf16", 8, 1), Case("bf16", 16, 2)]


@pytest.fixture
def plan(tmp_path) -> Plan:
    nothing = Weights(tmp_path, None, tmp_path)
    flops = {8: 1e12, 16: 4e12}
    return Plan(
        nothing, (), _CASES, flops, 3, math.inf, True, True, tmp_path, serve=stub_peers.serve
    )


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("in_turns", [True, False])
def test_a_peer_that_dies_or_fails_costs_itself_alone(plan, in_turns):
    peers = ("ours", "dies", "compile", "fails") if in_turns else ("ours", "dies", "fails")
    rows = list(measured(replace(plan, peers=peers, in_turns=in_turns)))
    found = {(row["peer"], row["pixels"]): row for row in rows}
    assert len(found) == len(rows)
    assert found["dies", 8]["failed"] == "dies: its process ended with code 9"
    assert ("dies", 16) not in found
    assert found["fails", 8]["ours_over_this"] == 0.5
    assert found["fails", 16]["failed"] == "MemoryError: 8 GB are too few"
    large = found["ours", 16]
    assert large["all_seconds"] == [0.5] * 3
    assert large["first_call_seconds"] == 5
    assert large["megapixels_per_second"] == pytest.approx(2 * 256 / 1e6 / 0.5, rel=1e-3)
    assert large["share_of_peak"] == pytest.approx(2 * 4e12 / 0.5 / 989e12, abs=1e-4)
    assert large["peak_gb"] == 1.5
    assert large["profile"] == {"encode": {"seconds": 3.0}}
    assert found["fails", 8]["agreement_db"] > 200  # the same bits
    if in_turns:
        assert found["compile", 8]["agreement_db"] == pytest.approx(20 * math.log10(255), abs=0.01)


def test_a_peer_that_hangs_is_ended_with_what_it_has_started(tmp_path):
    note = tmp_path / "child"
    with worker("hangs", stub_peers.serve, "hangs", None, "fp32", limit_s=3) as one:
        with pytest.raises(Lost, match="hangs was stopped: its 3 s are over"):
            one.ask(("hang", note))
        child = int(note.read_text())
        assert is_alive(child)
    end = time.monotonic() + 5  # until the kernel has carried it out
    while is_alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_alive(child)


_PARENT = """
import time
from conversion.parity.workers import Worker
from tests.conversion import stub_peers
if __name__ == "__main__":
    print(Worker("ours", stub_peers.serve, "ours", None, "fp32").ask(("facts",))["pid"], flush=True)
    time.sleep(600)
"""


def test_a_peer_ends_with_the_process_that_asks_it(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        peer = int(parent.stdout.readline())
        assert is_alive(peer)
        parent.kill()
    end = time.monotonic() + 10
    while is_alive(peer) and time.monotonic() < end:
        time.sleep(0.1)
    assert not is_alive(peer)


def test_kinds_of_layers_are_told_by_scopes():
    def layers(x, w, q):
        y = convolution.convolve(x, w, padding=((1, 1), (1, 1)))
        attended = attention.attention(q, q, q)  # b n k d
        return y, attended, attended.reshape(64, -1) @ jnp.ones((32, 48))

    x, w, q = jnp.ones((1, 32, 32, 8)), jnp.ones((3, 3, 8, 8)), jnp.ones((1, 64, 2, 16))
    compiled = jax.jit(layers).lower(x, w, q).compile()
    kinds = layer_kinds.kinds_of_program(compiled.as_text())
    assert {"conv", "attention", "linear"} <= set(kinds.values())
    seconds = layer_kinds.of_jax(compiled, lambda: compiled(x, w, q))
    assert set(seconds) == set(layer_kinds.KINDS)
    assert seconds["conv"] > 0 < seconds["attention"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc", "conv"),
        ("aten::mkldnn_convolution", "conv"),
        ("void at::native::RowwiseMomentsCUDAKernel<c10::BFloat16>", "norm"),
        ("triton_red_fused_native_group_norm_silu_3", "norm"),
        ("pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64>>", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NTT", "linear"),
        ("aten::addmm", "linear"),
        ("loop_convert_fusion_3", "other"),
        ("aten::copy_", "other"),
    ],
)
def test_kernels_are_told_by_their_names(name, kind):
    assert layer_kinds.kind_of_name(name) == kind


def test_time_inside_other_events_is_counted_once():
    events = [(0, 10, "loop", "a"), (1, 4, "body", "b"), (6, 2, "body", "b"), (20, 5, "next", "c")]
    own = dict.fromkeys("abc", 0.0)
    for _, name, nanoseconds in layer_kinds._own_times(events):
        own[name] += nanoseconds
    assert own == {"a": 4, "b": 6, "c": 5}


def test_an_image_of_the_process_size_is_one_tile_and_one_of_twice_it_nine():
    assert inference_peers._corners(16, 16) == [(0, 0)]
    assert len(inference_peers._corners(32, 16)) == 9
    assert inference_peers._corners(33, 16)[-1] == (17, 17), "the last one ends with the latents"


def test_waiting_for_a_question_uses_no_core(plan):
    def seconds(process: int) -> float:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    with worker("ours", stub_peers.serve, "ours", None, "fp32") as one:
        process = one.ask(("facts",))["pid"]
        before = seconds(process)
        time.sleep(0.5)
        assert seconds(process) - before < 0.1
    assert not is_alive(process)
