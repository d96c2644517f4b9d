"""`omgsr upscale`: from its arguments to files, with progress and a summary."""

import argparse
import contextlib
import json
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from types import FrameType

from .. import assets
from . import files
from .folder import Report, upscale_files
from .sizes import Enlargement
from .upscaler import Options, load

NO_MODEL_NAMED = "no --model given: taking nano, the small model that comes with omgsr-jax"


def run(args: argparse.Namespace) -> int:
    """Upscales; returns 1 if some inputs failed."""
    size = args.size and (args.size[1], args.size[0])
    scale = args.scale if args.scale or args.longest_side or size else 4.0
    options = Options(
        Enlargement(scale, args.longest_side, size), args.color, args.quirks, args.seed
    )
    jobs = files.plan(
        args.inputs,
        args.out,
        recursive=args.recursive,
        suffix=args.format,
        overwrite_input=args.overwrite_input,
    )
    progress = Progress(len(jobs), as_json=args.json)
    if args.model is None:
        print(NO_MODEL_NAMED, file=sys.stderr, flush=True)
    model = load(
        args.model or assets.NANO,
        precision=args.precision,
        tile=args.tile,
        batch=args.batch,
        shards=args.shards,
        notify=progress.compiling,
    )
    reports = upscale_files(
        model, jobs, options, skip_existing=args.skip_existing, compare=args.compare
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


def show_compiling(program: str, seconds: float | None) -> None:
    text = f"compiling {program} ..." if seconds is None else f"compiled in {seconds:.1f} s"
    print(text, file=sys.stderr, flush=True)


class Progress:
    """Plain lines, JSON lines, or a bar on a terminal; failures again at the end."""

    def __init__(self, total: int, *, as_json: bool):
        self.total = total
        self.as_json = as_json
        self.bar = sys.stderr.isatty() and not as_json
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.started = time.perf_counter()

    def compiling(self, program: str, seconds: float | None) -> None:
        self._clear()
        show_compiling(program, seconds)

    def show(self, report: Report) -> None:
        self.counts[report.status] += 1
        self._clear()
        if report.error:
            self.failures.append(report.error)
            print(f"failed: {report.error}", file=sys.stderr, flush=True)
        if self.as_json:
            print(json.dumps(report.to_json()), flush=True)
        elif report.status == "done" and not self.bar:
            print(_line(report), flush=True)
        self._draw()

    def end(self) -> None:
        self._clear()
        summary = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        rate = self.counts["done"] / (time.perf_counter() - self.started)
        missing = self.total - sum(self.counts.values())
        stopped = f", {missing} not begun" if missing else ""
        print(f"{summary or 'nothing done'}{stopped} ({rate:.2f} images/s)", file=sys.stderr)
        for failure in self.failures if self.total > 1 else []:
            print(f"  failed: {failure}", file=sys.stderr)

    def _draw(self) -> None:
        if not self.bar:
            return
        done = sum(self.counts.values())
        seconds = time.perf_counter() - self.started
        rate = done / seconds
        left = (self.total - done) / rate
        filled = 24 * done // self.total
        print(
            f"\r[{'#' * filled}{'.' * (24 - filled)}] {done}/{self.total}  "
            f"{rate:.2f} images/s  {left:.0f} s left ",
            end="",
            file=sys.stderr,
            flush=True,
        )

    def _clear(self) -> None:
        if self.bar:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _line(report: Report) -> str:
    (h, w), (height, width) = report.input_size or (0, 0), report.output_size or (0, 0)
    seconds = sum(report.seconds.values())
    return f"{report.job.source} -> {report.job.goal}  {w}x{h} -> {width}x{height}  {seconds:.2f} s"
