"""Compiles the real training step for a TPU slice that is not there, and says what it costs."""

import time
from typing import Any

import jax

from ..training.config import TrainConfig
from ..training.run import Run
from .flops import peaks, step_flops
from .programs import collectives


def report(config: TrainConfig, devices: list[Any]) -> dict[str, Any]:
    """Memory against the device's, FLOPs against the analytic count, collectives, and a roofline.

    The compiler counts FLOPs and bytes of a loop's body once, so FLOPs are held against an analytic
    count that does the same; collectives are counted as often as they run.

    The roofline takes the slower of arithmetic and memory, and adds the traffic between devices,
    as if nothing of it were hidden: no step is faster than that arithmetic, most are slower.
    """
    run = Run.of(config, devices)
    mesh, layout = run.mesh, run.layout
    started = time.time()
    compiled = run.lower().compile()
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    text = compiled.as_text() or ""
    needed, counted = step_flops(run.blueprint), step_flops(run.blueprint, loops_once=True)
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
        "gb_frozen": _gb_per_device(layout.frozen, layout.frozen_sharding),
        "gb_trained": _gb_per_device(layout.state, layout.state_sharding),
        "gb_total": _total(memory) / 1e9,
        "tflop_compiler": cost["flops"] / 1e12,
        "tflop_counted": (counted.total - counted.kernels) / mesh.size / 1e12,
        "tflop_needed": needed.total / mesh.size / 1e12,
        "custom_kernels": text.count("tpu_custom_call"),
        "gb_accessed": cost["bytes accessed"] / 1e9,
        "collectives": collectives(text),
        "compile_seconds": time.time() - started,
    }
    limits = peaks(kind)
    if limits is not None:
        found |= _roofline(found, *limits)
    return found


def _roofline(
    found: dict[str, Any], flops: float, memory: float, size: float, links: float
) -> dict[str, Any]:
    between = sum(entry["gb"] for entry in found["collectives"].values()) * 1e9 / links
    waste = found["tflop_compiler"] / found["tflop_counted"]
    arithmetic = waste * found["tflop_needed"] * 1e12 / flops
    accessed = found["gb_accessed"] * 1e9 / memory
    seconds = max(arithmetic, accessed) + between
    return {
        "gb_device": size / 1e9,
        "fits": found["gb_total"] * 1e9 < size,
        "seconds_arithmetic": arithmetic,
        "seconds_memory": accessed,
        "seconds_between": between,
        "seconds_step": seconds,
        "utilisation_at_best": found["tflop_needed"] * 1e12 / flops / seconds,
    }


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
