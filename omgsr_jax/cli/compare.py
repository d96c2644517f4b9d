"""`omgsr compare`: one photograph through several models, on a page."""

import os
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from . import enlarging, loading
from .progress import Display, add_quiet, display
from .values import MODEL, location

if TYPE_CHECKING:
    from ..evaluation.compare import Scores, Version
    from ..inference.progress import OnProgress, Progress

SUMMARY = "one photograph through several models, side by side on a page"

_PAGES = (".html", ".htm")


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("photo", type=location, metavar="IN", help="an image file")
    parser.add_argument(
        "--models", nargs="+", required=True, type=location, metavar="MODEL", help=MODEL
    )
    parser.add_argument(
        "-o", "--out", required=True, type=location, metavar="PAGE", help="such as sheet.html"
    )
    enlarging.add_options(parser)
    loading.add_options(parser)
    parser.add_argument(
        "--niqe-params", type=location, metavar="FILE", help="NIQE's parameters, .npz or .mat"
    )
    add_quiet(parser)


def check(args: Namespace) -> None:
    enlarging.asked(args)
    if Path(args.out).suffix.lower() not in _PAGES:
        raise InputError(f"--out {args.out}: expected the name of a page, such as sheet.html")
    twice = [name for name, count in Counter(args.models).items() if count > 1]
    if twice:
        raise InputError(f"--models {twice[0]} is given twice: it cannot be compared with itself")


def run(args: Namespace) -> None:
    from .. import assets, files
    from ..inference import images

    with display("reading", quiet=args.quiet) as shown:
        out = files.Outputs([args.photo]).claim(Path(args.out))
        photo = images.read(args.photo)
        for model in args.models:  # what is wrong with names is said before the first is loaded
            assets.model_directory(model)
        if args.niqe_params and not os.path.exists(args.niqe_params):
            raise InputError(f"--niqe-params {args.niqe_params} does not exist")
        shown.begin("starting JAX")
        from ..evaluation import Settings, compare

        versions = list(
            compare.restored(
                photo,
                args.models,
                enlarging.asked(args),
                begin=shown.begin,
                notify=shown.work,
                on_progress=_further(shown) if shown.is_shown else None,
                precision=args.precision,
                strips=args.strips,
                batch=args.batch,
                devices=loading.devices(args.device),
                shards=args.shards,
                shifts=args.shifts,
                fidelity=args.fidelity,
            )
        )
        shown.begin("scoring")
        scores = compare.scored(versions, Settings(niqe_params=args.niqe_params))
        shown.begin("writing")
        files.write_text(out, compare.page(args.photo, photo, versions, scores))
    _print(versions, scores)
    print(f"\n{out}: a page that needs no network")


def _further(shown: Display) -> "OnProgress":
    def further(progress: "Progress") -> None:
        if progress.stage != "compiling":  # the display is told what
            count = f" {progress.done} of {progress.of}" if progress.of > 1 else ""
            shown.further(f"{progress.stage}{count}", progress.share, progress.seconds_left)

    return further


def _print(versions: "list[Version]", scores: "Scores") -> None:
    from ..evaluation.metrics import BY_KEY

    metrics = [BY_KEY[key] for key in scores.values]
    wide = max(len(version.name) for version in versions)
    print(f"{'':{wide}}{'seconds':>10}" + "".join(f"{metric.label:>10}" for metric in metrics))
    for i, version in enumerate(versions):
        seconds = "-" if version.seconds is None else f"{version.seconds:.2f}"
        row = "".join(f"{m.show(values[i]):>10}" for m, values in
                      zip(metrics, scores.values.values(), strict=True))  # fmt: skip
        print(f"{version.name:{wide}}{seconds:>10}{row}")
