"""The `omgsr` command. Each subcommand parses, calls one function and prints."""

import argparse
import sys
from collections.abc import Callable, Sequence

from . import __version__
from .errors import InputError

# A command returns nothing, or 1 if a part of its work failed.
Command = Callable[[argparse.Namespace], int | None]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand. Returns 0, or 1 if it failed; argparse exits with 2 on wrong usage."""
    args = _parser().parse_args(argv)
    try:
        return args.command(args) or 0
    except InputError as error:
        print(f"omgsr {args.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"omgsr {args.name}: stopped", file=sys.stderr)
        return 1


def _upscale(args: argparse.Namespace) -> int:
    from .inference.command import run

    return run(args)


def _convert(args: argparse.Namespace) -> None:
    from conversion.convert import convert

    convert(
        args.base,
        args.out,
        adapter=args.adapter,
        prompt=args.prompt,
        mid_timestep=args.mid_timestep,
        process_size=args.process_size,
        precision=args.precision,
        allow_pickle=args.allow_pickle,
    )
    _print_info(args.out)


def _export(args: argparse.Namespace) -> None:
    from conversion.convert import export

    export(args.model, args.out)
    print(f"{args.out}: diffusers folders, adapters and the prompt's embeddings")


def _info(args: argparse.Namespace) -> None:
    _print_info(args.model)


def _print_info(directory: str) -> None:
    from .checkpoint import describe

    for name, value in describe(directory).items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, item in value.items():
                print(f"    {item}  {key}")
        else:
            print(f"{name + ':':<15} {value}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="omgsr", description="One-step real-world image super-resolution in JAX."
    )
    parser.add_argument("--version", action="version", version=f"omgsr-jax {__version__}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    upscale = _add(commands, "upscale", _upscale, "images to larger, restored ones")
    upscale.add_argument("inputs", nargs="+", metavar="IN", help="files, folders, globs")
    upscale.add_argument(
        "-o", "--out", required=True, help="a file for one input, else a folder that mirrors them"
    )
    upscale.add_argument("--model", required=True, metavar="DIR", help="a converted model")
    larger = upscale.add_mutually_exclusive_group()
    larger.add_argument("--scale", type=float, help="1 .. 8 (default: 4)")
    larger.add_argument("--longest-side", type=int, metavar="PX", help="of the output")
    larger.add_argument("--size", type=_width_height, metavar="WxH", help="of the output")
    upscale.add_argument(
        "--color",
        choices=("adain", "wavelet", "lab", "none"),
        default="adain",
        help="which colours of the input the output gets (default: adain)",
    )
    upscale.add_argument(
        "--precision", choices=("fp32", "bf16"), help="default: fp32 on CPUs, else bf16"
    )
    upscale.add_argument(
        "--tile",
        type=_tile,
        default="auto",
        metavar="auto|off|PX",
        help="when the VAE works in tiles (default: when memory is short)",
    )
    upscale.add_argument(
        "--batch", type=_positive, default=1, help="images at once per device (default: 1)"
    )
    upscale.add_argument("--seed", type=int, help="sample the VAE's posterior (default: its mode)")
    upscale.add_argument(
        "--quirks", choices=("published",), help="round and truncate as the published script does"
    )
    upscale.add_argument("--format", metavar="EXT", help="of the outputs: png, jpg, webp, tiff ...")
    upscale.add_argument("--recursive", action="store_true", help="descend into folders")
    upscale.add_argument(
        "--skip-existing", action="store_true", help="leave outputs that exist alone"
    )
    upscale.add_argument(
        "--overwrite-input", action="store_true", help="let an output replace its input"
    )
    upscale.add_argument(
        "--compare", action="store_true", help="also write input and output side by side"
    )
    upscale.add_argument("--json", action="store_true", help="print a line of JSON per image")

    convert = _add(commands, "convert", _convert, "PyTorch weights to a converted model")
    convert.add_argument("--base", required=True, help="diffusers folder, or a hub id")
    convert.add_argument("--adapter", help="folder with the published adapter sub-folders")
    convert.add_argument("--out", required=True, help="the converted model; must not exist")
    convert.add_argument("--prompt", help="default: that of the base's published recipe")
    convert.add_argument("--mid-timestep", type=int, help="default: that of the recipe")
    convert.add_argument(
        "--process-size", type=int, metavar="PX", help="default: that of the recipe"
    )
    convert.add_argument(
        "--precision", choices=("fp32", "bf16"), help="of the stored base (default: as it is)"
    )
    convert.add_argument(
        "--allow-pickle", action="store_true", help="open .bin files (torch.load, weights only)"
    )

    export = _add(commands, "export", _export, "a converted model to diffusers and peft folders")
    export.add_argument("--model", required=True, help="a converted model")
    export.add_argument("--out", required=True, help="the folder to write; must not exist")

    info = _add(commands, "info", _info, "what a converted model is")
    info.add_argument("model", metavar="DIR", help="a converted model")
    return parser


def _width_height(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 1920x1080, not {text!r}")
    return int(width), int(height)


def _tile(text: str) -> str | int:
    if text in ("auto", "off"):
        return text
    return _positive(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, not {text!r}")
    return int(text)


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    command: Command,
    summary: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
    parser.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
