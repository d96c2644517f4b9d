"""Compiles the inference networks for accelerators that are not there, and reports what they cost.

    pip install libtpu
    python scripts/aot_compile.py --topology v5e:2x4            # TPU, one image per chip
    python scripts/aot_compile.py --topology v5p:4x4x4 --network backbone
    python scripts/aot_compile.py --topology v5e:2x2 --program restore --batch 4
    python scripts/aot_compile.py --topology v5e:2x4 --program restore --pixels 4096  # by rows
    python scripts/aot_compile.py --topology v5e:2x4 --model f --shards 8   # FLUX over eight chips
    python scripts/aot_compile.py --topology v6e:1x1 --model f --precision int8
    python scripts/aot_compile.py --topology v5e:2x4 --model z --shards 2   # Z-Image
    python scripts/aot_compile.py --cuda                        # lowers for CUDA (no GPU needed)
    python scripts/aot_compile.py --topology v5e:4x4 --config configs/omgsr_s_512.py \
        --set model.remat=True --set mesh.fsdp=4                # the training step of a config
    python scripts/aot_compile.py --topology v5e:4x4 --config configs/omgsr_s_512.py \
        --set mesh.spatial=4                                    # four chips share an image

Networks are the generator's parts by themselves; a program is what `omgsr upscale` runs, from
pixels to pixels, at four times the size. Several chips take the rows of one image if it is large.

Shapes and shardings are enough: no weights are made, no device is used. FLOPs, bytes accessed and
memory are the compiler's own counts for one device, and it counts the body of a loop once, so of
stacked blocks one of each kind: for the backbone, `tflop` is to be held against `body_tflop`, which
counts as it does (attention is in kernels that it does not count). `needed_tflop` is all that the
backbone needs. Both are of an image, on all devices. Collectives are counted as often as they run.

With --config the whole training step is compiled, and held against its analytic FLOPs, the device's
memory and a roofline; --batch is images per group of devices that share them (mesh.spatial x
mesh.tensor), and a config without a model is taken at full size.
Writes a JSON line per network to --out.
"""

import argparse
import ast
import dataclasses
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omgsr_jax.architectures import ARCHITECTURES
from omgsr_jax.cost.flops import forward_flops
from omgsr_jax.cost.programs import collectives, traffic
from omgsr_jax.errors import InputError
from omgsr_jax.generator import OMGSR, OMGSRConfig
from omgsr_jax.inference import layout
from omgsr_jax.inference.options import INFERENCE_PRECISIONS
from omgsr_jax.inference.programs import Program
from omgsr_jax.inference.upscaler import Upscaler
from omgsr_jax.models import int8
from omgsr_jax.weights import PRECISIONS

PARTS = ("encode", "predict", "decode")  # of a restoration
# Their architectures, and the sizes that they work at.
MODELS = {"s": ("sd", 512), "f": ("flux", 1024), "z": ("z-image", 1024)}

Network = tuple[Callable[[OMGSR, jax.Array], jax.Array], tuple[int, ...], Any]


def networks(config: OMGSRConfig, pixels: int) -> dict[str, Network]:
    """What to compile: a function of the generator, its input's shape without batch, and dtype."""
    latent = (pixels // config.vae.downsampling,) * 2 + (config.vae.latent_channels,)
    image = (pixels, pixels, 3)
    return {
        "encoder": (lambda model, x: model.encode(x), image, jnp.float32),
        "backbone": (lambda model, z: model.predict(z), latent, jnp.float32),
        "decoder": (lambda model, z: model.decode(z), latent, jnp.float32),
        "omgsr": (lambda model, x: model(x), image, jnp.float32),
    }


def main() -> int:
    args = _parser().parse_args()
    if args.config:
        _write(_training_step(args), args)
        return 0
    config = _config(args)
    chosen = args.network or ([] if args.program else [*networks(config, args.pixels)])
    programs = PARTS if "restore" in args.program else args.program
    for name in [*chosen, *programs]:
        report = {
            "model": args.model,
            "network" if name in chosen else "program": name,
            "target": "cuda" if args.cuda else args.topology,
            "precision": args.precision,
            "pixels": args.pixels,
            "shards": args.shards,
            "batch": args.batch,
            "jax": jax.__version__,
            "optimization_level": _level(),
        }
        if name == "backbone":
            report |= backbone_tflop(config, args.pixels)
        mesh, model = _mesh(args), _model(config, args.precision)
        if name in chosen:
            trace = partial(_trace_network, networks(config, args.pixels)[name], model, mesh, args)
        else:
            # Made outside the mesh: it computes a little, and these devices cannot.
            trace = partial(_trace_program, name, model, mesh, args)
            report["strips"] = args.strips
        with jax.set_mesh(mesh):
            report |= _lower(trace()) if args.cuda else _compile(trace(), mesh, args.by_kind)
        _write(report, args)
    return 0


def _write(report: dict[str, Any], args: argparse.Namespace) -> None:
    print(json.dumps(report), flush=True)
    if args.out:
        with args.out.open("a") as file:
            file.write(json.dumps(report) + "\n")


def _training_step(args: argparse.Namespace) -> dict[str, Any]:
    """What a config's optimiser step costs on all chips of a slice."""
    from omgsr_jax.cost import ahead_of_time
    from omgsr_jax.training.config import from_dict
    from omgsr_jax.training.layout import make_mesh

    name, _, argument = str(args.config).partition(":")
    spec = importlib.util.spec_from_file_location("config", name)
    if spec is None or spec.loader is None or not Path(name).is_file() or args.cuda:
        raise SystemExit("--config takes a config file, and goes with --topology")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(argument)
    devices = _devices(args)
    if not config.model.path and not config.model.architecture:
        config.model.architecture = MODELS[args.model][0]
    settings = dict(map(setting, args.set))
    config.update_from_flattened_dict(settings)
    try:
        if "data.batch_size" not in settings:
            shape = make_mesh(from_dict(config.to_dict()).mesh, devices).shape
            groups = shape["data"] * shape["fsdp"]
            config.data.batch_size = args.batch * groups * config.data.accumulation
        report = ahead_of_time.report(from_dict(config.to_dict()), devices)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    return {"target": args.topology, "slices": args.slices, "jax": jax.__version__} | report


def setting(given: str) -> tuple[str, Any]:
    """NAME=VALUE, where a value that is not Python's is a string."""
    name, equals, value = given.partition("=")
    if not equals:
        raise SystemExit(f"--set {given}: expected NAME=VALUE, such as mesh.fsdp=4")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _devices(args: argparse.Namespace) -> list[Any]:
    """Those of one slice, or of several."""
    several = {"num_slices": args.slices} if args.slices > 1 else {}
    found = topologies.get_topology_desc(
        platform="tpu", topology_name=args.topology, **several
    ).devices
    return list(found)


def _config(args: argparse.Namespace) -> OMGSRConfig:
    config = ARCHITECTURES[MODELS[args.model][0]]
    if args.blocks is None:
        return config
    double, single = args.blocks
    backbone = dataclasses.replace(config.backbone, num_layers=double, num_single_layers=single)
    return dataclasses.replace(config, backbone=backbone)


def backbone_tflop(config: OMGSRConfig, pixels: int) -> dict[str, float]:
    """What the backbone takes for one image, and what of it the compiler counts."""
    run, shape, _ = networks(config, pixels)["backbone"]
    model = OMGSR(config, rngs=None)
    needed, body = (forward_flops(model, run, shape, loops_once=once) for once in (False, True))
    return {
        "needed_tflop": round((needed.weights + needed.attention) / 1e12, 3),
        "body_tflop": round((body.weights + body.attention - body.kernels) / 1e12, 3),
    }


def strips(text: str) -> str | int:
    return text if text == "off" else int(text)


def _mesh(args: argparse.Namespace) -> Mesh:
    """All chips of a TPU slice, in groups with their own images; for CUDA, a device for one."""
    if args.cuda:
        return layout.device_groups(jax.devices()[:1], 1)
    return layout.device_groups(_devices(args), args.shards)


def _compile(traced: Any, mesh: Mesh, by_kind: bool) -> dict[str, Any]:
    started = time.time()
    lowered = traced.lower()
    compiled = lowered.compile()
    seconds = time.time() - started
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    text = compiled.as_text() or ""
    return {
        "devices": mesh.size,
        "tflop": round(cost["flops"] / 1e12, 4),
        "gb_accessed": round(cost["bytes accessed"] / 1e9, 3),
        "gb_arguments": round(memory.argument_size_in_bytes / 1e9, 3),
        "gb_temporary": round(memory.temp_size_in_bytes / 1e9, 3),
        "gb_peak": round(memory.peak_memory_in_bytes / 1e9, 3),
        "lowered_lines": lowered.as_text().count("\n"),
        "program_lines": text.count("\n"),
        "custom_kernels": text.count("tpu_custom_call"),
        "collectives": collectives(text),
        "compile_seconds": round(seconds, 1),
    } | ({"by_kind": _rounded(traffic(text))} if by_kind else {})


def _level() -> str:
    level = jax.config.values["jax_optimization_level"]
    return "default" if level == "UNKNOWN" else str(level)


def _rounded(by_kind: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        kind: {unit: round(value, 3) for unit, value in counts.items()}
        for kind, counts in by_kind.items()
    }


def _lower(traced: Any) -> dict[str, Any]:
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    return {"lowered_lines": text.count("\n"), "cudnn_attention": text.count("__cudnn$fmha")}


def _trace_network(network: Network, model: OMGSR, mesh: Mesh, args: argparse.Namespace) -> Any:
    function, shape, dtype = network
    graph, state = nnx.split(model)

    def run(state: nnx.State, x: jax.Array) -> jax.Array:
        return function(nnx.merge(graph, state), x)

    by_batch = NamedSharding(mesh, PartitionSpec("data"))
    weights = layout.state_shardings(state, mesh)
    jitted = jax.jit(run, in_shardings=(weights, by_batch), out_shardings=by_batch)
    batch = args.batch * mesh.shape["data"]
    return jitted.trace(state, jax.ShapeDtypeStruct((batch, *shape), dtype))


def _trace_program(name: str, model: OMGSR, mesh: Mesh, args: argparse.Namespace) -> Any:
    upscaler = Upscaler(
        model,
        min(args.pixels, MODELS[args.model][1]),
        color="adain",
        precision=args.precision,
        strips=args.strips,
        batch=args.batch,
        mesh=mesh,
    )
    (how,) = upscaler.steps((args.pixels // 4,) * 2)
    parts: dict[str, Program] = {
        "encode": how.encoding,
        "predict": how.prediction,
        "decode": how.decoding,
    }
    return upscaler.programs.trace(parts[name])


def _model(config: OMGSRConfig, precision: str) -> OMGSR:
    """The generator as it is for inference, with shapes in place of weights."""
    graph, state = nnx.split(OMGSR(config, rngs=None))
    dtype = PRECISIONS["bf16" if precision == "int8" else precision]
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), state)
    model = nnx.merge(graph, state)
    if precision == "int8":
        int8.quantise(model.backbone, dtype)
    return model


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--topology", help="a TPU slice, such as v5e:2x4, v6e:4x4 or v5p:4x4x4")
    parser.add_argument(
        "--slices", type=int, default=1, help="how many such slices, for --config (default: 1)"
    )
    target.add_argument("--cuda", action="store_true", help="lower for CUDA")
    parser.add_argument(
        "--network",
        action="append",
        choices=networks(ARCHITECTURES["sd"], 512),
        help="default: all",
    )
    parser.add_argument(
        "--model", choices=MODELS, default="s", help="OMGSR-S, OMGSR-F or Z-Image (default: s)"
    )
    parser.add_argument("--shards", type=int, default=1, help="chips that share an image's work")
    parser.add_argument(
        "--blocks", type=int, nargs=2, metavar=("DOUBLE", "SINGLE"), help="of FLUX, if not all"
    )
    parser.add_argument("--program", action="append", default=[], choices=("restore", *PARTS))
    parser.add_argument(
        "--strips", type=strips, default="off", help="of the VAE in the program: off, or rows"
    )
    parser.add_argument("--config", help="a training config: FILE or FILE:ARGUMENT")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of --config"
    )
    parser.add_argument("--pixels", type=int, default=512, help="per side (default: 512)")
    parser.add_argument(
        "--batch", type=int, default=1, help="images per group of chips (default: 1)"
    )
    parser.add_argument(
        "--by-kind",
        action="store_true",
        help="report what norms, convolutions, ... read and write, and the compiler's cycles",
    )
    parser.add_argument("--precision", choices=INFERENCE_PRECISIONS, default="bf16")
    parser.add_argument("--out", type=Path, help="append the JSON lines to this file too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
