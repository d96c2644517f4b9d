"""`omgsr eval`: scores, and the outputs of models that are to be scored."""

import contextlib
import os
import tempfile
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..evaluation.options import require_metrics
from ..evaluation.papers import require_benchmark
from .progress import Display, add_quiet, display
from .values import location, not_negative, positive

if TYPE_CHECKING:
    from ..evaluation import Evaluation

SUMMARY = "scores of outputs against references"


# Which metrics read what an option names.
_FOR = {
    "niqe_params": {"niqe"},
    "inception": {"fid"},
    "perceptual": {"lpips", "dists", "lpips_vgg"},
}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--sr",
        type=location,
        action="append",
        default=[],
        metavar="DIR",
        help="outputs; give it again to compare another system",
    )
    parser.add_argument(
        "--model",
        type=location,
        action="append",
        default=[],
        metavar="MODEL",
        help="nano, or a converted model: makes outputs from --lr; may be given again, too",
    )
    parser.add_argument(
        "--hr", type=location, required=True, metavar="DIR", help="references of the same names"
    )
    parser.add_argument(
        "--lr", type=location, metavar="DIR", help="inputs, for --model and to show in the report"
    )
    parser.add_argument(
        "--out", type=location, metavar="DIR", help="write CSV, JSON, Markdown and HTML there"
    )
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
        type=not_negative,
        default=0,
        metavar="PX",
        help="leave out (default: 0)",
    )
    parser.add_argument(
        "--grid-period",
        type=positive,
        default=16,
        metavar="PX",
        help="of `grid` (default: 16)",
    )
    parser.add_argument(
        "--niqe-params", type=location, metavar="FILE", help="NIQE's parameters, .npz or .mat"
    )
    parser.add_argument(
        "--inception", type=location, metavar="FILE", help="FID's Inception weights"
    )
    parser.add_argument(
        "--perceptual",
        type=location,
        metavar="DIR",
        help="LPIPS' and DISTS' networks, converted (else by pyiqa)",
    )
    parser.add_argument(
        "--allow-pickle", action="store_true", help="open a .pth (torch.load, weights only)"
    )
    add_quiet(parser)


def check(args: Namespace) -> None:
    if args.out:
        from ..files import require_folder_name

        require_folder_name(args.out)
    if not args.sr and not args.model:
        raise InputError("give outputs with --sr, or what makes them with --model")
    if args.model and not args.lr:
        raise InputError("--model needs inputs: give their folder with --lr")
    require_metrics(args.metrics or ())
    if args.benchmark:
        require_benchmark(args.benchmark)
    for option, given in (("--sr", args.sr), ("--model", args.model)):
        twice = [path for path, count in Counter(map(os.path.realpath, given)).items() if count > 1]
        if twice:
            raise InputError(
                f"{option} {twice[0]} is given twice: it cannot be compared with itself"
            )


def run(args: Namespace) -> Sequence[str]:
    for option in _FOR:
        path = getattr(args, option)
        if path and not os.path.exists(path):
            raise InputError(f"--{option.replace('_', '-')} {path} does not exist")
    with display("loading the metrics", quiet=args.quiet) as shown:
        result = _scored(args, shown)
    from ..evaluation.writing import markdown, summarise

    print(markdown(summarise(result)), end="")
    if args.out:
        print(f"\n{args.out}: images.csv, summary.json, summary.md, report.html")
    asked = {*(args.metrics or ()), *_given_in_vain(args, result.not_run)}
    return [f"{key} was not run: {why}" for key, why in result.not_run.items() if key in asked]


def _scored(args: Namespace, shown: Display) -> "Evaluation":
    from .. import evaluation

    inception = None
    if args.inception:
        from ..converters import read_inception

        inception = read_inception(args.inception, allow_pickle=args.allow_pickle)
    with _outputs(args, shown) as folders:
        shown.begin("scoring")
        return evaluation.run(
            folders,
            args.hr,
            args.lr,
            out=args.out,
            metrics=args.metrics,
            protocol=args.protocol,
            benchmark=args.benchmark,
            settings=evaluation.Settings(
                crop_border=args.crop_border,
                grid_period=args.grid_period,
                niqe_params=args.niqe_params,
                inception=inception,
                perceptual=args.perceptual,
            ),
            subset=args.subset,
            cross_check=args.cross_check,
            progress=lambda name, done, total: shown.count(f"scoring {name}", done, total),
        )


def _given_in_vain(args: Namespace, not_run: Mapping[str, str]) -> Iterator[str]:
    """Metrics that do not run although a file for them is named: something is wrong with it."""
    for option, keys in _FOR.items():
        if getattr(args, option) and not_run.keys() >= keys:
            yield from keys


@contextlib.contextmanager
def _outputs(args: Namespace, shown: Display) -> Iterator[dict[str, Path]]:
    """The folders of outputs to score: those given, and those that the given models make."""
    from ..evaluation.benchmark import name_systems
    from ..evaluation.restoring import restore_by_each

    with tempfile.TemporaryDirectory(prefix="omgsr-eval-") as scratch:
        made = restore_by_each(
            args.model,
            args.lr,
            args.hr,
            Path(args.out or scratch) / "sr",
            begin=shown.begin,
            reads=args.sr,
            progress=lambda name, done, total: shown.count(f"{name} restored", done, total),
        )
        folders = [*map(Path, args.sr), *made]
        yield dict(zip(name_systems([*args.sr, *args.model]), folders, strict=True))
