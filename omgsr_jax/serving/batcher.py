"""One thread owns the model: it prepares it, and restores what waits in batches.

Images of one canvas with as many tiles, the same colours and seed share a batch. The oldest image
decides whose turn it is, so nobody waits for ever.
"""

import threading
import time
import traceback
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import InputError
from ..inference.folder import FAILURES, reason
from ..inference.options import Options
from ..inference.pictures import Picture
from ..inference.progress import OnProgress, Progress
from ..inference.results import Upscaled
from ..inference.sizes import Size

_SMOOTHED = 0.2  # the share of the last batch in the mean time of an image


class Model(Protocol):
    """What is used of an `Upscaler`."""

    @property
    def process_size(self) -> int: ...

    @property
    def color(self) -> str: ...

    @property
    def batch(self) -> int: ...

    def alike(self, size: Size, options: Options) -> Hashable: ...

    def restore(
        self,
        batch: Sequence[Picture],
        options: Sequence[Options],
        on_progress: OnProgress,
    ) -> list[Upscaled]: ...


@dataclass(frozen=True)
class Restored:
    """A result, and what it took."""

    upscaled: Upscaled
    queue_seconds: float
    compute_seconds: float  # of the whole batch
    batch: int  # images that were computed together


@dataclass(eq=False)
class Entry:
    """An image that waits, or is computed."""

    picture: Picture
    options: Options
    key: Hashable
    future: Future[Restored] = field(default_factory=Future)
    submitted: float = field(default_factory=time.perf_counter)
    progress: Progress | None = None  # of its batch
    has_left: bool = False

    @property
    def is_computed(self) -> bool:
        return self.future.running()

    def leave(self) -> None:
        """Nobody wants the result any more."""
        self.has_left = True
        self.future.cancel()


class Batcher:
    """Args:
    prepare: loads the model and compiles all that it takes; called in the thread.
    window_seconds: how long the first image of a batch waits for others.
    notice: is told of each batch that is done: images, seconds.
    """

    def __init__(
        self,
        prepare: Callable[[], Model],
        *,
        window_seconds: float,
        notice: Callable[[int, float], None] = lambda images, seconds: None,
    ):
        self.model: Model | None = None
        self.failure: Exception | None = None  # why there is no model
        self.seconds_per_image = 1.0
        self._prepare, self._window, self._notice = prepare, window_seconds, notice
        self._waiting: list[Entry] = []
        self._changed = threading.Condition()
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, entry: Entry) -> None:
        with self._changed:
            if self._ends:
                raise RuntimeError("the batcher has ended")
            self._waiting.append(entry)
            self._changed.notify()

    def position(self, entry: Entry) -> int:
        """How many images come before it."""
        with self._changed:
            return self._waiting.index(entry) if entry in self._waiting else 0

    def end(self) -> None:
        """Finishes what waits, and ends the thread."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            self.model = self._prepare()
        except Exception as error:  # whatever it is: the service says so, and ends
            self.failure = error
            return
        while batch := self._next(self.model.batch):
            self._compute(self.model, batch)

    def _next(self, most: int) -> list[Entry]:
        """The next batch; empty when all is done."""
        with self._changed:
            while True:
                self._waiting = [one for one in self._waiting if not one.future.cancelled()]
                if not self._waiting and self._ends:
                    return []
                chosen = self._together(most)
                patience = self._patience(chosen, most)
                if chosen and patience <= 0:
                    self._waiting = [one for one in self._waiting if one not in chosen]
                    if begun := [e for e in chosen if e.future.set_running_or_notify_cancel()]:
                        return begun
                else:
                    self._changed.wait(patience if chosen else None)

    def _together(self, most: int) -> list[Entry]:
        """The oldest entry, and others that can share its batch."""
        return [one for one in self._waiting if one.key == self._waiting[0].key][:most]

    def _patience(self, chosen: Sequence[Entry], most: int) -> float:
        """Seconds that others may still take to join."""
        if not chosen or len(chosen) == most or self._ends:
            return 0
        return chosen[0].submitted + self._window - time.perf_counter()

    def _compute(self, model: Model, batch: Sequence[Entry]) -> None:
        started = time.perf_counter()
        try:
            outcomes = _outcomes(model, batch)
        except _AllHaveLeftError:
            outcomes = [InputError("nobody waits for it")] * len(batch)
        except Exception as error:  # a fault of ours: it must not end the thread
            traceback.print_exc()
            outcomes = [InputError(f"it could not be computed ({type(error).__name__})")] * len(
                batch
            )
        seconds = time.perf_counter() - started
        self.seconds_per_image += _SMOOTHED * (seconds / len(batch) - self.seconds_per_image)
        self._notice(len(batch), seconds)
        for entry, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, InputError):
                entry.future.set_exception(outcome)
            else:
                waited = started - entry.submitted
                entry.future.set_result(Restored(outcome, waited, seconds, len(batch)))


class _AllHaveLeftError(Exception):
    """Ends the work on a batch that nobody waits for any more."""


def _outcomes(model: Model, batch: Sequence[Entry]) -> list[Upscaled | InputError]:
    """Together if that works, else one by one, so that one failure is one image's."""

    def tell(progress: Progress) -> None:
        for entry in batch:
            entry.progress = progress
        if all(entry.has_left for entry in batch):
            raise _AllHaveLeftError

    pictures, options = [e.picture for e in batch], [e.options for e in batch]
    try:
        return list(model.restore(pictures, options, tell))
    except FAILURES as error:
        if len(batch) > 1:
            return [outcome for entry in batch for outcome in _outcomes(model, [entry])]
        return [reason(error)]
