"""The next images of a folder: read ahead, and put together by their canvas.

What comes next follows from the images' sizes alone, never from which of them is read first. So a
run can be repeated, and its batches are those of the run before.
"""

import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from . import images
from .jobs import Job
from .pictures import Picture
from .sizes import Size

_BATCHES = 4  # how many are looked at
_REACH = 16  # batches between the first image that waits and the last one that is read
_PIXELS = 2**25  # of the images that are held beyond one batch: 400 MB as they are held


@dataclass(frozen=True)
class Loaded:
    """An image's picture, or why there is none."""

    picture: Picture | InputError
    seconds: float


@dataclass(frozen=True, eq=False)
class Waiting:
    """An image that is read, or being read, and not computed yet."""

    number: int  # among the jobs
    job: Job
    canvas: Hashable | None  # None where it cannot share one: it will fail
    pixels: int
    loading: Future[Loaded]


class LookAhead:
    """Args:
    jobs: in the order in which they are to be done.
    readers: where images are read.
    peek: an image's size from its header, if it has one.
    peeked: sizes that have been asked for already.
    canvas: the compiled shape that an image of a size gets.
    batch: images of one canvas that are computed at once.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        readers: Executor,
        *,
        peek: Callable[[Path], Size | None],
        peeked: Mapping[Path, Future[Size | None]],
        canvas: Callable[[Size], Hashable],
        batch: int,
    ):
        self._jobs, self._readers = jobs, readers
        self._peek, self._sizes = peek, dict(peeked)
        self._canvas, self._batch = canvas, batch
        self._begun = 0
        self._waiting: list[Waiting] = []
        self._group: list[Waiting] = []
        self._advance()

    @property
    def missing(self) -> list[Future[Loaded]]:
        """What is still to be read before the next images can be computed."""
        return [one.loading for one in self._group if not one.loading.done()]

    def __bool__(self) -> bool:
        return bool(self._group)

    def take(self) -> list[Waiting]:
        """The next images to be computed together, read. Others are read meanwhile."""
        taken = self._group
        self._advance()
        return taken

    def _advance(self) -> None:
        self._read_on()
        self._group = self._next_group()
        for one in self._group:
            self._waiting.remove(one)
        self._read_on()

    def _next_group(self) -> list[Waiting]:
        """The first batch that is full, or else that of the first image."""
        by_canvas: dict[Hashable, list[Waiting]] = {}
        for one in self._waiting:
            alone = ("alone", one.number)
            by_canvas.setdefault(alone if one.canvas is None else one.canvas, []).append(one)
        groups = list(by_canvas.values())
        full = (group for group in groups if len(group) >= self._batch)
        return next(full, groups[0] if groups else [])[: self._batch]

    def _read_on(self) -> None:
        while self._begun < len(self._jobs):
            size = self._size(self._begun)
            pixels = math.prod(size or (0, 0))
            if not self._has_room(pixels):
                return
            job = self._jobs[self._begun]
            loading = self._readers.submit(_load, job)
            canvas = self._canvas_of(size)
            self._waiting.append(Waiting(self._begun, job, canvas, pixels, loading))
            self._sizes.pop(job.source, None)
            self._begun += 1

    def _has_room(self, pixels: int) -> bool:
        if len(self._waiting) < self._batch:
            return True
        held = sum(one.pixels for one in self._waiting)
        return (
            len(self._waiting) < _BATCHES * self._batch
            and self._begun - self._waiting[0].number < _REACH * self._batch
            and held + pixels <= _PIXELS
        )

    def _size(self, number: int) -> Size | None:
        """Headers are read ahead of images, so that nobody waits for one."""
        for job in self._jobs[number : number + _BATCHES * self._batch]:
            if job.source not in self._sizes:
                self._sizes[job.source] = self._readers.submit(self._peek, job.source)
        return self._sizes[self._jobs[number].source].result()

    def _canvas_of(self, size: Size | None) -> Hashable | None:
        if size is None:
            return None
        try:
            return self._canvas(size)
        except InputError:  # it is said when the image's turn comes
            return None


def _load(job: Job) -> Loaded:
    started = time.perf_counter()
    try:
        picture: Picture | InputError = images.read(job.source)
    except InputError as error:
        picture = error
    except MemoryError:
        picture = InputError(f"{job.source} does not fit the memory")
    return Loaded(picture, time.perf_counter() - started)
