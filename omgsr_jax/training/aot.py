"""Compiles the real training step for a TPU slice that is not there, and says what it costs."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax

from . import blueprint as blueprints
from .config import TrainConfig
from .flops import peaks, step_flops
from .sharding import make_mesh
from .state import placed
from .step import batch_shapes, compile_ready

_BYTES = {"f32": 4, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "pred": 1, "s8": 1, "u8": 1}
_COLLECTIVE = re.compile(
    r"= (?P<shapes>\(?[^=]*?) "
    r"(?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)
_COMMENT = re.compile(r"/\*.*?\*/")  # long tuples have their elements numbered: /*index=5*/
_SHAPE = re.compile(r"(?P<dtype>[a-z]+\d*)\[(?P<sizes>[\d,]*)\]")


def report(config: TrainConfig, devices: list[Any]) -> dict[str, Any]:
    """Memory against the device's, FLOPs against the analytic count, collectives, and a roofline.

    The roofline takes the slower of arithmetic and memory, and adds the traffic between devices,
    as if nothing of it were hidden: no step is faster than that arithmetic, most are slower.
    """
    blueprint = blueprints.draw(config)
    mesh = make_mesh(config.mesh, devices)
    where = placed(blueprint, mesh)
    started = time.time()
    with jax.set_mesh(mesh):
        step = compile_ready(blueprint, where, mesh)
        lowered = step.lower(where.state, where.frozen, batch_shapes(blueprint))
        compiled = lowered.compile()
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    text = compiled.as_text() or ""
    needed = step_flops(blueprint)
    kind = devices[0].device_kind
    found: dict[str, Any] = {
        "config": config.name,
        "device": kind,
        "mesh": {axis: size for axis, size in mesh.shape.items() if size > 1},
        "batch": config.data.batch_size,
        "accumulation": config.data.accumulation,
        "remat": config.model.remat,
        "gb_arguments": memory.argument_size_in_bytes / 1e9,
        "gb_donated": memory.alias_size_in_bytes / 1e9,
        "gb_temporary": memory.temp_size_in_bytes / 1e9,
        "gb_frozen": _gb_per_device(where.frozen, where.frozen_sharding),
        "gb_trained": _gb_per_device(where.state, where.state_sharding),
        "gb_total": _total(memory) / 1e9,
        "tflop_compiler": cost["flops"] / 1e12,
        "tflop_needed": (needed.total - needed.kernels) / mesh.size / 1e12,
        "tflop_in_kernels": needed.kernels / mesh.size / 1e12,
        "custom_kernels": text.count("tpu_custom_call"),
        "gb_accessed": cost["bytes accessed"] / 1e9,
        "collectives": collectives(text),
        "compile_seconds": time.time() - started,
    }
    limits = peaks(kind)
    if limits is not None:
        found |= _roofline(found, needed.total / mesh.size, *limits)
    return found


def _roofline(
    found: dict[str, Any], needed: float, flops: float, memory: float, size: float, links: float
) -> dict[str, Any]:
    between = sum(entry["gb"] for entry in found["collectives"].values()) * 1e9 / links
    arithmetic = (found["tflop_compiler"] + found["tflop_in_kernels"]) * 1e12 / flops
    accessed = found["gb_accessed"] * 1e9 / memory
    seconds = max(arithmetic, accessed) + between
    return {
        "gb_device": size / 1e9,
        "fits": found["gb_total"] * 1e9 < size,
        "seconds_arithmetic": arithmetic,
        "seconds_memory": accessed,
        "seconds_between": between,
        "seconds_step": seconds,
        "utilisation_at_best": needed / flops / seconds,
    }


def collectives(text: str) -> dict[str, dict[str, float]]:
    """How many collectives of each kind a program has, and the gigabytes that they put out."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for match in _COLLECTIVE.finditer(_COMMENT.sub("", text)):
        kind = match["kind"]
        counts[kind] += 1
        sizes[kind] += (
            max(_sizes(match["shapes"])) if "start" in match[0] else sum(_sizes(match["shapes"]))
        )
    return {kind: {"count": counts[kind], "gb": sizes[kind] / 1e9} for kind in sorted(counts)}


def _sizes(shapes: str) -> Iterator[int]:
    for match in _SHAPE.finditer(shapes):
        size = _BYTES.get(match["dtype"], 4)
        for length in filter(None, match["sizes"].split(",")):
            size *= int(length)
        yield size


def _gb_per_device(tree: Any, shardings: Any) -> float:
    leaves = zip(jax.tree.leaves(tree), jax.tree.leaves(shardings), strict=True)
    total = 0
    for leaf, sharding in leaves:
        shard = sharding.shard_shape(leaf.shape)
        size = leaf.dtype.itemsize
        for length in shard:
            size *= length
        total += size
    return total / 1e9


def _total(memory: Any) -> int:
    """What a device holds at its fullest."""
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
