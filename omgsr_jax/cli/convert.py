"""`omgsr convert`: PyTorch weights in."""

import sys
from argparse import ArgumentParser, Namespace

from .. import converters
from ..errors import InputError
from .info import print_info
from .progress import add_quiet, display
from .values import location, not_negative, positive

SUMMARY = "PyTorch weights to a converted model"

_OF_A_MODEL = ("base", "recipe", "adapter", "prompt", "mid_timestep", "process_size", "precision")


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--list", action="store_true", help="print the published recipes, and where they come from"
    )
    parser.add_argument(
        "--recipe", metavar="NAME", help="a published recipe, such as omgsr-s-512-v2 or hypir-sd2"
    )
    parser.add_argument(
        "--base", type=location, help="diffusers folder, or a hub id (default: the recipe's)"
    )
    parser.add_argument(
        "--adapter",
        type=location,
        help="folder with the published adapter sub-folders, a zip of it, or a relative's file",
    )
    parser.add_argument(
        "--perceptual",
        type=location,
        metavar="DIR",
        help="instead of a model: the losses' networks in a folder",
    )
    parser.add_argument("--out", type=location, help="the folder to write; must not exist")
    parser.add_argument("--prompt", help="default: that of the recipe")
    parser.add_argument("--mid-timestep", type=not_negative, help="default: that of the recipe")
    parser.add_argument(
        "--process-size", type=positive, metavar="PX", help="default: that of the recipe"
    )
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), help="of the stored base (default: as it is)"
    )
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="open .bin, .pth and .pkl files (torch.load, weights only)",
    )
    add_quiet(parser)


def check(args: Namespace) -> None:
    if args.list:
        return
    if args.out is None:
        raise InputError("--out is missing: the folder to write")
    if args.recipe:
        converters.recipes.named(args.recipe)
    if not args.perceptual:
        if not (args.base or args.recipe or args.adapter):
            raise InputError("say --recipe (--list shows them), --base, or --perceptual")
        return
    given = [name for name in _OF_A_MODEL if getattr(args, name) is not None]
    if given:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{named}: of a model, not of --perceptual")


def run(args: Namespace) -> None:
    if args.list:
        print(converters.recipes.listing())
        return
    if args.perceptual:
        with display(f"converting {args.perceptual}", quiet=args.quiet):
            card = converters.convert_perceptual(
                args.perceptual, args.out, allow_pickle=args.allow_pickle
            )
        print(f"{args.out}: {', '.join(card.configs)}")
        return
    with display(f"converting {args.base or args.recipe}", quiet=args.quiet):
        converters.convert(
            args.base,
            args.out,
            recipe=args.recipe,
            adapter=args.adapter,
            prompt=args.prompt,
            mid_timestep=args.mid_timestep,
            process_size=args.process_size,
            precision=args.precision,
            allow_pickle=args.allow_pickle,
            say=lambda text: print(f"omgsr convert: {text}", file=sys.stderr, flush=True),
        )
    print_info(args.out)
