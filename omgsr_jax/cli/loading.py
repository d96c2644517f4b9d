"""How a model is loaded: options that several subcommands share."""

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from ..inference.options import INFERENCE_PRECISIONS
from .values import device as device_name
from .values import fidelity, positive, strips


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=INFERENCE_PRECISIONS,
        help="default: fp32 on CPUs, else bf16; int8 halves the backbone's weights",
    )
    parser.add_argument(
        "--device",
        type=device_name,
        metavar="NAME",
        help="cpu, gpu, tpu, or one of them such as gpu:1 (default: all of the fastest kind)",
    )
    parser.add_argument(
        "--shards",
        type=positive,
        default=1,
        metavar="N",
        help="devices over which the backbone's weights are divided (default: 1)",
    )
    parser.add_argument(
        "--strips",
        type=strips,
        default="auto",
        metavar="auto|off|ROWS",
        help="when the VAE works in strips of rows (default: when memory is short)",
    )
    parser.add_argument(
        "--shifts",
        type=positive,
        default=1,
        metavar="K",
        help="predictions to average, up to 4 for FLUX and Z-Image, against a lattice (default: 1)",
    )
    parser.add_argument(
        "--fidelity",
        type=fidelity,
        default=0.0,
        metavar="F",
        help="-1 is freer, 1 nearer to the photograph (default: 0, as the model was trained)",
    )
    parser.add_argument(
        "--batch", type=positive, default=1, help="images at once per device (default: 1)"
    )


def devices(name: str | None) -> Sequence[Any] | None:
    """Those asked for; by default JAX's."""
    if name is None:
        return None
    from ..inference.layout import devices_named

    return devices_named(name)
