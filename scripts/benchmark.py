"""How long inference takes, ours and PyTorch's, on the same weights and input in one run.

    python scripts/benchmark.py inference --preset sd-turbo --runs 3
    python scripts/benchmark.py inference --base stabilityai/sd-turbo --adapter DIR --batch 1 8
    python scripts/benchmark.py inference --preset tiny --pixels 64 --out /tmp/benchmark
    python scripts/benchmark.py training --preset tiny --pixels 32 128 --batch 4 --runs 8
    python scripts/benchmark.py training --preset sd-mid --pixels 256
    python scripts/benchmark.py training --preset sd-turbo --losses paper --precision bf16 --batch 4

PyTorch is diffusers and peft as the published inference builds them, with the posterior's mode.
On CPUs runs alternate, so that a machine that slows down slows both; the table has medians. On a
GPU PyTorch also runs with torch.compile(mode="max-autotune") and channels-last. Before anything is
timed, the outputs are compared: below --agreement dB in fp32 the run fails.
Writes benchmark.json and benchmark.md to --out.

`training` times optimiser steps instead, and writes training.json. In bf16 PyTorch runs as the
published loop has it, the VAE in fp32, and once more with everything in bf16.
"""

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
from omgsr_jax.inference.engine import Engine

from conversion.convert import convert
from conversion.diffusers_folder import DiffusersFolder
from conversion.parity import random_checkpoints
from conversion.parity.arrays import psnr, to_nchw, to_nhwc
from conversion.parity.benchmark import TrainingCase, time_training_steps
from conversion.parity.inference import TorchPipeline
from omgsr_jax import converted, files
from omgsr_jax.inference.loading import load
from omgsr_jax.inference.upscaler import Upscaler

STAGES = ("encode", "predict", "decode")
Timed = Callable[[], dict[str, float]]


def main() -> int:
    args = _parser().parse_args()
    if args.what == "training":
        return _training(args)
    if args.cold_start:
        return _cold_start(args)
    with _checkpoint(args) as (base, adapter, model):
        rows = [
            row
            for precision in args.precision
            for pixels in args.pixels
            for batch in args.batch
            for row in _measure(base, adapter, model, precision, pixels, batch, args)
        ]
        starts = _starts(model, args.pixels[0], args.precision[0]) if args.starts else {}
    report = {
        "weights": args.preset or args.base,
        "rows": rows,
        "start_seconds": starts,
        "machine": _machine(),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    files.write_text(args.out / "benchmark.json", json.dumps(report, indent=2) + "\n")
    files.write_text(args.out / "benchmark.md", _markdown(report))
    print(_markdown(report))
    return 0 if all(row["agreement_db"] >= args.agreement for row in rows if _is_fp32(row)) else 1


def _training(args: argparse.Namespace) -> int:
    """An optimiser step of every system."""
    if not args.preset:
        raise SystemExit("training is measured on random weights: give --preset")
    rows = [
        time_training_steps(
            TrainingCase(
                args.preset, pixels, batch, precision, paper_losses=args.losses == "paper"
            ),
            args.runs,
        )
        for precision in args.precision
        for pixels in args.pixels
        for batch in args.batch
    ]
    report = {"rows": rows, "machine": _machine()}
    args.out.mkdir(parents=True, exist_ok=True)
    files.write_text(args.out / "training.json", json.dumps(report, indent=2) + "\n")
    for row in rows:
        print(f"{row['precision']}, {row['pixels']} px, batch {row['batch']}: seconds "
              f"{row['seconds']}, our speed over theirs {row['speed_over']}")  # fmt: skip
    return 0


def _is_fp32(row: dict[str, Any]) -> bool:
    return row["precision"] == "fp32"


@contextmanager
def _checkpoint(args: argparse.Namespace) -> Iterator[tuple[Path, Path | None, Path]]:
    """The diffusers folder, the adapter and the converted model to compare."""
    with tempfile.TemporaryDirectory(prefix="omgsr-benchmark-") as scratch:
        model = Path(scratch) / "model"
        base, adapter = Path(scratch) / "base", Path(scratch) / "adapter"
        if args.preset:
            preset = random_checkpoints.PRESETS[args.preset]
            random_checkpoints.write_base(base, preset)
            random_checkpoints.write_adapters(adapter, base, preset)
        else:
            base, adapter = DiffusersFolder(args.base).path, args.adapter
        size = min(args.pixels)
        convert(str(base), model, adapter=str(adapter) if adapter else None, process_size=size)
        yield base, adapter, model


def _measure(
    base: Path,
    adapter: Path | None,
    model: Path,
    precision: str,
    pixels: int,
    batch: int,
    args: argparse.Namespace,
) -> list[dict[str, Any]]:
    """One row per system."""
    x_l = _input(pixels, batch)
    upscaler = load(model, precision=precision, batch=batch)
    systems: dict[str, Timed] = {"omgsr-jax": _ours(upscaler, x_l)}
    pipelines = _pytorch(base, adapter, model, precision)
    systems |= {name: _theirs(pipeline, x_l) for name, pipeline in pipelines.items()}
    print(f"comparing outputs: {precision}, {pixels} px, batch {batch}", flush=True)
    reference = next(iter(pipelines.values())).stages(x_l)["decode"]
    ours, _ = upscaler.engine.restore(list(x_l))
    agreement = psnr(np.stack(ours), reference)
    times: dict[str, list[dict[str, float]]] = {name: [] for name in systems}
    for name, run in _turns(list(systems), args.runs + 1):
        seconds = systems[name]()
        if run:  # the first run compiles, or warms caches
            times[name].append(seconds)
            print(f"{name}: {seconds['total']:.3f} s", flush=True)
    rows: list[dict[str, Any]] = []
    for name, runs in times.items():
        median = {
            stage: statistics.median(run[stage] for run in runs) for stage in (*STAGES, "total")
        }
        rows.append(
            {
                "system": name,
                "precision": precision,
                "pixels": pixels,
                "batch": batch,
                "seconds": {stage: round(value, 4) for stage, value in median.items()},
                "all_totals": [round(run["total"], 4) for run in runs],
                "agreement_db": round(agreement, 2),
                "peak_gb": _peak_gb(name),
            }
        )
    first, *others = (statistics.median(run["total"] for run in runs) for runs in times.values())
    for row, theirs in zip(rows[1:], others, strict=True):
        row["ours_over_this"] = round(first / theirs, 3)
    del systems, pipelines, upscaler
    gc.collect()
    return rows


def _turns(names: list[str], runs: int) -> list[tuple[str, int]]:
    """In alternation on a CPU. On a GPU, which is steady, one system's after the other's: what is
    known of the others is printed before PyTorch's compiler takes its many minutes."""
    if jax.default_backend() == "cpu":
        return [(name, run) for run in range(runs) for name in names]
    return [(name, run) for name in names for run in range(runs)]


def _input(pixels: int, batch: int) -> np.ndarray:
    """Blurred noise, b h w 3 in [-1, 1]: the enlarged input that both sides get."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(-1, 1, (batch, pixels // 4, pixels // 4, 3)).astype(np.float32)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def _ours(upscaler: Upscaler, x_l: np.ndarray) -> Timed:
    engine: Engine = upscaler.engine

    def timed() -> dict[str, float]:
        started = time.perf_counter()
        _, works = engine.restore(list(x_l))
        total = time.perf_counter() - started
        return {stage: sum(work.seconds[stage] for work in works) for stage in STAGES} | {
            "total": total
        }

    return timed


def _pytorch(
    base: Path, adapter: Path | None, model: Path, precision: str
) -> dict[str, TorchPipeline]:
    """The published pipeline, and on a GPU its compiled form."""
    import torch

    card = converted.read_card(model)
    prompt = converted.read_prompt(model)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def build() -> TorchPipeline:
        pipeline = TorchPipeline(base, adapter, card.generator.mid_timestep, prompt)
        return pipeline.cast(dtype)

    pipelines = {"PyTorch": build()}
    if torch.cuda.is_available():
        compiled = build()
        for part in (pipelines["PyTorch"], compiled):
            part.vae.cuda()
            part.predictor.network.cuda()
        for network in (compiled.vae, compiled.predictor.network):
            network.to(memory_format=torch.channels_last)
        compiled.vae.encode = torch.compile(compiled.vae.encode, mode="max-autotune")
        compiled.vae.decode = torch.compile(compiled.vae.decode, mode="max-autotune")
        compiled.predictor.network = torch.compile(compiled.predictor.network, mode="max-autotune")
        pipelines["PyTorch compiled"] = compiled
    return pipelines


def _theirs(pipeline: TorchPipeline, x_l: np.ndarray) -> Timed:
    import torch

    device, dtype = pipeline.vae.device, pipeline.vae.dtype

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @torch.no_grad()
    def timed() -> dict[str, float]:
        ticks = [clock()]
        x = to_nchw(x_l).to(device, dtype)
        z_l = pipeline.encode(x)
        ticks.append(clock())
        z_p = pipeline.predictor.clean(z_l, pipeline.predict(z_l))
        ticks.append(clock())
        to_nhwc(pipeline.decode(z_p.to(dtype)))
        ticks.append(clock())
        spans = [after - before for before, after in pairwise(ticks)]
        return dict(zip(STAGES, spans, strict=True)) | {"total": ticks[-1] - ticks[0]}

    return timed


def _peak_gb(name: str) -> float | None:
    """On a device, of the system; the host's memory is shared by both, so it says nothing."""
    if name == "omgsr-jax":
        found = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
        return round(found / 1e9, 3) if found else None
    import torch

    return round(torch.cuda.max_memory_allocated() / 1e9, 3) if torch.cuda.is_available() else None


def _starts(model: Path, pixels: int, precision: str) -> dict[str, float]:
    """Seconds from starting a process to the first image, without and with compiled programs."""
    with tempfile.TemporaryDirectory(prefix="omgsr-cache-") as cache:
        command = [sys.executable, __file__, "inference", "--cold-start", "--base", str(model)]
        command += ["--pixels", str(pixels), "--precision", precision]
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
        environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        environment |= {"PYTHONPATH": str(Path(__file__).parent.parent)}
        seconds = {}
        for name in ("cold", "warm"):
            started = time.perf_counter()
            outcome = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            )
            seconds[name] = round(time.perf_counter() - started, 2)
            seconds[f"{name}_peak_gb"] = json.loads(outcome.stdout)["peak_gb"]
    return seconds


def _cold_start(args: argparse.Namespace) -> int:
    upscaler = load(args.base, precision=args.precision[0])
    upscaler.engine.restore(list(_input(args.pixels[0], 1)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"peak_gb": round(peak, 3)}))
    return 0


def _machine() -> dict[str, Any]:
    import torch

    return {
        "device": jax.local_devices()[0].device_kind,
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "load_average": os.getloadavg()[0],
        "torch_threads": torch.get_num_threads(),
        "versions": {"jax": jax.__version__, "torch": torch.__version__},
    }


def _markdown(report: dict[str, Any]) -> str:
    machine = report["machine"]
    lines = [
        f"{machine['device']}, {machine['cores']} cores, jax {machine['versions']['jax']}, "
        f"torch {machine['versions']['torch']}; medians in seconds",
        "",
        "| system | precision | px | batch | encode | predict | decode | total | ours / this "
        "| agreement, dB | peak, GB |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in report["rows"]:
        cells = [row["system"], row["precision"], row["pixels"], row["batch"]]
        cells += [f"{row['seconds'][stage]:.3f}" for stage in (*STAGES, "total")]
        cells += [row.get("ours_over_this", ""), row["agreement_db"], row["peak_gb"] or ""]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if report["start_seconds"]:
        starts = report["start_seconds"]
        lines += [
            "",
            f"Process start to first image: {starts['cold']} s without compiled programs, "
            f"{starts['warm']} s with them; peak memory of the process "
            f"{starts['cold_peak_gb']} and {starts['warm_peak_gb']} GB.",
        ]
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["inference", "training"])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--preset", choices=random_checkpoints.PRESETS, help="random weights")
    source.add_argument("--base", help="diffusers folder, or a hub id")
    parser.add_argument("--adapter", type=Path, help="folder with the published adapter folders")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32"])
    parser.add_argument("--pixels", nargs="+", type=int, default=[512], help="of the output")
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--runs", type=int, default=3)
    look_through = "training: through the VAE's own encoder, or VGG16 and DINOv2"
    parser.add_argument("--losses", choices=("own", "paper"), default="own", help=look_through)
    parser.add_argument("--starts", action="store_true", help="also time the start of a process")
    parser.add_argument("--agreement", type=float, default=90, help="least dB in fp32")
    parser.add_argument("--out", type=Path, default=Path("benchmark"))
    parser.add_argument("--cold-start", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
