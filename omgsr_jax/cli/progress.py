"""What a subcommand is doing, while it does it: a line that moves, on a terminal, on stderr.

Where stderr is no terminal, and with --quiet, nothing is shown. Results, notes and failures are
printed all the same.
"""

import contextlib
import os
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Iterator

_REDRAWN = 5  # times in a second, by a thread
_WIDTH = 24  # of the bar
_FULL = 0.999  # at 1 rich takes the work for done, and nothing moves any more


class Display:
    """The line where nothing is shown."""

    is_shown = False

    def begin(self, what: str) -> None:
        """What is done from now on. How long it takes is not known."""

    def further(self, what: str, share: float, seconds_left: float | None = None) -> None:
        """How far that is, with words on it."""

    def count(self, what: str, done: int, total: int) -> None:
        """How far that is, where it is counted."""

    def work(self, what: str, seconds: float | None) -> None:
        """A `Notify`: something in between begins, or has ended."""

    def end(self) -> None:
        """Before the block ends, so that stdout can be printed on."""


class _Line(Display):
    """A thread of rich's redraws it, so it moves while a program runs or is compiled."""

    is_shown = True

    def __init__(self) -> None:
        # Here, as it takes as long as all else that the command needs to start.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self.bar = Progress(
            SpinnerColumn("line" if console.options.ascii_only else "dots"),
            TextColumn("{task.description}", markup=False),
            BarColumn(_WIDTH),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            refresh_per_second=_REDRAWN,
            transient=True,
            redirect_stdout=False,  # it may be a pipe
        )
        self._changing = threading.Lock()  # work is told of by several threads
        self._task = self.bar.add_task("", total=None, left="")
        self._what = self._interrupted = ""
        self._began = time.perf_counter()

    def begin(self, what: str) -> None:
        with self._changing:
            self.bar.remove_task(self._task)
            self._task = self.bar.add_task(what, total=None, left="")
            self._what, self._began = what, time.perf_counter()

    def further(self, what: str, share: float, seconds_left: float | None = None) -> None:
        with self._changing:
            left = "" if seconds_left is None else f"{duration(seconds_left)} left"
            completed = min(share, _FULL)
            self.bar.update(self._task, description=what, total=1, completed=completed, left=left)

    def count(self, what: str, done: int, total: int) -> None:
        spent = time.perf_counter() - self._began
        left = spent * (total - done) / done if done else None
        self.further(f"{what}: {done} of {total}", done / total, left)

    def work(self, what: str, seconds: float | None) -> None:
        if seconds is None:
            self._interrupted = self._what
        self.begin(what if seconds is None else self._interrupted)

    def end(self) -> None:
        self.bar.stop()


@contextlib.contextmanager
def display(what: str, *, quiet: bool = False) -> Iterator[Display]:
    """Shows what is done in the block, beginning with `what`. Meanwhile what is printed on stderr
    appears above; stdout is printed on when it has ended."""
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield Display()
        return
    line = _Line()
    line.begin(what)
    with line.bar:
        yield line


def add_quiet(parser: ArgumentParser, what: str = "show no progress") -> None:
    parser.add_argument("--quiet", action="store_true", help=what)


def duration(seconds: float) -> str:
    """For people: 12 s, 3 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
