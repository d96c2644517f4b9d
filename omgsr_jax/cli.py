"""The `omgsr` command. Each subcommand parses, calls one function and prints."""

import argparse
import sys
from collections.abc import Callable, Sequence

from . import __version__
from .errors import InputError

Command = Callable[[argparse.Namespace], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand. Returns 0, or 1 if it failed; argparse exits with 2 on wrong usage."""
    args = _parser().parse_args(argv)
    try:
        args.command(args)
    except InputError as error:
        print(f"omgsr {args.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"omgsr {args.name}: stopped", file=sys.stderr)
        return 1
    return 0


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
