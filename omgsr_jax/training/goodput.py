"""Goodput: where the seconds of a run went, over all of its starts.

    workdir/goodput.json      seconds by kind, and those of each checkpoint

Each second of the first process is of one kind: `starting` until the loop begins, `restoring`,
`compiling` (the first call of the step), `data` (waiting for it), `step`, `validation`,
`checkpoint`. What was done after the checkpoint that a run goes on from is moved to `lost`. `away`
lies between what was written last and the next start.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from etils import epath

from .. import buckets, files

FILE = "goodput.json"
_REPEATED = ("data", "step")
_MOST_CHECKPOINTS = 100
_SECONDS = 10.0  # between two writings; in a bucket six times as long


class Goodput:
    def __init__(self, folder: epath.Path):
        self._path = folder / FILE
        self.seconds: dict[str, float] = {}
        self._saved: dict[int, dict[str, float]] = {}  # what had been done then, by step
        self._read()
        self.begun = False  # whether the loop is
        self._kind, self._since = "starting", time.perf_counter()
        self._written = time.monotonic()
        self._pause = _SECONDS * (6 if buckets.is_remote(folder) else 1)

    @contextmanager
    def spending(self, kind: str) -> Iterator[None]:
        before = self._kind
        self.turn_to(kind)
        try:
            yield
        finally:
            self.turn_to(before)

    def turn_to(self, kind: str) -> None:
        now = time.perf_counter()
        self.seconds[self._kind] = self.seconds.get(self._kind, 0.0) + now - self._since
        self._kind, self._since = kind, now

    def saved(self, step: int) -> None:
        """What has been done until now need not be done again."""
        self.turn_to(self._kind)
        self._saved[step] = self._work()
        for old in sorted(self._saved)[:-_MOST_CHECKPOINTS]:
            del self._saved[old]
        self.write()

    def resumed(self, step: int) -> None:
        """The loop begins. What was done after this step is done again."""
        self.begun = True
        kept = self._saved.get(step, {} if step == 0 else self._work())
        for kind, seconds in self._work().items():
            repeated = seconds - kept.get(kind, 0.0)
            self.seconds[kind] = seconds - repeated
            self.seconds["lost"] = self.seconds.get("lost", 0.0) + repeated
        self._saved = {saved: work for saved, work in self._saved.items() if saved <= step}

    def write(self, *, soon: bool = False) -> None:
        """Keeps the account for the next start; with `soon` it may wait for the next call."""
        if soon and time.monotonic() - self._written < self._pause:
            return
        self.turn_to(self._kind)
        self._written = time.monotonic()
        if jax.process_index() == 0:
            content = {"seconds": self.seconds, "saved": self._saved, "until": time.time()}
            files.write_text(self._path, json.dumps(content, indent=1) + "\n")

    def scalars(self) -> dict[str, float]:
        self.turn_to(self._kind)
        return {f"goodput/{kind}": seconds for kind, seconds in self.seconds.items()}

    def summary(self) -> str:
        self.turn_to(self._kind)
        total = sum(self.seconds.values()) or 1.0
        largest = sorted(self.seconds.items(), key=lambda item: -item[1])
        parts = ", ".join(f"{kind} {_shown(seconds)}" for kind, seconds in largest if seconds)
        share = self.seconds.get("step", 0.0) / total
        return f"goodput {share:.1%} of {_shown(total)}: {parts}"

    def _work(self) -> dict[str, float]:
        return {kind: self.seconds.get(kind, 0.0) for kind in _REPEATED}

    def _read(self) -> None:
        """An account that cannot be read is begun anew: nothing depends on it."""
        try:
            found: Any = json.loads(self._path.read_text())
            self.seconds = {str(kind): float(n) for kind, n in found["seconds"].items()}
            self._saved = {int(step): dict(work) for step, work in found["saved"].items()}
            away = max(0.0, time.time() - found["until"])
            self.seconds["away"] = self.seconds.get("away", 0.0) + away
        except (buckets.failures(self._path), ValueError, KeyError, TypeError, AttributeError):
            self.seconds, self._saved = {}, {}


def _shown(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
