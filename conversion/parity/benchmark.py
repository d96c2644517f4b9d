"""How long an optimiser step takes, ours and PyTorch's, on the same weights and batch.

Each system runs in a process of its own, as it would for a user. On CPUs their steps alternate, so
that a machine that slows down slows both; on a GPU, whose memory does not hold all of them, one
follows the other. One that hangs or dies costs itself alone.
"""

import dataclasses
import math
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from omgsr_jax.cost import flops
from omgsr_jax.training import gpu_flags, host_memory
from omgsr_jax.training.blueprint import Blueprint
from omgsr_jax.training.config import TrainConfig
from omgsr_jax.training.run import Run

from ..convert import convert
from ..perceptual import convert_perceptual
from . import layer_kinds, random_checkpoints
from .processes import in_own_process
from .torch_training import TorchTraining
from .training import random_numbers_of_step, small_training_config
from .workers import Lost, Worker, worker

OURS = "omgsr-jax"
_PUBLISHED = "PyTorch"
_IN_BF16 = "PyTorch, all in bf16"
_COMPILED = "PyTorch, all in bf16, compiled"
# By the names of inference's peers.
SYSTEMS = {"ours": OURS, "eager": _PUBLISHED, "channels-last": _IN_BF16, "compile": _COMPILED}


@dataclass(frozen=True)
class TrainingCase:
    preset: str
    pixels: int
    batch: int
    precision: str = "fp32"
    # The paper's, through VGG16 and DINOv2, or those of `small_training_config`.
    paper_losses: bool = False
    profiled: bool = False


class _Timed(NamedTuple):
    """A system that is ready to train."""

    step: Callable[[], dict[str, float]]
    last_facts: Callable[[], dict[str, Any]]  # once it has trained
    facts: dict[str, Any]


class _Measured(NamedTuple):
    seconds: list[float]  # of every step
    facts: dict[str, Any]


def systems_of(precision: str, asked: Sequence[str] | None) -> list[str]:
    """Those of the names in `asked`, or all that suit; what compiles longest is the last."""
    import torch

    usual = ["ours", "eager"]
    if precision == "bf16":
        usual += ["channels-last"]
        usual += ["compile"] if torch.cuda.is_available() else []
    return [system for name, system in SYSTEMS.items() if name in (asked or usual)]


def time_training_steps(
    case: TrainingCase, systems: Sequence[str], runs: int, limit_s: float = math.inf
) -> Iterator[dict[str, Any]]:
    """Medians of `runs` steps of every system; the first step of each is left out.

    The row of the case comes again whenever more of it is known.
    """
    import torch

    groups = [[name] for name in systems] if torch.cuda.is_available() else [list(systems)]
    found: dict[str, _Measured] = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="omgsr-benchmark-") as scratch:
        in_own_process(_prepare, case, Path(scratch))
        for names in groups:
            for name, outcome in _in_turns(names, case, Path(scratch), runs, limit_s).items():
                if isinstance(outcome, Lost):
                    failed[name] = str(outcome)
                else:
                    found[name] = outcome
            _require_agreement({name: one.facts for name, one in found.items()})
            yield _row(case, found, failed)


def _in_turns(
    names: list[str], case: TrainingCase, folder: Path, runs: int, limit_s: float
) -> dict[str, _Measured | Lost]:
    outcomes: dict[str, _Measured | Lost] = {}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(worker(name, _serve, name, case, folder, limit_s=limit_s))
            for name in names
        }

        def answered(name: str, do: Callable[[Worker, _Measured], None]) -> None:
            one = outcomes.setdefault(name, _Measured([], {}))
            if isinstance(one, Lost):
                return
            try:
                do(workers[name], one)
            except Lost as error:
                print(f"{error}; if there was an error, it is above", flush=True)
                outcomes[name] = error

        for do in (_facts, *[_step] * (runs + 1), _last_facts):
            for name in names:
                answered(name, do)
    return outcomes


def _facts(of: Worker, found: _Measured) -> None:
    found.facts.update(of.answer())


def _step(of: Worker, found: _Measured) -> None:
    elapsed, losses, pages = of.ask("step")
    if "first_losses" in found.facts:
        found.seconds.append(elapsed)
        found.facts["new_pages"] = pages
    else:
        found.facts.update(first_losses=losses, first_step_seconds=round(elapsed, 1))
    print(f"{of.name}: {elapsed:.3f} s, {losses}", flush=True)


def _last_facts(of: Worker, found: _Measured) -> None:
    found.facts.update(of.ask("stop"))


def _require_agreement(facts: dict[str, dict[str, Any]]) -> None:
    """On the device, and on the first step's losses but the GAN's, whose heads begin at random."""
    devices = {name: found["device"] for name, found in facts.items()}
    if len(set(devices.values())) > 1:
        raise SystemExit(f"the systems ran on different devices, which compares nothing: {devices}")
    for term in ("ldr", "mse"):
        values = {name: found["first_losses"][term] for name, found in facts.items()}
        if values and not max(values.values()) <= 1.01 * min(values.values()):
            raise SystemExit(f"the systems do not compute the same {term}: {values}")


def _row(case: TrainingCase, found: dict[str, _Measured], failed: dict[str, str]) -> dict[str, Any]:
    medians = {name: statistics.median(measured.seconds) for name, measured in found.items()}
    row = {
        **dataclasses.asdict(case),
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "all": {name: measured.seconds for name, measured in found.items()},
        "images_per_second": {n: round(case.batch / value, 3) for n, value in medians.items()},
        "facts": {name: measured.facts for name, measured in found.items()},
        "failed": failed,
    }
    if ours := medians.get(OURS):
        limits = flops.peaks(found[OURS].facts["device_kind"]) if case.precision == "bf16" else None
        needed = found[OURS].facts["tflop_per_step"] * 1e12
        row["share_of_peak"] = limits and round(needed / ours / limits[0], 4)
        row["speed_over"] = {n: round(medians[n] / ours, 3) for n in medians if n != OURS}
    return row


def _serve(name: str, case: TrainingCase, folder: Path, parent: Connection) -> None:
    """The life of a system's process: it gets ready, then makes a step whenever it is asked to."""
    config = _config(case, folder)
    if name == OURS:
        timed = _ours(config, profiled=case.profiled)
    else:
        jax.config.update("jax_platforms", "cpu")  # PyTorch has the GPU to itself
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
        timed = _pytorch(config, folder, everywhere=name != _PUBLISHED, compiled=name == _COMPILED)
    parent.send(timed.facts)
    while parent.recv() == "step":
        pages, started = _new_pages(), time.perf_counter()
        losses = timed.step()
        elapsed = time.perf_counter() - started
        parent.send((elapsed, losses, _new_pages() - pages))
    parent.send(timed.last_facts())


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


def _ours(config: TrainConfig, *, profiled: bool) -> _Timed:
    gpu_flags.use()  # both as scripts/train.py does
    host_memory.keep()
    run = Run.of(config, jax.devices()[:1])
    frozen, now, images = run.frozen(), [run.start()], _images(config)
    started = time.perf_counter()
    compiled = run.lower(images).compile()
    device = jax.devices()[0]
    facts = {
        "device": device.platform,
        "device_kind": device.device_kind,
        "version": f"jax {jax.__version__}",
        "compile_seconds": round(time.perf_counter() - started, 1),
        "tflop_per_step": round(flops.step_flops(run.blueprint).total / 1e12, 3),
    }

    def one_step() -> dict[str, float]:
        now[0], metrics = compiled(now[0], frozen, jax.device_put(images))
        found = jax.device_get((metrics, now[0].step))[0]
        return {name: float(found[name]) for name in config.losses.active}

    def last_facts() -> dict[str, Any]:
        peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
        found: dict[str, Any] = {"peak_gb": _gigabytes(peak)}
        if profiled:
            found["seconds_by_kind"] = layer_kinds.of_jax(compiled, one_step)
        return found

    return _Timed(one_step, last_facts, facts)


def _pytorch(config: TrainConfig, folder: Path, *, everywhere: bool, compiled: bool) -> _Timed:
    import torch

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
        compiled=compiled,
    )
    images, sampled = _images(config), random_numbers_of_step(blueprint, 0)
    facts = {"device": "gpu" if on_gpu else "cpu", "version": f"torch {torch.__version__}"}

    def last_facts() -> dict[str, Any]:
        return {"peak_gb": _gigabytes(torch.cuda.max_memory_allocated() if on_gpu else None)}

    return _Timed(lambda: training.step(images, *sampled), last_facts, facts)


def _gigabytes(number: int | None) -> float | None:
    return None if number is None else round(number / 1e9, 3)


def _images(config: TrainConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    b, pixels = config.data.batch_size, config.data.resolution
    return {
        name: rng.uniform(-1, 1, (b, pixels, pixels, 3)).astype(np.float32) for name in ("lr", "hr")
    }
