"""Time by kind of layer, from what the profilers of JAX and PyTorch record.

Names decide: those of kernels on a GPU, of operations on a CPU, and for our programs the scopes of
`models/ops` that an operation comes from.
"""

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from omgsr_jax.cost.programs import kinds

KINDS = ("conv", "norm", "attention", "linear", "other")

# The first that matches counts.
_BY_NAME = (
    ("attention", re.compile(r"flash|fmha|attention|softmax", re.IGNORECASE)),
    ("norm", re.compile(r"norm|RowwiseMoments|welford|ComputeFusedParams", re.IGNORECASE)),
    ("conv", re.compile(r"conv(?!ert)|fprop|winograd|implicit_gemm|nchw", re.IGNORECASE)),
    ("linear", re.compile(r"gemm|gemv|mm\b|linear|\bdot|matmul|cutlass|nvjet", re.IGNORECASE)),
)
# What omgsr_jax.cost.programs calls them.
_BY_LAYER = {
    "convolution": "conv",
    "upsampling": "conv",
    "norm": "norm",
    "attention": "attention",
    "products": "linear",
}


def kind_of_name(name: str) -> str:
    return next((kind for kind, words in _BY_NAME if words.search(name)), "other")


def of_pytorch(run: Callable[[], Any]) -> dict[str, float]:
    """Seconds by kind of one run."""
    import torch

    on_gpu = torch.cuda.is_available()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        run()
        if on_gpu:
            torch.cuda.synchronize()
    found: dict[str, float] = defaultdict(float)
    for row in profile.key_averages():
        if not on_gpu:
            found[kind_of_name(row.key)] += row.self_cpu_time_total / 1e6
        elif row.device_type == torch.autograd.DeviceType.CUDA:  # kernels
            found[kind_of_name(row.key)] += row.self_device_time_total / 1e6
    return _by_kind(found)


def of_jax(compiled: Any, run: Callable[[], Any]) -> dict[str, float]:
    """Seconds by kind of one run of a compiled program; on several threads, all of their time."""
    import jax

    known = kinds_of_program(compiled.as_text())
    with tempfile.TemporaryDirectory(prefix="omgsr-profile-") as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(run())
        (path,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(path))
        found: dict[str, float] = defaultdict(float)
        for plane in profile.planes:
            for line in plane.lines:
                events = [
                    (
                        event.start_ns,
                        event.duration_ns,
                        str(dict(event.stats)["hlo_op"]),
                        event.name,
                    )
                    for event in line.events
                    if "hlo_op" in dict(event.stats)
                ]
                for operation, name, nanoseconds in _own_times(events):
                    kind = known.get(operation) or kind_of_name(name)
                    found[kind] += nanoseconds / 1e9
    return _by_kind(found)


def _own_times(
    events: Iterable[tuple[float, float, str, str]],
) -> Iterable[tuple[str, str, float]]:
    """Of events of one thread (start, duration, ...), without those that run inside them."""
    open_events: list[list[Any]] = []
    done = []
    for start, duration, operation, name in sorted(events, key=lambda e: (e[0], -e[1])):
        while open_events and open_events[-1][0] <= start:
            done.append(open_events.pop())
        if open_events:
            open_events[-1][3] -= duration
        open_events.append([start + duration, operation, name, duration])
    return [(operation, name, own) for _, operation, name, own in (*done, *open_events)]


def kinds_of_program(text: str) -> dict[str, str]:
    """The kind of every instruction of a compiled program, by its name."""
    return {name: _BY_LAYER.get(layer, "other") for name, layer in kinds(text).items()}


def _by_kind(found: Mapping[str, float]) -> dict[str, float]:
    return {kind: round(found.get(kind, 0.0), 6) for kind in KINDS}
