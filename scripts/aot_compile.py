"""Compiles the inference networks for accelerators that are not there, and reports what they cost.

    pip install libtpu
    python scripts/aot_compile.py --topology v5e:2x4            # TPU, one image per chip
    python scripts/aot_compile.py --topology v5p:4x4x4 --network unet
    python scripts/aot_compile.py --cuda                        # lowers for CUDA (no GPU needed)

Shapes and shardings are enough: no weights are made, no device is used. FLOPs, bytes accessed and
memory are the compiler's own counts for one device. Writes a JSON line per network to --out.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omgsr_jax.checkpoint import PRECISIONS
from omgsr_jax.generator import OMGSR, OMGSRConfig
from omgsr_jax.models.unet import UNetConfig
from omgsr_jax.models.vae import VAEConfig
from omgsr_jax.process import DDPM

CONFIG = OMGSRConfig(VAEConfig(), UNetConfig(), DDPM(), 195, {"context": (77, 1024)})

Network = tuple[Callable[[OMGSR, jax.Array], jax.Array], tuple[int, ...], Any]


def networks(pixels: int) -> dict[str, Network]:
    """What to compile: a function of the generator, its input's shape without batch, and dtype."""
    latent = (pixels // CONFIG.vae.downsampling,) * 2 + (CONFIG.vae.latent_channels,)
    image = (pixels, pixels, 3)
    return {
        "encoder": (lambda model, x: model.encode(x), image, jnp.float32),
        "unet": (lambda model, z: model.predict(z), latent, jnp.float32),
        "decoder": (lambda model, z: model.decode(z), latent, jnp.float32),
        "omgsr": (lambda model, x: model(x), image, jnp.float32),
    }


def main() -> int:
    args = _parser().parse_args()
    mesh = None if args.cuda else _mesh(args.topology)
    chosen = networks(args.pixels)
    for name in args.network or chosen:
        report = {
            "network": name,
            "target": "cuda" if mesh is None else args.topology,
            "precision": args.precision,
            "pixels": args.pixels,
            "batch_per_device": args.batch,
            "jax": jax.__version__,
        }
        report |= _compile(chosen[name], mesh, args) if mesh else _lower(chosen[name], args)
        print(json.dumps(report), flush=True)
        if args.out:
            with args.out.open("a") as file:
                file.write(json.dumps(report) + "\n")
    return 0


def _mesh(topology: str) -> Mesh:
    """All chips of a TPU slice, each with its own image."""
    slice_ = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    automatic = (jax.sharding.AxisType.Auto,)
    return Mesh(np.array(slice_.devices), ("data",), axis_types=automatic)


def _compile(network: Network, mesh: Mesh, args: argparse.Namespace) -> dict[str, Any]:
    replicated = NamedSharding(mesh, PartitionSpec())
    by_batch = NamedSharding(mesh, PartitionSpec("data"))
    run, state, inputs = _program(network, args.batch * mesh.size, args.precision)
    with jax.set_mesh(mesh):
        started = time.time()
        jitted = jax.jit(run, in_shardings=(replicated, by_batch), out_shardings=by_batch)
        compiled = jitted.lower(state, inputs).compile()
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    return {
        "devices": mesh.size,
        "tflop": round(cost["flops"] / 1e12, 4),
        "gb_accessed": round(cost["bytes accessed"] / 1e9, 3),
        "gb_arguments": round(memory.argument_size_in_bytes / 1e9, 3),
        "gb_temporary": round(memory.temp_size_in_bytes / 1e9, 3),
        "custom_kernels": (compiled.as_text() or "").count("tpu_custom_call"),
        "compile_seconds": round(time.time() - started, 1),
    }


def _lower(network: Network, args: argparse.Namespace) -> dict[str, Any]:
    run, state, inputs = _program(network, args.batch, args.precision)
    text = jax.jit(run).trace(state, inputs).lower(lowering_platforms=("cuda",)).as_text()
    return {"lowered_lines": text.count("\n"), "cudnn_attention": text.count("__cudnn$fmha")}


def _program(
    network: Network, batch: int, precision: str
) -> tuple[Callable[..., jax.Array], nnx.State, jax.ShapeDtypeStruct]:
    function, shape, dtype = network
    graph, state = nnx.split(OMGSR(CONFIG, rngs=None))
    weights = PRECISIONS[precision]
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, weights), state)

    def run(state: nnx.State, x: jax.Array) -> jax.Array:
        return function(nnx.merge(graph, state), x)

    return run, state, jax.ShapeDtypeStruct((batch, *shape), dtype)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--topology", help="a TPU slice, such as v5e:2x4, v6e:4x4 or v5p:4x4x4")
    target.add_argument("--cuda", action="store_true", help="lower for CUDA")
    parser.add_argument("--network", action="append", choices=networks(512), help="default: all")
    parser.add_argument("--pixels", type=int, default=512, help="per side (default: 512)")
    parser.add_argument("--batch", type=int, default=1, help="images per device (default: 1)")
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--out", type=Path, help="append the JSON lines to this file too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
