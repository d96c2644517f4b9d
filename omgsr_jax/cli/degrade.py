"""`omgsr degrade`: pairs of images to train or test with."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from .progress import add_quiet, display
from .values import location, not_negative, positive

SUMMARY = "pairs of low and high quality from photographs"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source", type=location, metavar="IN", help="a folder, a .txt list or an image"
    )
    parser.add_argument(
        "-o", "--out", required=True, type=location, metavar="OUT", help="the folder to write"
    )
    parser.add_argument("--seed", type=not_negative, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--preset",
        type=int,
        choices=(512, 1024),
        default=512,
        help="published parameters: x4 for 512 px (default), x8 for 1024 px",
    )
    parser.add_argument(
        "--crop",
        type=positive,
        metavar="PX",
        help="cut the centre (default: the whole image)",
    )
    parser.add_argument(
        "--resize-back", action="store_true", help="write lr as large as hr, as in training"
    )
    add_quiet(parser)


def run(args: Namespace) -> Sequence[str]:
    with display("looking at the images", quiet=args.quiet) as shown:
        from ..data import PRESETS, degrade_folder

        summary = degrade_folder(
            args.source,
            args.out,
            seed=args.seed,
            config=PRESETS[args.preset],
            crop=args.crop,
            resize_back=args.resize_back,
            progress=lambda done, total: shown.count("degraded", done, total),
            notify=lambda text: print(f"omgsr degrade: {text}", file=sys.stderr),
        )
    print(f"{args.out}: {summary.written} pairs in lr/ and hr/, their plans in pairs.jsonl")
    return [reason if path in reason else f"{path}: {reason}" for path, reason in summary.failed]
