"""`omgsr convert`: PyTorch weights in."""

from argparse import ArgumentParser, Namespace

from ..errors import InputError
from .info import print_info
from .progress import add_quiet, display
from .values import location, not_negative, positive

SUMMARY = "PyTorch weights to a converted model"

_OF_A_MODEL = ("adapter", "prompt", "mid_timestep", "process_size", "precision")


def add_options(parser: ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--base", type=location, help="diffusers folder, or a hub id")
    source.add_argument(
        "--perceptual",
        type=location,
        metavar="DIR",
        help="instead of a model: the losses' networks in a folder",
    )
    parser.add_argument(
        "--adapter", type=location, help="folder with the published adapter sub-folders"
    )
    parser.add_argument(
        "--out", required=True, type=location, help="the folder to write; must not exist"
    )
    parser.add_argument("--prompt", help="default: that of the base's published recipe")
    parser.add_argument("--mid-timestep", type=not_negative, help="default: that of the recipe")
    parser.add_argument(
        "--process-size", type=positive, metavar="PX", help="default: that of the recipe"
    )
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), help="of the stored base (default: as it is)"
    )
    parser.add_argument(
        "--allow-pickle", action="store_true", help="open .bin files (torch.load, weights only)"
    )
    add_quiet(parser)


def check(args: Namespace) -> None:
    given = [name for name in _OF_A_MODEL if getattr(args, name) is not None]
    if args.perceptual and given:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{named}: of a model with --base, not of --perceptual")


def run(args: Namespace) -> None:
    if args.perceptual:
        with display(f"converting {args.perceptual}", quiet=args.quiet):
            from ..converters import convert_perceptual

            card = convert_perceptual(args.perceptual, args.out, allow_pickle=args.allow_pickle)
        print(f"{args.out}: {', '.join(card.configs)}")
        return
    with display(f"converting {args.base}", quiet=args.quiet):
        from ..converters import convert

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
    print_info(args.out)
