"""How long an optimiser step takes, ours and PyTorch's, on the same weights and batch.

Each system runs in a process of its own, as it would for a user. On CPUs their steps alternate, so
that a machine that slows down slows both; on a GPU, whose memory does not hold all of them, one
follows the other.
"""

import dataclasses
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from omgsr_jax.cost import flops
from omgsr_jax.training import host_memory
from omgsr_jax.training.blueprint import Blueprint
from omgsr_jax.training.config import TrainConfig
from omgsr_jax.training.run import Run

from ..convert import convert
from ..perceptual import convert_perceptual
from . import random_checkpoints
from .processes import in_own_process
from .torch_training import TorchTraining
from .training import random_numbers_of_step, small_training_config
from .workers import Lost, worker

OURS = "omgsr-jax"
AS_PUBLISHED = "PyTorch"
IN_BF16 = "PyTorch, all in bf16"


@dataclass(frozen=True)
class TrainingCase:
    preset: str
    pixels: int
    batch: int
    precision: str = "fp32"
    # The paper's, through VGG16 and DINOv2, or those of `small_training_config`.
    paper_losses: bool = False

    @property
    def systems(self) -> tuple[str, ...]:
        return (OURS, AS_PUBLISHED) + ((IN_BF16,) if self.precision == "bf16" else ())


class _Timed(NamedTuple):
    """A system that is ready to train."""

    step: Callable[[], dict[str, float]]
    peak_bytes: Callable[[], int | None]  # of a device's memory; None on a host
    facts: dict[str, Any]


class _Measured(NamedTuple):
    seconds: list[float]  # of every step
    facts: dict[str, Any]


def time_training_steps(case: TrainingCase, runs: int) -> dict[str, Any]:
    """Medians of `runs` steps of every system; the first step of each is left out."""
    import torch

    one_by_one = torch.cuda.is_available()
    groups = [[name] for name in case.systems] if one_by_one else [list(case.systems)]
    found: dict[str, _Measured] = {}
    with tempfile.TemporaryDirectory(prefix="omgsr-benchmark-") as scratch:
        in_own_process(_prepare, case, Path(scratch))
        for names in groups:
            try:
                found |= _in_turns(names, case, Path(scratch), runs)
            except Lost as error:
                raise SystemExit(f"{error}; its error is above") from None
            _require_agreement({name: one.facts for name, one in found.items()})
    return _row(case, found)


def _in_turns(
    names: list[str], case: TrainingCase, folder: Path, runs: int
) -> dict[str, _Measured]:
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(worker(name, _serve, name, case, folder)) for name in names
        }
        found = {name: _Measured([], one.answer()) for name, one in workers.items()}
        for run in range(runs + 1):
            for name, one in workers.items():
                elapsed, losses, pages = one.ask("step")
                if run:
                    found[name].seconds.append(elapsed)
                    found[name].facts["new_pages"] = pages
                else:
                    found[name].facts["first_losses"] = losses
                print(f"{name}: {elapsed:.3f} s" if run else f"{name}: {losses}", flush=True)
        for name, one in workers.items():
            found[name].facts["peak_gb"] = one.ask("stop")
    return found


def _require_agreement(facts: dict[str, dict[str, Any]]) -> None:
    """On the device, and on the first step's losses but the GAN's, whose heads begin at random."""
    devices = {name: found["device"] for name, found in facts.items()}
    if len(set(devices.values())) > 1:
        raise SystemExit(f"the systems ran on different devices, which compares nothing: {devices}")
    for term in ("ldr", "mse"):
        values = {name: found["first_losses"][term] for name, found in facts.items()}
        if not max(values.values()) <= 1.01 * min(values.values()):
            raise SystemExit(f"the systems do not compute the same {term}: {values}")


def _row(case: TrainingCase, found: dict[str, _Measured]) -> dict[str, Any]:
    medians = {name: statistics.median(measured.seconds) for name, measured in found.items()}
    return {
        **dataclasses.asdict(case),
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "all": {name: measured.seconds for name, measured in found.items()},
        "images_per_second": {n: round(case.batch / value, 3) for n, value in medians.items()},
        "speed_over": {n: round(medians[n] / medians[OURS], 3) for n in medians if n != OURS},
        "facts": {name: measured.facts for name, measured in found.items()},
    }


def _serve(name: str, case: TrainingCase, folder: Path, parent: Connection) -> None:
    """The life of a system's process: it gets ready, then makes a step whenever it is asked to."""
    config = _config(case, folder)
    in_bf16 = name == IN_BF16
    timed = _ours(config) if name == OURS else _pytorch(config, folder, everywhere=in_bf16)
    parent.send(timed.facts)
    while parent.recv() == "step":
        pages, started = _new_pages(), time.perf_counter()
        losses = timed.step()
        elapsed = time.perf_counter() - started
        parent.send((elapsed, losses, _new_pages() - pages))
    peak = timed.peak_bytes()
    parent.send(peak and round(peak / 1e9, 3))


def _new_pages() -> int:
    """How many pages of memory the kernel has handed out to this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _prepare(case: TrainingCase, folder: Path) -> None:
    """Random weights in PyTorch's formats, and converted. Both sides train on the same adapters."""
    jax.config.update("jax_platforms", "cpu")
    preset = random_checkpoints.PRESETS[case.preset]
    random_checkpoints.write_base(folder / "base", preset)
    random_checkpoints.write_adapters(folder / "adapter", folder / "base", preset)
    convert(str(folder / "base"), folder / "model", adapter=str(folder / "adapter"))
    if case.paper_losses:
        random_checkpoints.write_perceptual(folder / "networks", preset)
        convert_perceptual(folder / "networks", folder / "perceptual")


def _config(case: TrainingCase, folder: Path) -> TrainConfig:
    preset = random_checkpoints.PRESETS[case.preset]
    perceptual = str(folder / "perceptual") if case.paper_losses else ""
    config = small_training_config(str(folder / "model"), quirks=None, perceptual=perceptual)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(
            config.model,
            encoder_rank=preset.encoder_rank,
            backbone_rank=preset.backbone_rank,
            precision=case.precision,
        ),
        data=dataclasses.replace(config.data, resolution=case.pixels, batch_size=case.batch),
    )


def _ours(config: TrainConfig) -> _Timed:
    host_memory.keep()  # as scripts/train.py does
    run = Run.of(config, jax.devices()[:1])
    frozen, now, images = run.frozen(), [run.start()], _images(config)
    started = time.perf_counter()
    compiled = run.lower(images).compile()
    device = jax.devices()[0]
    facts = {
        "device": device.platform,
        "compile_seconds": round(time.perf_counter() - started, 1),
        "tflop_per_step": round(flops.step_flops(run.blueprint).total / 1e12, 3),
    }

    def one_step() -> dict[str, float]:
        now[0], metrics = compiled(now[0], frozen, jax.device_put(images))
        found = jax.device_get((metrics, now[0].step))[0]
        return {name: float(found[name]) for name in config.losses.active}

    return _Timed(one_step, lambda: (device.memory_stats() or {}).get("peak_bytes_in_use"), facts)


def _pytorch(config: TrainConfig, folder: Path, *, everywhere: bool) -> _Timed:
    import torch

    jax.config.update("jax_platforms", "cpu")  # PyTorch has the GPU to itself
    blueprint = Blueprint.of(config)
    on_gpu = torch.cuda.is_available()
    training = TorchTraining(
        folder / "base",
        folder / "adapter" / "vae_encoder_lora_adapter",
        folder / "adapter" / "unet_lora_adapter",
        config,
        blueprint.generator_config.mid_timestep,
        device="cuda" if on_gpu else "cpu",
        perceptual=folder / "networks" if config.model.perceptual else None,
        everywhere=everywhere,
    )
    images, sampled = _images(config), random_numbers_of_step(blueprint, 0)
    return _Timed(
        lambda: training.step(images, *sampled),
        lambda: torch.cuda.max_memory_allocated() if on_gpu else None,
        {"device": "gpu" if on_gpu else "cpu"},
    )


def _images(config: TrainConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    b, pixels = config.data.batch_size, config.data.resolution
    return {
        name: rng.uniform(-1, 1, (b, pixels, pixels, 3)).astype(np.float32) for name in ("lr", "hr")
    }
