"""What a service takes: bytes, pixels, images at once, and time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import InputError
from ..inference.sizes import Size
from .refusals import busy

_SIDES = 4  # times the size that a model was trained at: the largest result, unless one is given


@dataclass(frozen=True)
class Limits:
    """Args:
    largest: pixels of the longer side, of images and of results; by default four times the size
        that the model was trained at.
    upload_bytes: of a request's body.
    waiting: requests and jobs that are accepted and not answered. One more gets 429.
    waiting_pixels: of these images and of their results.
    seconds: from the upload's end to the result.
    upload_seconds: for the upload.
    window_seconds: how long an image waits for others to share its batch.
    jobs: whose results are kept; the oldest go first.
    job_bytes: of all these results.
    job_seconds: how long they are kept.
    grace_seconds: how long a service that is stopping waits for finished jobs to be fetched.
    """

    largest: int | None = None
    upload_bytes: int = 32 * 2**20
    waiting: int = 64
    waiting_pixels: int = 128_000_000
    seconds: float = 300
    upload_seconds: float = 60
    window_seconds: float = 0.005
    jobs: int = 256
    job_bytes: int = 512 * 2**20
    job_seconds: float = 900
    grace_seconds: float = 30

    def sizes(self, process_size: int) -> list[Size]:
        """The canvases (height, width): sides double up to the largest, and one side is at most
        twice the other."""
        largest = self.largest or _SIDES * process_size
        if largest < process_size:
            raise InputError(
                f"--largest must be at least {process_size}, the size that the model works at, not "
                f"{largest}"
            )
        sides = [process_size]
        while sides[-1] < largest:
            sides.append(min(2 * sides[-1], largest))
        numbers = range(len(sides))
        return [(sides[i], sides[j]) for i in numbers for j in numbers if abs(i - j) <= 1]


class Places:
    """For so many at once; whoever finds no room is refused."""

    def __init__(self, count: int):
        self.count, self.taken = count, 0
        self._lock = threading.Lock()

    @contextmanager
    def taken_by(self, amount: int, *, retry_after: float) -> Iterator[None]:
        with self._lock:
            if self.taken and self.taken + amount > self.count:  # one alone always finds room
                raise busy(retry_after)
            self.taken += amount
        try:
            yield
        finally:
            with self._lock:
                self.taken -= amount
