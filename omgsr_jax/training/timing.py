"""How long steps take, who waits for whom, and which of several processes is the slowest."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils

from ..data.workers import Workers

_LONGEST = 64  # bytes of a host's name
_ALONE = 4  # steps that are taken one by one: the first compiles, the others are timed


@dataclass(frozen=True)
class Interval:
    """The seconds of one process, for each step."""

    step: float
    waiting: float  # for data
    own: float  # not in the devices' hands: waiting, and Python. Other processes wait meanwhile
    idle: float  # in which data waited for the devices


class Clock:
    """Of the loop, from one report to the next."""

    def __init__(self, workers: Workers | None):
        self._workers = workers
        self.start(0)

    def start(self, step: int) -> None:
        self._step, self._since = step, time.perf_counter()
        self._waiting = self._devices = 0.0
        self._idle = self._workers.idle if self._workers else 0.0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._waiting += time.perf_counter() - began

    @contextmanager
    def on_devices(self) -> Iterator[None]:
        """A step is handed to the devices, or comes back from them."""
        began = time.perf_counter()
        yield
        self._devices += time.perf_counter() - began

    def interval(self, step: int) -> Interval | None:
        """Since the start, or None if no step has been taken since."""
        steps = step - self._step
        if not steps:
            return None
        seconds = time.perf_counter() - self._since
        idle = self._workers.idle - self._idle if self._workers else 0.0
        return Interval(
            step=seconds / steps,
            waiting=self._waiting / steps,
            own=max(0.0, seconds - self._devices) / steps,
            idle=min(idle, seconds) / steps,
        )


class FirstSteps:
    """The first steps of a process, one by one: what comes before them is not of a step."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._began = 0.0

    @property
    def to_come(self) -> bool:
        return len(self._seconds) < _ALONE

    def begin(self) -> None:
        self._began = time.perf_counter()

    def end(self, result: object) -> None:
        jax.block_until_ready(result)
        self._seconds.append(time.perf_counter() - self._began)

    @property
    def compiled(self) -> bool:
        """Whether the one that compiles was the last."""
        return len(self._seconds) == 1

    @property
    def fastest(self) -> float:
        """Without the one that compiles."""
        return min(self._seconds[1:])


class Processes:
    """All of the run's. Each of them must ask for the same at the same time."""

    def __init__(self) -> None:
        name = socket.gethostname().encode()[:_LONGEST].ljust(_LONGEST, b"\0")
        names = _gathered(np.frombuffer(name, np.uint8))
        self.hosts = [bytes(one).rstrip(b"\0").decode(errors="replace") for one in names]

    def intervals(self, own: Interval) -> list[Interval]:
        """Everybody's."""
        return [Interval(*map(float, row)) for row in _gathered(np.array(astuple(own), np.float32))]

    def described(self, intervals: Sequence[Interval]) -> str:
        """Of an interval in the process that asks: who waits; and of all: which is the slowest."""
        said = who_waits(intervals[jax.process_index()])
        if len(intervals) == 1:
            return said
        slowest = slowest_of(intervals)
        one = intervals[slowest]
        return (
            f"{said}; the slowest is process {slowest} on {self.hosts[slowest]}: "
            f"its devices wait {one.own:.3f} s a step, {one.waiting:.3f} s of these for data"
        )


def slowest_of(intervals: Sequence[Interval]) -> int:
    """A step takes all processes the same time; the slowest is the one that has its devices wait,
    and with them everybody's."""
    return max(range(len(intervals)), key=lambda index: intervals[index].own)


def who_waits(interval: Interval) -> str:
    if interval.waiting >= interval.idle:
        return f"devices wait for data {interval.waiting / interval.step:.0%} of the time"
    return f"data wait for the devices {interval.idle / interval.step:.0%} of the time"


def scalars(intervals: Sequence[Interval]) -> dict[str, float]:
    """Of several processes, to log."""
    if len(intervals) == 1:
        return {}
    values = {"process/slowest": float(slowest_of(intervals))}
    for index, one in enumerate(intervals):
        values[f"process/{index}/step"] = one.step
        values[f"process/{index}/waiting_for_data"] = one.waiting
        values[f"process/{index}/own"] = one.own
    return values


def _gathered(array: np.ndarray) -> np.ndarray:
    """process ..."""
    if jax.process_count() == 1:
        return array[None]
    return np.asarray(multihost_utils.process_allgather(array))
