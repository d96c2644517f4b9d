"""`omgsr export`: PyTorch weights out, or a file that JAX alone can run."""

from argparse import ArgumentParser, Namespace

from .. import assets
from ..errors import InputError
from ..inference.options import INFERENCE_PRECISIONS, PLATFORMS
from ..inference.sizes import DEFAULT_SCALE, Enlargement
from .progress import add_quiet, display
from .values import MODEL, location, width_height

SUMMARY = "a converted model to diffusers and peft folders, or to StableHLO"

_PYTORCH, _STABLEHLO = "pytorch", "stablehlo"
_WRITTEN = {
    _PYTORCH: "diffusers folders, adapters and the prompt's embeddings",
    _STABLEHLO: "the function, its weights, and README.md, which says how to run it",
}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--model", required=True, type=location, metavar="MODEL", help=MODEL)
    parser.add_argument(
        "--out", required=True, type=location, help="the folder to write; must not exist"
    )
    parser.add_argument(
        "--format",
        choices=(_PYTORCH, _STABLEHLO),
        default=_PYTORCH,
        help="diffusers and peft folders (default), or a file for JAX without omgsr-jax",
    )
    only = f"with --format {_STABLEHLO}"
    parser.add_argument(
        "--input", type=width_height, metavar="WxH", help=f"the size of images, {only}"
    )
    parser.add_argument("--scale", type=float, help=f"{only} (default: {DEFAULT_SCALE:g})")
    parser.add_argument(
        "--platforms", nargs="+", choices=PLATFORMS, help=f"{only} (default: all of them)"
    )
    parser.add_argument("--precision", choices=INFERENCE_PRECISIONS, help=f"{only} (default: fp32)")
    add_quiet(parser)


def check(args: Namespace) -> None:
    for_stablehlo = ("input", "scale", "platforms", "precision")
    if args.format == _PYTORCH:
        for name in for_stablehlo:
            if getattr(args, name) is not None:
                raise InputError(f"--{name} goes with --format {_STABLEHLO}")
        return
    if args.input is None:
        raise InputError(f"--format {_STABLEHLO} needs --input WxH, the size of the images")
    width, height = args.input
    Enlargement(scale=args.scale or DEFAULT_SCALE).of((height, width))


def run(args: Namespace) -> None:
    directory = assets.model_directory(args.model)
    with display(f"exporting {args.model}", quiet=args.quiet):
        _export(args, directory)
    print(f"{args.out}: {_WRITTEN[args.format]}")


def _export(args: Namespace, directory: str) -> None:
    if args.format == _PYTORCH:
        from ..converters import export

        export(directory, args.out)
        return
    from ..inference.export import write
    from ..inference.loading import load

    width, height = args.input
    write(
        load(directory, precision=args.precision or "fp32"),
        args.out,
        size=(height, width),
        scale=args.scale or DEFAULT_SCALE,
        platforms=args.platforms or PLATFORMS,
        name=args.model,
    )
