"""What `omgsr upscale` says of its files: how far they are, what became of each, and a summary."""

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .progress import Display

if TYPE_CHECKING:
    from ..inference.jobs import Job
    from ..inference.progress import Progress
    from ..inference.reports import Report


class Reporter:
    """Args:
    display: the line that moves.
    total: how many files there are.
    in_common: what a line of JSON says of the run.
    """

    def __init__(
        self,
        display: Display,
        total: int,
        in_common: Mapping[str, Any],
        as_json: bool,
        quiet: bool,
    ):
        from ..inference.reports import Throughput

        self.display, self.total, self.in_common = display, total, in_common
        self.as_json, self.quiet = as_json, quiet
        self.throughput = Throughput()
        self.failures: list[str] = []
        self._counts: Counter[str] = Counter()
        self._lines: list[str] = []  # for when the display has ended
        self._said_cost = False
        self._share, self._began = 0.0, time.perf_counter()

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def further(self, jobs: Sequence["Job"], progress: "Progress") -> None:
        """How far a batch is."""
        if progress.stage == "compiling":  # the display is told what
            return
        name = jobs[0].source.name if len(jobs) == 1 else f"{len(jobs)} images"
        count = f" {progress.done} of {progress.of}" if progress.of > 1 else ""
        self._show(f"{name}: {progress.stage}{count}", len(jobs) * progress.share, progress)

    def _show(self, what: str, begun: float, progress: "Progress") -> None:
        done = sum(self._counts.values())
        # Files count as done when they are written; the next batch has begun by then.
        self._share = max(self._share, min(1.0, (done + begun) / self.total))
        if self.total == 1:
            if self._share == 1:
                self.display.begin("writing")
            else:
                self.display.further(what, self._share, progress.seconds_left)
            return
        spent = time.perf_counter() - self._began
        left = spent * (1 / self._share - 1) if done else None
        self.display.further(f"{done} of {self.total}  {what}", self._share, left)

    def show(self, report: "Report") -> None:
        """What became of a file."""
        self._counts[report.status] += 1
        if report.error:
            self.failures.append(report.error)
            print(f"failed: {report.error}", file=sys.stderr, flush=True)
        for note in report.notes:
            print(f"note: {note}", file=sys.stderr, flush=True)
        self._say_cost(report)
        if self.as_json:
            print(json.dumps({**report.to_json(), **self.in_common}), flush=True)
        elif report.status == "done" and not self.quiet:
            self._say_done(report)

    def _say_cost(self, report: "Report") -> None:
        """Once: a folder may hold thousands of icons."""
        if report.cost and not self._said_cost:
            self._said_cost = True
            others = "; so do images like it" if self.total > 1 else ""
            self.say(f"note: {report.cost}{others}")

    def _say_done(self, report: "Report") -> None:
        if not self.display.is_shown:
            print(_line(report), flush=True)
        elif self.total == 1:
            self._lines.append(_line(report))

    def end(self) -> None:
        """A summary, on the last lines."""
        self.display.end()
        for line in self._lines:
            print(line, flush=True)
        missing = self.total - sum(self._counts.values())
        parts = [f"{count} {status}" for status, count in self._counts.items()]
        parts += [f"{missing} unfinished"] if missing else []
        self.say(f"{', '.join(parts) or 'nothing done'}{self._rates()}")
        if self.as_json:
            print(json.dumps({"summary": {**self._summary(missing), **self.in_common}}), flush=True)
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
            **{status: self._counts[status] for status in ("done", "skipped", "failed")},
            "unfinished": unfinished,
            "seconds": round(took.seconds, 4),
            "seconds_compiling": round(took.compiling, 4),
            "images_per_second": round(took.images_per_second, 4),
            "megapixels_per_second": round(took.megapixels_per_second, 4),
            "share_waited": round(took.share_waited, 4),
        }


def _line(report: "Report") -> str:
    (h, w), (height, width) = report.input_size or (0, 0), report.output_size or (0, 0)
    seconds, compiling = sum(report.seconds.values()), report.seconds.get("compile", 0)
    return (
        f"{report.job.source} -> {report.job.goal}  {w}x{h} -> {width}x{height}  {seconds:.2f} s"
        f"{f', {compiling:.1f} s of it compiling' if compiling else ''}"
    )
