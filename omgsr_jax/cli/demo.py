"""`omgsr demo`: its options, and what it prints."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from ..assets import SAMPLES
from .progress import add_quiet, display
from .values import location

if TYPE_CHECKING:
    from ..demo import Demonstration

SUMMARY = "a photograph restored by nano, to see what it does"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--out",
        type=location,
        default="omgsr-demo",
        metavar="DIR",
        help="default: omgsr-demo",
    )
    parser.add_argument(
        "--sample", choices=SAMPLES, default=SAMPLES[0], help=f"default: {SAMPLES[0]}"
    )
    add_quiet(parser)


def run(args: Namespace) -> None:
    print(f"restoring the sample {args.sample} with nano, in one step", flush=True)
    with display("loading nano", quiet=args.quiet) as shown:
        from .. import demo

        done = demo.run(args.out, args.sample, notify=shown.work, begin=shown.begin)
    _print(done)


def _print(shown: "Demonstration") -> None:
    from ..evaluation.metrics import BY_KEY

    compiling = f", {shown.compiling:.1f} s of it compiling" if shown.compiling else ""
    print(f"took {shown.seconds:.1f} s{compiling}\n")
    print(f"{'':8}{'bicubic':>9}{'nano':>9}")
    for key, values in shown.scores.items():
        metric = BY_KEY[key]
        row = "".join(f"{value:>9.{metric.decimals}f}" for value in values)
        print(f"{metric.label:8}{row}  {metric.better} is better")
    print()
    width = max(len(str(path)) for path in shown.files.values())
    for what, path in shown.files.items():
        print(f"{path!s:{width}}  {what}")
    print("\nNow a photograph of yours:\n  omgsr upscale your.jpg -o out.png")
