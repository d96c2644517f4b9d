"""How long an optimiser step takes, ours and PyTorch's, on the same weights and batch."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from omgsr_jax.training import blueprint as blueprints
from omgsr_jax.training import sharding, state, step
from omgsr_jax.training.config import MeshConfig, TrainConfig

from . import random_checkpoints, train_parity
from .convert import convert
from .random_checkpoints import Preset
from .torch_training import TorchTraining


def measure(preset: str, pixels: int, batch: int, runs: int) -> dict[str, Any]:
    """Medians of `runs` steps on either side, in alternation; the first of each is left out."""
    with tempfile.TemporaryDirectory(prefix="omgsr-benchmark-") as scratch:
        base, model = Path(scratch) / "base", Path(scratch) / "model"
        architecture = random_checkpoints.PRESETS[preset]
        random_checkpoints.write_base(base, architecture)
        convert(str(base), model)
        config = _config(str(model), architecture, pixels, batch)
        systems = _systems(base, config, Path(scratch))
        seconds: dict[str, list[float]] = {name: [] for name in systems}
        for run in range(runs + 1):
            for name, timed in systems.items():
                started = time.perf_counter()
                timed()
                if run:
                    seconds[name].append(time.perf_counter() - started)
                    print(f"{name}: {seconds[name][-1]:.3f} s", flush=True)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "preset": preset,
        "pixels": pixels,
        "batch": batch,
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "all": seconds,
        "images_per_second": {name: round(batch / value, 3) for name, value in medians.items()},
        "speed_over_pytorch": round(medians["PyTorch"] / medians["omgsr-jax"], 3),
    }


def _config(model: str, preset: Preset, pixels: int, batch: int) -> TrainConfig:
    config = train_parity.small_config(model, quirks="none")
    return dataclasses.replace(
        config,
        model=dataclasses.replace(
            config.model,
            encoder_rank=preset.encoder_rank,
            backbone_rank=preset.backbone_rank,
        ),
        data=dataclasses.replace(config.data, resolution=pixels, batch_size=batch),
    )


def _systems(base: Path, config: TrainConfig, scratch: Path) -> dict[str, Callable[[], None]]:
    blueprint = blueprints.draw(config)
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    where = state.placed(blueprint, mesh)
    frozen, _ = state.load_frozen(blueprint, where)
    start = state.make_state(blueprint, where)
    folders = train_parity.write_adapters(blueprint, frozen, start.generator, scratch)
    theirs = TorchTraining(base, *folders, config, blueprint.generator_config.mid_timestep)
    rng = np.random.default_rng(0)
    batch, pixels = config.data.batch_size, config.data.resolution
    images = {
        name: rng.uniform(-1, 1, (batch, pixels, pixels, 3)).astype(np.float32)
        for name in ("lr", "hr")
    }
    drawn = train_parity.random_numbers(blueprint, 0)
    with jax.set_mesh(mesh):
        jitted = step.compile_ready(blueprint, where, mesh)
        compiled = jitted.lower(*where[:2], step.batch_shapes(blueprint)).compile()
    now = [start]

    def ours() -> None:
        now[0], metrics = compiled(now[0], frozen, jax.device_put(images))
        jax.device_get((metrics, now[0].step))

    def pytorch() -> None:
        theirs.step(images, *drawn)

    return {"omgsr-jax": ours, "PyTorch": pytorch}
