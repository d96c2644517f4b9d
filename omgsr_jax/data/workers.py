"""The workers of a pipeline: how many there are, what a pair takes of one, and who waits."""

import math
import os
import time

_AT_FIRST = 8  # before anything is measured
_SPARE = 1.25  # times what is needed on average: steps and pairs vary
_WEIGHT = 0.1  # of the latest pairs in the average


class Workers:
    """Those of one process. The pipeline measures, and whoever takes the batches asks.

    `count` may be changed while they work: batches stay what they are. 0 are threads of the process
    itself.
    """

    def __init__(self, asked: int | None):
        self.automatic = asked is None
        self.count = min(cores(), _AT_FIRST) if asked is None else asked
        self.seconds_a_pair = 0.0  # of one worker, lately
        self._idle = 0.0
        self._ready: float | None = None

    def measured(self, seconds_a_pair: float) -> None:
        before = self.seconds_a_pair or seconds_a_pair
        self.seconds_a_pair = before + _WEIGHT * (seconds_a_pair - before)

    def fit(self, pairs: int, seconds: float) -> str | None:
        """As many as steps need that take `pairs` in `seconds`; None where the number was given.

        Returns what has been chosen, to be told.
        """
        if not self.automatic or not self.seconds_a_pair:
            return None
        needed = max(1, math.ceil(_SPARE * pairs * self.seconds_a_pair / seconds))
        self.count = min(needed, cores())
        said = f"a pair takes a worker {self.seconds_a_pair:.3f} s, a step takes {pairs} pairs in"
        short = f"; {needed} are needed, and there are {cores()} cores" if needed > cores() else ""
        return f"data.workers is set to {self.count}: {said} {seconds:.3f} s{short}"

    def ready(self) -> None:
        """A batch is there, and nobody has asked for the next one."""
        self._ready = time.perf_counter()

    def asked(self) -> None:
        """The next batch is asked for."""
        self._idle, self._ready = self.idle, None

    @property
    def idle(self) -> float:
        """Seconds in which batches were ready and nobody took them, until now."""
        since = self._ready
        return self._idle + (time.perf_counter() - since if since is not None else 0.0)


def cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
