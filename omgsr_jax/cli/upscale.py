"""`omgsr upscale`: from its arguments to files, with progress and a summary."""

import contextlib
import os
import signal
import sys
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from .. import __version__, assets, launchers
from ..errors import InputError
from ..inference.formats import suffix_of_format
from ..inference.options import (
    Share,
    require_batch,
    require_whole_scale,
)
from ..quirks import QUIRKS
from . import enlarging, loading
from .progress import add_quiet, display
from .reporting import Reporter
from .values import MODEL, location, shard, suffix, two_strengths

if TYPE_CHECKING:
    from ..inference.jobs import Job
    from ..inference.progress import Progress
    from ..inference.upscaler import Upscaler

SUMMARY = "images to larger, restored ones"

_NO_MODEL_NAMED = "no --model given: taking nano, the small model that comes with omgsr-jax"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", type=location, metavar="IN", help="files, folders, globs, .txt lists"
    )
    parser.add_argument(
        "-o",
        "--out",
        required=True,
        type=location,
        help="a file for one input, else a folder that mirrors them",
    )
    parser.add_argument("--model", type=location, metavar="MODEL", help=f"{MODEL} (default: nano)")
    enlarging.add_options(parser)
    loading.add_options(parser)
    parser.add_argument(
        "--strengths",
        type=two_strengths,
        metavar="PIX,SEM",
        help="of PiSA-SR's pixel and semantic adapters, such as 1,0.5 (default: 1,1)",
    )
    parser.add_argument(
        "--quirks",
        choices=QUIRKS,
        help="what this version of the published script does that is not correct",
    )
    parser.add_argument("--format", metavar="EXT", help="of the outputs: png, jpg, webp, tiff ...")
    parser.add_argument(
        "--suffix", type=suffix, metavar="TEXT", help="added to outputs' names: photo_large.jpg"
    )
    parser.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="do every N-th file, from the I-th on (from 0), so that N runs do all; not --shards",
    )
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
    parser.add_argument(
        "--json", action="store_true", help="a line of JSON per image, one at the end"
    )
    add_quiet(parser, "say only what failed")


def check(args: Namespace) -> None:
    options = enlarging.asked(args)
    require_batch(args.batch)
    if args.quirks:
        require_whole_scale(options.enlargement)
    if args.format is not None:
        suffix_of_format(args.format)


def run(args: Namespace) -> int:
    """Upscales; returns 1 if some inputs failed."""
    with display("looking at the files", quiet=args.quiet or args.json) as shown:
        jobs = _jobs(args)
        name = args.model or assets.NANO
        if args.model is None and not args.quiet:
            print(_NO_MODEL_NAMED, file=sys.stderr, flush=True)
        directory = assets.model_directory(name)
        # Only now JAX, so that what is wrong with names has been said at once.
        shown.begin("starting JAX")
        devices, share = loading.devices(args.device), _share(args)
        reporter = Reporter(shown, len(share.of(jobs)), _in_common(args), args.json, args.quiet)
        if share.count > 1:
            reporter.say(
                f"share {share.index}/{share.count}: {reporter.total} of {len(jobs)} images"
            )
        shown.begin(f"loading {name}")
        from ..inference.loading import load

        model = load(
            directory,
            precision=args.precision,
            strips=args.strips,
            batch=args.batch,
            devices=devices,
            shards=args.shards,
            shifts=args.shifts,
            fidelity=args.fidelity,
            strengths=args.strengths,
            quirks=args.quirks,
            notify=shown.work,
        )
        shown.begin("reading")
        try:
            _upscale(args, model, jobs, share, reporter)
        finally:
            reporter.end()
    return 1 if reporter.failures else 0


def _jobs(args: Namespace) -> "list[Job]":
    from ..inference.jobs import plan

    jobs = plan(
        args.inputs,
        args.out,
        recursive=args.recursive,
        format=args.format,
        suffix=args.suffix or "",
        overwrite_input=args.overwrite_input,
        compare=args.compare,
        notify=lambda text: print(text, file=sys.stderr, flush=True),
    )
    if not any(os.path.lexists(job.source) for job in jobs):  # no need to load a model for that
        more = f", nor do {len(jobs) - 1} others" if len(jobs) > 1 else ""
        raise InputError(f"{jobs[0].source} does not exist{more}")
    return jobs


def _upscale(
    args: Namespace, model: "Upscaler", jobs: "Sequence[Job]", share: Share, reporter: Reporter
) -> None:
    from ..inference.folder import upscale_files

    with _interruptions() as asked_to_stop:

        def further(batch: "Sequence[Job]", progress: "Progress") -> None:
            if asked_to_stop.is_set():  # in the middle of an image
                raise KeyboardInterrupt
            reporter.further(batch, progress)

        reports = upscale_files(
            model,
            jobs,
            enlarging.asked(args),
            share=share,
            skip_existing=args.skip_existing,
            throughput=reporter.throughput,
            on_progress=further if reporter.display.is_shown else None,
        )
        with contextlib.closing(reports):
            for report in reports:
                reporter.show(report)
                if asked_to_stop.is_set():
                    raise KeyboardInterrupt


def _in_common(args: Namespace) -> dict[str, Any]:
    """What a line of JSON says of the run."""
    return {
        "model": args.model or assets.NANO,
        "version": __version__,
        "scale": enlarging.asked(args).enlargement.scale,
        "seed": args.seed,
    }


def _share(args: Namespace) -> Share:
    """What is asked for, or this process's own part where a launcher or JAX has started several."""
    import jax

    if gpus := launchers.own_gpus(os.environ):
        for name in launchers.VISIBLE_GPUS:
            jax.config.update(name, gpus)
    if args.shard:
        return args.shard
    if process := launchers.launched(os.environ):
        return Share(process.index, process.count)
    return Share(jax.process_index(), jax.process_count())


@contextlib.contextmanager
def _interruptions() -> Iterator[threading.Event]:
    """Whether Ctrl-C was pressed: Python drops a KeyboardInterrupt that arrives in a callback."""
    asked = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.default_int_handler(number, frame)

    if threading.current_thread() is not threading.main_thread():  # it gets no signals
        yield asked
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
