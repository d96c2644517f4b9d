"""`omgsr upscale`: from its arguments to files, with progress and a summary."""

import contextlib
import os
import signal
import sys
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from types import FrameType

from .. import assets, launchers
from ..errors import InputError
from ..inference.formats import suffix_of_format
from ..inference.options import (
    COLORS,
    INFERENCE_PRECISIONS,
    Options,
    Share,
    require_batch,
    require_whole_scale,
)
from ..inference.sizes import DEFAULT_SCALE, LARGEST_SCALE, Enlargement
from ..quirks import QUIRKS
from .progress import Progress
from .values import MODEL, location, not_negative, positive, shard, strips, width_height

SUMMARY = "images to larger, restored ones"

_NO_MODEL_NAMED = "no --model given: taking nano, the small model that comes with omgsr-jax"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", type=location, metavar="IN", help="files, folders, globs"
    )
    parser.add_argument(
        "-o",
        "--out",
        required=True,
        type=location,
        help="a file for one input, else a folder that mirrors them",
    )
    parser.add_argument("--model", type=location, metavar="MODEL", help=f"{MODEL} (default: nano)")
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
        "--precision",
        choices=INFERENCE_PRECISIONS,
        help="default: fp32 on CPUs, else bf16; int8 halves the backbone's weights",
    )
    parser.add_argument(
        "--shards",
        type=positive,
        default=1,
        metavar="N",
        help="devices over which the backbone's weights are divided (default: 1)",
    )
    parser.add_argument(
        "--strips",
        type=strips,
        default="auto",
        metavar="auto|off|ROWS",
        help="when the VAE works in strips of rows (default: when memory is short)",
    )
    parser.add_argument(
        "--batch", type=positive, default=1, help="images at once per device (default: 1)"
    )
    parser.add_argument(
        "--seed", type=not_negative, help="sample the VAE's posterior (default: its mode)"
    )
    parser.add_argument(
        "--quirks", choices=QUIRKS, help="round and truncate as the published script does"
    )
    parser.add_argument("--format", metavar="EXT", help="of the outputs: png, jpg, webp, tiff ...")
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


def check(args: Namespace) -> None:
    options = _options(args)
    require_batch(args.batch)
    if args.quirks:
        require_whole_scale(options.enlargement)
    if args.format is not None:
        suffix_of_format(args.format)


def run(args: Namespace) -> int:
    """Upscales; returns 1 if some inputs failed."""
    from ..inference.jobs import plan

    jobs = plan(
        args.inputs,
        args.out,
        recursive=args.recursive,
        suffix=args.format,
        overwrite_input=args.overwrite_input,
        compare=args.compare,
        notify=lambda text: print(text, file=sys.stderr, flush=True),
    )
    if not any(os.path.lexists(job.source) for job in jobs):  # no need to load a model for that
        more = f", nor do {len(jobs) - 1} others" if len(jobs) > 1 else ""
        raise InputError(f"{jobs[0].source} does not exist{more}")
    if args.model is None:
        print(_NO_MODEL_NAMED, file=sys.stderr, flush=True)
    directory = assets.model_directory(args.model or assets.NANO)
    # Only now JAX, so that what is wrong with names has been said at once.
    share = _share(args)
    from ..inference.reports import Throughput

    progress = Progress(len(share.of(jobs)), Throughput(), as_json=args.json)
    if share.count > 1:
        progress.say(f"share {share.index}/{share.count}: {progress.total} of {len(jobs)} images")
    from ..inference.folder import upscale_files
    from ..inference.loading import load

    model = load(
        directory,
        precision=args.precision,
        strips=args.strips,
        batch=args.batch,
        shards=args.shards,
        quirks=args.quirks,
        notify=progress.work,
    )
    reports = upscale_files(
        model,
        jobs,
        _options(args),
        share=share,
        skip_existing=args.skip_existing,
        throughput=progress.throughput,
    )
    try:
        with _interruptions() as asked_to_stop:
            for report in reports:
                progress.show(report)
                if asked_to_stop.is_set():
                    raise KeyboardInterrupt
    finally:
        reports.close()
        progress.end()
    return 1 if progress.failures else 0


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


def _options(args: Namespace) -> Options:
    enlargement = Enlargement.asked(args.scale, args.longest_side, args.size)
    return Options(enlargement, args.color, args.seed)


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
