"""How long inference takes, ours and PyTorch's, on the same weights and input in one run.

    python scripts/benchmark.py inference --preset sd-turbo --runs 3
    python scripts/benchmark.py inference --preset sd-turbo --precision bf16 --pixels 512 2048 \\
        --batch 1 8 --runs 20 --limit-s 600 --profile
    python scripts/benchmark.py inference --base stabilityai/sd-turbo --adapter DIR --batch 1 8
    python scripts/benchmark.py inference --preset tiny --pixels 64 --out /tmp/benchmark
    python scripts/benchmark.py training --preset tiny --pixels 32 128 --batch 4 --runs 8
    python scripts/benchmark.py training --preset sd-mid --pixels 256
    python scripts/benchmark.py training --preset sd-turbo --losses paper --precision bf16 --batch 4

PyTorch is diffusers and peft as the published inference builds them, with the posterior's mode.
Every peer runs in a process of its own. On CPUs they take turns, so that a machine that slows down
slows all. On a GPU one follows the other: ours, PyTorch eager, channels-last, and torch.compile
(default, reduce-overhead, max-autotune), the slowest to compile last. Each result is printed when
it is there, and benchmark.json and benchmark.md in --out are written again. A peer that hangs, dies
or takes longer than --limit-s in all costs only itself.

Ours is `Upscaler.function`: from uint8 pixels on the device, a quarter of --pixels a side, to uint8
pixels. PyTorch gets the same picture enlarged bicubically by PIL, on the device; the time of that
is not in its own. Images larger than the least of --pixels are predicted in tiles of that size.
Times are medians. What the systems put out is compared with ours in 8 bits: below --agreement dB
in fp32 the run fails.

--profile times encode, predict and decode apart, and says how their time divides among
convolutions, norms, attention, linear layers and the rest.

`training` times optimiser steps instead, and writes training.json. In bf16 PyTorch runs as the
published loop has it (eager), the VAE in fp32; with everything in bf16 (channels-last); and on a
GPU compiled, too.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from conversion.parity import random_checkpoints
from conversion.parity.inference_benchmark import Plan, Row, measured
from conversion.parity.inference_cases import PEERS, STAGES, Case, Weights
from conversion.parity.processes import in_own_process
from omgsr_jax import files

# JAX in this process would hold the GPU's memory: what computes is done in others.


def main() -> int:
    args = _parser().parse_args()
    if args.what == "training":
        return _training(args)
    if args.cold_start:
        return _cold_start(args)
    args.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "weights": args.preset or args.base,
        "rows": [],
        "start_seconds": {},
        "machine": _machine(),
    }
    with tempfile.TemporaryDirectory(prefix="omgsr-benchmark-") as scratch:
        weights, flops = in_own_process(_prepare, args, Path(scratch))
        for precision in args.precision:
            for row in measured(_plan(args, precision, weights, flops, Path(scratch))):
                report["rows"].append(row)
                _write(report, args.out)
                print(_line(row), flush=True)
        if args.starts:
            report["start_seconds"] = _starts(weights.model, args.pixels[0], args.precision[0])
            _write(report, args.out)
    print(_markdown(report))
    return 1 if any(_is_wrong(row, args.agreement) for row in report["rows"]) else 0


def _is_wrong(row: Row, agreement: float) -> bool:
    return "failed" in row or (
        row["precision"] == "fp32" and row.get("agreement_db", agreement) < agreement
    )


def _prepare(args: argparse.Namespace, scratch: Path) -> tuple[Weights, dict[int, float]]:
    """The diffusers folder, the adapter and the converted model; FLOPs of an image by its size."""
    import jax

    from conversion import backbones
    from conversion.convert import convert
    from conversion.parity.inference_peers import flops_per_image

    jax.config.update("jax_platforms", "cpu")
    base, adapter = scratch / "base", scratch / "adapter"
    if args.preset:
        preset = random_checkpoints.PRESETS[args.preset]
        random_checkpoints.write_base(base, preset)
        random_checkpoints.write_adapters(adapter, base, preset)
    else:
        base, adapter = backbones.fetched(args.base), args.adapter
    model = scratch / "model"
    given = str(adapter) if adapter else None
    # Timestep and prompt are any: they do not change how long it takes.
    convert(
        str(base), model, adapter=given, mid_timestep=100, prompt="", process_size=min(args.pixels)
    )
    return Weights(base, adapter, model), {n: flops_per_image(model, n) for n in args.pixels}


def _plan(
    args: argparse.Namespace,
    precision: str,
    weights: Weights,
    flops: dict[int, float],
    scratch: Path,
) -> Plan:
    import torch

    on_gpu = torch.cuda.is_available()
    usual = PEERS if on_gpu else PEERS[:3]  # what torch.compile takes on CPUs is worth no hour
    cases = [Case(precision, pixels, batch) for pixels in args.pixels for batch in args.batch]
    return Plan(
        weights,
        peers=[name for name in PEERS if name in (args.peers or usual)],
        cases=sorted(cases, key=lambda case: case.batch * case.pixels**2),
        flops=flops,
        runs=args.runs,
        limit_s=args.limit_s,
        in_turns=not on_gpu,
        profiled=args.profile,
        scratch=scratch,
    )


def _write(report: dict[str, Any], out: Path) -> None:
    files.write_text(out / "benchmark.json", json.dumps(report, indent=2) + "\n")
    files.write_text(out / "benchmark.md", _markdown(report))


def _training(args: argparse.Namespace) -> int:
    """An optimiser step of every system."""
    from conversion.parity.benchmark import TrainingCase, systems_of, time_training_steps

    if not args.preset:
        raise SystemExit("training is measured on random weights: give --preset")
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    cases = itertools.product(args.precision, args.pixels, args.batch)
    for precision, pixels, batch in cases:
        case = TrainingCase(
            args.preset, pixels, batch, precision, args.losses == "paper", args.profile
        )
        systems = systems_of(precision, args.peers)
        for row in time_training_steps(case, systems, args.runs, args.limit_s):
            report = {"rows": [*rows, row], "machine": _machine()}
            files.write_text(args.out / "training.json", json.dumps(report, indent=2) + "\n")
        rows.append(row)
        print(f"{precision}, {pixels} px, batch {batch}: seconds {row['seconds']}, "
              f"our speed over theirs {row.get('speed_over')}", flush=True)  # fmt: skip
    return 1 if any(row["failed"] for row in rows) else 0


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
    from conversion.parity.inference_peers import picture
    from omgsr_jax.inference.loading import load

    upscaler = load(args.base, precision=args.precision[0])
    upscaler.upscale(picture(Case(args.precision[0], args.pixels[0], 1))[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"peak_gb": round(peak, 3)}))
    return 0


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "load_average": os.getloadavg()[0],
    }


def _line(row: Row) -> str:
    where = f"{row['peer']}, {row['precision']}"
    if "pixels" in row:
        where += f", {row['pixels']} px, batch {row['batch']}"
    if "failed" in row:
        return f"{where}: {row['failed']}"
    parts = [f"{row['seconds']:.4g} s", f"{row['megapixels_per_second']:.4g} megapixels/s"]
    parts += [f"{row['peak_gb']} GB"] if "peak_gb" in row else []
    if row["share_of_peak"]:
        parts.append(f"{row['share_of_peak']:.0%} of the peak")
    if "ours_over_this" in row:
        parts.append(f"ours takes {row['ours_over_this']} of it, {row['agreement_db']} dB apart")
    return f"{where}: {', '.join(parts)}"


_COLUMNS = {
    "px": "pixels",
    "batch": "batch",
    "seconds": "seconds",
    "megapixels/s": "megapixels_per_second",
    "ours / this": "ours_over_this",
    "share of the peak": "share_of_peak",
    "agreement, dB": "agreement_db",
    "peak, GB": "peak_gb",
}


def _markdown(report: dict[str, Any]) -> str:
    rows = report["rows"]
    done = [row for row in rows if "seconds" in row]
    kinds = sorted({row["device_kind"] for row in done})
    versions = sorted({row["version"] for row in done})
    lines = [
        f"{', '.join(kinds)}, {report['machine']['cores']} cores, {', '.join(versions)}; "
        "medians in seconds",
        "",
        f"| peer | precision | {' | '.join(_COLUMNS)} |",
        f"|---|---|{'--:|' * len(_COLUMNS)}",
    ]
    for row in rows:
        cells = [row.get("failed") if name == "seconds" and "failed" in row else row.get(name)
                 for name in _COLUMNS.values()]  # fmt: skip
        shown = ["" if cell is None else str(cell) for cell in cells]
        lines.append(f"| {' | '.join([row['peer'], row['precision'], *shown])} |")
    lines += _profiles(done)
    if report["start_seconds"]:
        starts = report["start_seconds"]
        lines += [
            "",
            f"Process start to first image: {starts['cold']} s without compiled programs, "
            f"{starts['warm']} s with them; peak memory of the process "
            f"{starts['cold_peak_gb']} and {starts['warm_peak_gb']} GB.",
        ]
    return "\n".join(lines) + "\n"


def _profiles(rows: list[Row]) -> list[str]:
    """Seconds of each stage, run apart, and of the kinds of layers in it."""
    profiled = [row for row in rows if "profile" in row]
    if not profiled:
        return []
    columns = list(profiled[0]["profile"][STAGES[0]])
    head = ["peer", "precision", "px", "batch", "stage", *columns]
    lines = ["", f"| {' | '.join(head)} |", f"|---|---|--:|--:|---|{'--:|' * len(columns)}"]
    for row in profiled:
        for stage in STAGES:
            cells = [row[name] for name in ("peer", "precision", "pixels", "batch")]
            cells += [stage, *(f"{row['profile'][stage][name]:.4g}" for name in columns)]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


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
    parser.add_argument("--runs", type=int, default=3, help="each, behind a first one")
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=PEERS,
        help="which; by default all that the device suits",
    )
    parser.add_argument(
        "--limit-s",
        type=float,
        default=float("inf"),
        help="seconds that each peer may take in all",
    )
    parser.add_argument(
        "--profile", action="store_true", help="also by kind of layer, and inference by stage"
    )
    look_through = "training: through the VAE's own encoder, or VGG16 and DINOv2"
    parser.add_argument("--losses", choices=("own", "paper"), default="own", help=look_through)
    parser.add_argument("--starts", action="store_true", help="also time the start of a process")
    parser.add_argument("--agreement", type=float, default=70, help="least dB of 8 bits in fp32")
    parser.add_argument("--out", type=Path, default=Path("benchmark"))
    parser.add_argument("--cold-start", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
