"""How much larger: options that several subcommands share."""

from argparse import ArgumentParser, Namespace

from ..inference.options import COLORS, Options
from ..inference.sizes import DEFAULT_SCALE, LARGEST_SCALE, Enlargement
from .values import not_negative, positive, width_height


def add_options(parser: ArgumentParser) -> None:
    larger = parser.add_mutually_exclusive_group()
    larger.add_argument(
        "--scale", type=float, help=f"1 .. {LARGEST_SCALE:g} (default: {DEFAULT_SCALE:g})"
    )
    larger.add_argument("--longest-side", type=positive, metavar="PX", help="of the output")
    larger.add_argument("--size", type=width_height, metavar="WxH", help="of the output")
    parser.add_argument(
        "--color",
        choices=COLORS,
        help="which colours of the input the output gets (default: what `omgsr info` says)",
    )
    parser.add_argument(
        "--seed", type=not_negative, help="sample the VAE's posterior (default: its mode)"
    )


def asked(args: Namespace) -> Options:
    enlargement = Enlargement.asked(args.scale, args.longest_side, args.size)
    return Options(enlargement, args.color, args.seed)
