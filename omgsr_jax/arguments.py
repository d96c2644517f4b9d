"""The command line: which subcommands and options there are, and what they accept."""

import argparse
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence

from . import __version__
from .assets import NANO, SAMPLES

_MODEL = "the directory of a converted model, or nano, which comes with omgsr-jax"

# May return the inputs that failed, each with the reason, or 1 if it has named them already.
Command = Callable[[argparse.Namespace], Sequence[str] | int | None]


def parse(argv: Sequence[str] | None, commands: Mapping[str, Command]) -> argparse.Namespace:
    """The arguments, with the subcommand's function as `command`; exits with 2 on wrong usage."""
    parser = ArgumentParser(
        prog="omgsr", description="One-step real-world image super-resolution in JAX."
    )
    parser.add_argument("--version", action="version", version=f"omgsr-jax {__version__}")
    subparsers = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    for name, (summary, add_options) in _SUBCOMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:]
        )
        add_options(subparser)
        subparser.set_defaults(command=commands[name], misused=subparser.error)
    args = parser.parse_args(argv)
    if problem := _CHECKS.get(args.name, lambda _: None)(args):
        args.misused(problem)
    return args


def _add_demo(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--out", default="omgsr-demo", metavar="DIR", help="default: omgsr-demo"
    )
    parser.add_argument(
        "--sample", choices=SAMPLES, default=SAMPLES[0], help=f"default: {SAMPLES[0]}"
    )


def _add_upscale(parser: ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="IN", help="files, folders, globs")
    parser.add_argument(
        "-o", "--out", required=True, help="a file for one input, else a folder that mirrors them"
    )
    parser.add_argument("--model", metavar="MODEL", help=f"{_MODEL} (default: nano)")
    larger = parser.add_mutually_exclusive_group()
    larger.add_argument("--scale", type=float, help="1 .. 8 (default: 4)")
    larger.add_argument("--longest-side", type=int, metavar="PX", help="of the output")
    larger.add_argument("--size", type=_width_height, metavar="WxH", help="of the output")
    parser.add_argument(
        "--color",
        choices=("adain", "wavelet", "lab", "none"),
        help="which colours of the input the output gets (default: what `omgsr info` says)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "int8"),
        help="default: fp32 on CPUs, else bf16; int8 halves the backbone's weights",
    )
    parser.add_argument(
        "--shards",
        type=_positive,
        default=1,
        metavar="N",
        help="devices over which the backbone's weights are divided (default: 1)",
    )
    parser.add_argument(
        "--tile",
        type=_tile,
        default="auto",
        metavar="auto|off|PX",
        help="when the VAE works in tiles (default: when memory is short)",
    )
    parser.add_argument(
        "--batch", type=_positive, default=1, help="images at once per device (default: 1)"
    )
    parser.add_argument("--seed", type=int, help="sample the VAE's posterior (default: its mode)")
    parser.add_argument(
        "--quirks", choices=("published",), help="round and truncate as the published script does"
    )
    parser.add_argument("--format", metavar="EXT", help="of the outputs: png, jpg, webp, tiff ...")
    parser.add_argument("--recursive", action="store_true", help="descend into folders")
    parser.add_argument(
        "--skip-existing", action="store_true", help="leave outputs that exist alone"
    )
    parser.add_argument(
        "--overwrite-input", action="store_true", help="let an output replace its input"
    )
    parser.add_argument(
        "--compare", action="store_true", help="also write input and output side by side"
    )
    parser.add_argument("--json", action="store_true", help="print a line of JSON per image")


def _add_convert(parser: ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--base", help="diffusers folder, or a hub id")
    source.add_argument(
        "--perceptual", metavar="DIR", help="instead of a model: the losses' networks in a folder"
    )
    parser.add_argument("--adapter", help="folder with the published adapter sub-folders")
    parser.add_argument("--out", required=True, help="the folder to write; must not exist")
    parser.add_argument("--prompt", help="default: that of the base's published recipe")
    parser.add_argument("--mid-timestep", type=int, help="default: that of the recipe")
    parser.add_argument(
        "--process-size", type=int, metavar="PX", help="default: that of the recipe"
    )
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), help="of the stored base (default: as it is)"
    )
    parser.add_argument(
        "--allow-pickle", action="store_true", help="open .bin files (torch.load, weights only)"
    )


def _add_export(parser: ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="MODEL", help=_MODEL)
    parser.add_argument("--out", required=True, help="the folder to write; must not exist")


def _add_info(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=_MODEL)


def _add_timestep(parser: ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="MODEL", help=_MODEL)
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        metavar="DIR",
        help="high-quality photographs: folders, .txt lists or ArrayRecord shards",
    )
    parser.add_argument("--images", type=_positive, metavar="N", help="default: all, once")
    parser.add_argument(
        "--resolution",
        type=_positive,
        metavar="PX",
        help="of the crops (default: process size)",
    )
    parser.add_argument(
        "--criterion",
        choices=("eq9", "august", "snr"),
        default="snr",
        help="whose optimum to write (default: snr)",
    )
    parser.add_argument(
        "--write", action="store_true", help="write the optimum into the model, before training"
    )
    parser.add_argument("--out", metavar="DIR", help="write timestep.json and timestep.svg there")
    parser.add_argument("--seed", type=_not_negative, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--workers",
        type=_not_negative,
        default=0,
        metavar="N",
        help="processes that degrade",
    )


def _add_degrade(parser: ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", help="a folder, a .txt list or an image")
    parser.add_argument("-o", "--out", required=True, metavar="OUT", help="the folder to write")
    parser.add_argument("--seed", type=_not_negative, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--preset",
        type=int,
        choices=(512, 1024),
        default=512,
        help="published parameters: x4 for 512 px (default), x8 for 1024 px",
    )
    parser.add_argument(
        "--crop",
        type=_positive,
        metavar="PX",
        help="cut the centre (default: the whole image)",
    )
    parser.add_argument(
        "--resize-back", action="store_true", help="write lr as large as hr, as in training"
    )


def _add_eval(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--sr",
        action="append",
        default=[],
        metavar="DIR",
        help="outputs; give it again to compare another system",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="MODEL",
        help="nano, or a converted model: makes outputs from --lr; may be given again, too",
    )
    parser.add_argument("--hr", required=True, metavar="DIR", help="references of the same names")
    parser.add_argument("--lr", metavar="DIR", help="inputs, for --model and to show in the report")
    parser.add_argument("--out", metavar="DIR", help="write CSV, JSON, Markdown and HTML there")
    parser.add_argument("--metrics", nargs="+", metavar="KEY", help="default: all that can run")
    parser.add_argument("--protocol", choices=("papers",), help="hold the outputs to the papers'")
    parser.add_argument(
        "--benchmark", metavar="NAME", help="show the papers' rows: RealSR, DRealSR, DIV2K-Val"
    )
    parser.add_argument("--subset", action="store_true", help="allow references without an output")
    parser.add_argument(
        "--cross-check", action="store_true", help="score by pyiqa too, report the difference"
    )
    parser.add_argument(
        "--crop-border",
        type=_not_negative,
        default=0,
        metavar="PX",
        help="leave out (default: 0)",
    )
    parser.add_argument(
        "--grid-period",
        type=_positive,
        default=16,
        metavar="PX",
        help="of `grid` (default: 16)",
    )
    parser.add_argument("--niqe-params", metavar="FILE", help="NIQE's parameters, .npz or .mat")
    parser.add_argument("--inception", metavar="FILE", help="FID's Inception weights")
    parser.add_argument(
        "--perceptual", metavar="DIR", help="LPIPS' and DISTS' networks, converted (else by pyiqa)"
    )
    parser.add_argument(
        "--allow-pickle", action="store_true", help="open a .pth (torch.load, weights only)"
    )


def _check_convert(args: argparse.Namespace) -> str | None:
    of_a_model = ("adapter", "prompt", "mid_timestep", "process_size", "precision")
    given = [
        f"--{name.replace('_', '-')}" for name in of_a_model if getattr(args, name) is not None
    ]
    if args.perceptual and given:
        return f"{', '.join(given)}: of a model with --base, not of --perceptual"
    return None


def _check_timestep(args: argparse.Namespace) -> str | None:
    if args.write and args.model == NANO:
        return "--write: nano was trained at its mid-timestep and keeps it"
    return None


def _check_eval(args: argparse.Namespace) -> str | None:
    if not args.sr and not args.model:
        return "give outputs with --sr, or what makes them with --model"
    if args.model and not args.lr:
        return "--model needs inputs: give their folder with --lr"
    return None


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def _not_negative(text: str) -> int:
    if not text.isdigit():
        raise ArgumentTypeError(f"expected a whole number of at least 0, not {text!r}")
    return int(text)


def _width_height(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ArgumentTypeError(f"expected WIDTHxHEIGHT such as 1920x1080, not {text!r}")
    return int(width), int(height)


def _tile(text: str) -> str | int:
    return text if text in ("auto", "off") else _positive(text)


# In the order of --help: what it does, and its options.
_SUBCOMMANDS: Mapping[str, tuple[str, Callable[[ArgumentParser], None]]] = {
    "demo": ("a photograph restored by nano, to see what it does", _add_demo),
    "upscale": ("images to larger, restored ones", _add_upscale),
    "convert": ("PyTorch weights to a converted model", _add_convert),
    "export": ("a converted model to diffusers and peft folders", _add_export),
    "info": ("what a converted model is", _add_info),
    "timestep": ("the optimal mid-timestep for a model's VAE", _add_timestep),
    "degrade": ("pairs of low and high quality from photographs", _add_degrade),
    "eval": ("scores of outputs against references", _add_eval),
}

# What argparse cannot say of options together: the problem, or None.
_CHECKS: Mapping[str, Callable[[argparse.Namespace], str | None]] = {
    "convert": _check_convert,
    "timestep": _check_timestep,
    "eval": _check_eval,
}
