"""From an upload to a file with the result: what requests and jobs have in common."""

import asyncio
import math
import os
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ..errors import InputError
from ..inference import images
from ..inference.options import Options
from ..inference.pictures import Picture
from ..inference.sizes import Size
from . import uploads
from .asked import Asked
from .batcher import Batcher, Entry, Model, Restored
from .limits import Limits, Places
from .metrics import Metrics
from .refusals import RefusedError, unavailable, unusable

_WHILE_PREPARING = 10.0  # seconds after which a client may ask again
_LONGEST_WAIT = 60.0
_MOST_HANDS = 8  # threads that decode and encode

_Any = TypeVar("_Any")


@dataclass(frozen=True)
class Answer:
    """A result's file, and what it took."""

    data: bytes
    media_type: str
    size: Size
    queue_seconds: float
    compute_seconds: float
    batch: int
    notes: tuple[str, ...]  # what the result lacks of the image: sentences

    @property
    def facts(self) -> dict[str, float | int | str]:
        height, width = self.size
        return {
            "queue_seconds": round(self.queue_seconds, 4),
            "compute_seconds": round(self.compute_seconds, 4),
            "batch": self.batch,
            "size": f"{width}x{height}",
        }


class Service:
    """Args:
    prepare: loads the model and compiles all that it takes.
    limits: what is accepted.
    """

    def __init__(self, prepare: Callable[[], Model], limits: Limits, metrics: Metrics):
        self.limits, self.metrics = limits, metrics
        self.batcher = Batcher(
            prepare, window_seconds=limits.window_seconds, notice=metrics.computed
        )
        self.is_stopping = False
        self._places = Places(limits.waiting)
        self._pixels = Places(limits.waiting_pixels)
        hands = max(2, min(_MOST_HANDS, (os.cpu_count() or 1) // 2))
        self._hands = ThreadPoolExecutor(hands, thread_name_prefix="hands")
        metrics.watch(waiting=lambda: self.accepted, ready=lambda: self.is_ready)

    @property
    def is_ready(self) -> bool:
        return self.batcher.model is not None and not self.is_stopping

    @property
    def accepted(self) -> int:
        """Requests and jobs that are not answered."""
        return self._places.taken

    def end(self) -> None:
        """Finishes what is accepted."""
        self.batcher.end()
        self._hands.shutdown()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A place for the block, or the reason why there is none."""
        self.require_ready()
        with self._places.taken_by(1, retry_after=self.retry_after):
            yield

    def require_ready(self) -> None:
        if self.is_stopping:
            raise unavailable("the service is stopping", _WHILE_PREPARING)
        if self.batcher.failure:
            raise unavailable(f"there is no model: {self.batcher.failure}", _LONGEST_WAIT)
        if self.batcher.model is None:
            raise unavailable("the model is being prepared", _WHILE_PREPARING)

    @property
    def retry_after(self) -> float:
        """Seconds until about half of what waits is done."""
        return min(_LONGEST_WAIT, self.batcher.seconds_per_image * self.accepted / 2)

    async def restored(
        self, data: bytes, asked: Asked, follow: Callable[[Entry], None] = lambda entry: None
    ) -> Answer:
        """An upload's result. `follow` gets what waits for it."""
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await self._restored(data, asked, follow)
        except TimeoutError:
            sentence = f"the image was not done within {self.limits.seconds:g} seconds"
            raise unavailable(sentence, self.retry_after) from None

    async def _restored(self, data: bytes, asked: Asked, follow: Callable[[Entry], None]) -> Answer:
        with ExitStack() as held:
            size, key = await self._in_hands(self._measured, data, asked.options)
            pixels = math.prod(size) + math.prod(asked.options.enlargement.of(size))
            held.enter_context(self._pixels.taken_by(pixels, retry_after=self.retry_after))
            picture = await self._in_hands(uploads.picture_of, data)
            entry = Entry(picture, asked.options, key)
            follow(entry)
            restored = await self._computed(entry)
            return await self._in_hands(_answer, picture, restored, asked)

    def _measured(self, data: bytes, options: Options) -> tuple[Size, Hashable]:
        """An image's size, and what images must share to be computed together."""
        model = self.batcher.model
        assert model is not None
        most_pixels = max(map(math.prod, self.limits.sizes(model.process_size)))
        size = uploads.size_of(data, most_pixels)
        try:
            alike = model.alike(size, options)
        except InputError as error:
            raise unusable(error) from error
        return size, (alike, options.color or model.color, options.seed)

    async def _computed(self, entry: Entry) -> Restored:
        self.batcher.submit(entry)
        try:
            return await asyncio.wrap_future(entry.future)
        except InputError as error:  # nothing was wrong with the image until here
            raise RefusedError(500, str(error)) from error
        finally:
            entry.leave()

    async def _in_hands(self, function: Callable[..., _Any], *given: object) -> _Any:
        return await asyncio.get_running_loop().run_in_executor(self._hands, function, *given)


def _answer(source: Picture, restored: Restored, asked: Asked) -> Answer:
    picture = restored.upscaled.picture
    try:
        data, notes = images.encode(picture, asked.suffix)
    except InputError as error:
        raise unusable(error) from error
    return Answer(
        data,
        asked.media_type,
        picture.size,
        restored.queue_seconds,
        restored.compute_seconds,
        restored.batch,
        (*source.notes, *notes),
    )
