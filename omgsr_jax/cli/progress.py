"""How far a subcommand is: on stderr, so that stdout holds results alone."""

import json
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..inference.folder import Report


def show_progress(what: str, done: int, total: int) -> None:
    """A line that counts on a terminal; elsewhere one line at the end."""
    if sys.stderr.isatty():
        print(f"\r{what}: {done} of {total}", end="", file=sys.stderr, flush=True)
    if done == total:
        start = "\n" if sys.stderr.isatty() else f"{what}: {total} of {total}\n"
        print(start, end="", file=sys.stderr, flush=True)


def show_work(what: str, seconds: float | None) -> None:
    """What takes long, when it begins, and at its end the seconds that it took."""
    text = f"{what} ..." if seconds is None else f"{what}: {seconds:.1f} s"
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

    def work(self, what: str, seconds: float | None) -> None:
        self._clear()
        show_work(what, seconds)

    def show(self, report: "Report") -> None:
        self.counts[report.status] += 1
        self._clear()
        if report.error:
            self.failures.append(report.error)
            print(f"failed: {report.error}", file=sys.stderr, flush=True)
        for note in report.notes:
            print(f"note: {note}", file=sys.stderr, flush=True)
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


def _line(report: "Report") -> str:
    (h, w), (height, width) = report.input_size or (0, 0), report.output_size or (0, 0)
    seconds = sum(report.seconds.values())
    return f"{report.job.source} -> {report.job.goal}  {w}x{h} -> {width}x{height}  {seconds:.2f} s"
