"""Time by kind of layer, from what the profilers of JAX and PyTorch record.

Names decide: those of kernels on a GPU, of operations on a CPU, and for our programs the lines of
our sources that an operation comes from.
"""

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

KINDS = ("conv", "norm", "attention", "linear", "other")

# The first that matches counts.
_BY_NAME = (
    ("attention", re.compile(r"flash|fmha|attention|softmax", re.IGNORECASE)),
    ("norm", re.compile(r"norm|RowwiseMoments|welford|ComputeFusedParams", re.IGNORECASE)),
    ("conv", re.compile(r"conv(?!ert)|fprop|winograd|implicit_gemm|nchw", re.IGNORECASE)),
    ("linear", re.compile(r"gemm|gemv|mm\b|linear|\bdot|matmul|cutlass|nvjet", re.IGNORECASE)),
)
_BY_SOURCE = (
    ("attention", re.compile(r"attention\.py|splash")),
    ("norm", re.compile(r"norm\.py")),
    ("conv", re.compile(r"convolution\.py|winograd\.py|direct\.py")),
)
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<rest>.*)$")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?(?P<name>[\w.-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply|body)=%?(?P<name>[\w.-]+)")
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_SOURCE = re.compile(r'source_file="([^"]*)"')
_IS_CONV = re.compile(r" convolution\(|\$conv|onednn\$convolution")
_IS_PRODUCT = re.compile(r" dot\(|\$gemm|\$matmul|\$lt\$matmul")


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

    kinds = kinds_of_program(compiled.as_text())
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
                    kind = kinds.get(operation) or kind_of_name(name)
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
    sources = _sources_by_frame(text)
    bodies: dict[str, list[str]] = {}
    lines: dict[str, str] = {}
    inside: list[str] = []
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            inside = bodies.setdefault(match["name"], [])
        elif match := _INSTRUCTION.match(line):
            lines[match["name"]] = match["rest"]
            inside.append(match["rest"])
    return {name: _kind(rest, bodies, sources) for name, rest in lines.items()}


def _kind(line: str, bodies: Mapping[str, list[str]], sources: Mapping[str, str]) -> str:
    called = _CALLED.search(line)
    whole = [line, *(bodies.get(called["name"], []) if called else [])]
    where = " ".join(sources.get(frame, "") for part in whole for frame in _FRAME.findall(part))
    where += " ".join(source for part in whole for source in _SOURCE.findall(part))
    found = next((kind for kind, files in _BY_SOURCE if files.search(where)), None)
    if any(_IS_CONV.search(part) for part in whole):
        return "conv"
    if any(_IS_PRODUCT.search(part) for part in whole):
        return found if found in ("attention", "conv") else "linear"
    return found or "other"


def _sources_by_frame(text: str) -> dict[str, str]:
    """The file that each stack frame of a program's tables lies in."""

    def table(title: str) -> dict[str, str]:
        block = re.search(rf"^{title}\n((?:\d+ .*\n)*)", text, re.MULTILINE)
        rows = (row.split(" ", 1) for row in (block[1] if block else "").splitlines())
        return {row[0]: row[1] for row in rows}

    def number(name: str, row: str) -> str:
        match = re.search(rf"{name}=(\d+)", row)
        return match[1] if match else ""

    files, places = table("FileNames"), table("FileLocations")
    file_of = {n: files.get(number("file_name_id", row), "") for n, row in places.items()}
    frames = table("StackFrames")
    found: dict[str, str] = {}
    for frame in frames:
        chain: list[str] = []
        here = frame
        while here in frames and len(chain) < 100:
            chain.append(file_of.get(number("file_location_id", frames[here]), ""))
            above = number("parent_frame_id", frames[here])
            if above == here:
                break
            here = above
        found[frame] = " ".join(chain)
    return found


def _by_kind(found: Mapping[str, float]) -> dict[str, float]:
    return {kind: round(found.get(kind, 0.0), 6) for kind in KINDS}
