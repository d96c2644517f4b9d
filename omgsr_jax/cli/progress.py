"""How far a subcommand is: on stderr, so that stdout holds results alone."""

import json
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..inference.reports import Report, Throughput


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

    def __init__(self, total: int, throughput: "Throughput", *, as_json: bool):
        self.total = total
        self.throughput = throughput
        self.as_json = as_json
        self.bar = sys.stderr.isatty() and not as_json
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.started = time.perf_counter()

    def work(self, what: str, seconds: float | None) -> None:
        self._clear()
        show_work(what, seconds)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

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
        missing = self.total - sum(self.counts.values())
        parts = [f"{count} {status}" for status, count in self.counts.items()]
        parts += [f"{missing} unfinished"] if missing else []
        print(f"{', '.join(parts) or 'nothing done'}{self._rates()}", file=sys.stderr)
        if self.as_json:
            print(json.dumps({"summary": self._summary(missing)}), flush=True)
        for failure in self.failures if self.total > 1 else []:
            print(f"  failed: {failure}", file=sys.stderr)

    def _rates(self) -> str:
        took = self.throughput
        if not took.images:
            return ""
        return (
            f" ({took.images_per_second:.2f} images/s, {took.megapixels_per_second:.2f} "
            f"megapixels/s, the device waited {took.share_waited:.0%} of the time)"
        )

    def _summary(self, unfinished: int) -> dict[str, float]:
        took = self.throughput
        return {
            **{status: self.counts[status] for status in ("done", "skipped", "failed")},
            "unfinished": unfinished,
            "seconds": round(took.seconds, 4),
            "images_per_second": round(took.images_per_second, 4),
            "megapixels_per_second": round(took.megapixels_per_second, 4),
            "share_waited": round(took.share_waited, 4),
        }

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
