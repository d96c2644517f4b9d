"""The Grain pipeline: shuffled crops and their degradation, the same on any number of workers.

A position in the endless stream of examples fixes the epoch, the image, its crop and its
degradation. Processes take positions in turn, workers only compute them and stack them, and the
state of an iterator is a position in the stream of all processes, so a saved one resumes with any
number of processes and workers.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import grain
import numpy as np
from absl import flags
from PIL import Image

from ..errors import InputError
from ..files import LeftOutWarning
from .config import DataConfig
from .decoded import DecodedImages
from .degradation import degrade
from .images import DamagedImageError
from .plan import DegradationConfig, Plan, example_rng, sampled_plan
from .sources import Source, open_sources
from .workers import Workers

if TYPE_CHECKING:
    import jax

Example = dict[str, Any]

_THREADS = 4  # of each process or worker
_TOGETHER = 8  # examples that a worker stacks, at most
_CROPS = 4  # how often a flat crop is cut anew
_STAND_INS = 20  # tried for an image that is damaged


class DamagedImageWarning(UserWarning):
    """An image that could not be read was left out."""


class TooManyDamagedError(InputError):
    """So many images cannot be read that something must be wrong with the data."""


def make_pipeline(
    config: DataConfig,
    seed: int = 0,
    *,
    shuffle: bool = True,
    process_index: int | None = None,
    process_count: int | None = None,
) -> BatchStream:
    """Endless batches of this process: `lr` and `hr`, b h w c uint8, and `id`, a list of names.

    `images.signed` makes of them what networks take. A LeftOutWarning says which files of a folder
    are passed over. With `degrade_on="device"` there is `plan` instead of `lr`, for
    `degradation_jax.degrade_batch`. The process defaults to JAX's own; several may be given the
    same index, and read the same examples.
    """
    if process_index is None or process_count is None:
        import jax

        process_index, process_count = jax.process_index(), jax.process_count()
    if config.batch_size % process_count:
        raise InputError(
            f"a batch of {config.batch_size} cannot be divided among {process_count} processes"
        )
    source = open_sources(config.sources, _warn if process_index == 0 else None)
    examples = Examples(config, source, seed, shuffle=shuffle)
    return BatchStream(examples, process_index, process_count)


def _warn(mention: str) -> None:
    warnings.warn(mention, LeftOutWarning, stacklevel=1)  # the first time


class Examples:
    """The example at a position of the stream, before batching: uint8 images.

    A damaged image is replaced where it stands, so that the other positions keep theirs: no process
    has to know what another one has found. `damaged` says what was wrong with it.
    """

    def __init__(self, config: DataConfig, source: Source, seed: int, *, shuffle: bool):
        self.config = config
        self.source = source
        self._images = DecodedImages(source)
        self.seed = seed
        self.shuffle = shuffle
        self._order: tuple[int, np.ndarray] | None = None

    def __call__(self, position: int) -> Example:
        began, busy = time.perf_counter(), time.thread_time()
        found = self._found(position)
        # A worker has one core at most, and waits for several files at a time.
        waited = (time.perf_counter() - began) / _THREADS
        return {**found, "seconds": max(waited, time.thread_time() - busy)}

    def _found(self, position: int) -> Example:
        epoch, turn = divmod(position, len(self.source))
        found: Example = {"epoch": epoch}
        for index in self._candidates(epoch, turn):
            try:
                name, image = self._images[index]
            except DamagedImageError as error:
                found.setdefault("damaged", str(error))
                continue
            rng = example_rng(self.seed, epoch, index)
            hr = self._crop(image, name, rng)
            return {**found, "id": name, "hr": hr, **self._degraded(hr, rng)}
        return found

    def _candidates(self, epoch: int, turn: int) -> Iterator[int]:
        """The image whose turn it is, and what stands in for it."""
        yield int(self._epoch_order(epoch)[turn])
        entropy = np.random.SeedSequence((self.seed, epoch, turn), spawn_key=(2,))
        yield from map(
            int, np.random.default_rng(entropy).integers(len(self.source), size=_STAND_INS)
        )

    def _crop(self, image: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
        for _ in range(_CROPS):
            hr = prepare(image, name, self.config.resolution, rng)
            if not self.config.flat or hr.std() >= self.config.flat:
                break
        return hr

    def _degraded(self, hr: np.ndarray, rng: np.random.Generator) -> Example:
        degradation = self.config.degradation_config
        plan = sampled_plan(degradation, rng)
        if self.config.degrade_on == "host":
            return {"lr": degrade(hr, plan, degradation.scale)}
        from .degradation_jax import plan_arrays

        assert isinstance(plan, Plan)
        assert isinstance(degradation, DegradationConfig)
        return {"plan": plan_arrays(plan, degradation, hr.shape[:2])}

    def _epoch_order(self, epoch: int) -> np.ndarray:
        order = self._order  # one read: threads may replace it meanwhile
        if order is None or order[0] != epoch:
            order = (epoch, self._sampled_order(epoch))
            self._order = order
        return order[1]

    def _sampled_order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self.source))
        # The spawn key keeps this generator apart from those of the examples.
        entropy = np.random.SeedSequence((self.seed, epoch), spawn_key=(1,))
        return np.random.default_rng(entropy).permutation(len(self.source))


def prepare(image: np.ndarray, name: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random crop of `size` squared, flipped half of the time.

    A side that is too short is mirrored about its border pixels. FFHQ faces, told by "ffhq" in the
    name, are resized as a whole instead of cropped.
    """
    if "ffhq" in name.lower():
        image = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))
    rows, columns = (_crop_indices(n, size, rng) for n in image.shape[:2])
    flipped = rng.random() < 0.5
    return image[rows[:, None], columns[None, ::-1] if flipped else columns[None]]


def _crop_indices(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random run of `size` indices into n pixels; a short side is padded by what it lacks on
    either side first."""
    lacking = max(size - n, 0)
    start = int(rng.integers(-lacking, n + lacking - size, endpoint=True))
    run = np.arange(start, start + size)
    if not lacking:
        return run
    period = max(2 * (n - 1), 1)
    folded = run % period
    return np.minimum(folded, period - folded) if n > 1 else np.zeros_like(run)


class BatchStream(grain.IterDataset):
    """The batches of one process. `workers` are those of its iterators."""

    def __init__(self, examples: Examples, process_index: int, process_count: int):
        super().__init__()
        self.examples = examples
        self.process_index = process_index
        self.process_count = process_count
        self.size = examples.config.batch_size // process_count
        self.workers = Workers(examples.config.workers)

    def __iter__(self) -> BatchIterator:
        return BatchIterator(self)

    def starting_at(self, position: int, workers: int) -> grain.DatasetIterator:
        """Whole batches, or equal parts of them, from this process's `position` on."""
        first = position * self.process_count + self.process_index
        positions = grain.MapDataset.range(first, sys.maxsize, self.process_count)
        together = _largest_divisor(self.size, _TOGETHER) if workers else 1
        examples = positions.map(self.examples)
        # With a remainder their number would be more than an index holds.
        stacked = examples.batch(together, drop_remainder=True, batch_fn=_stacked)
        threads = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_THREADS)
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain's worker processes read its absl flags
        processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        stream = stacked.to_iter_dataset(threads)
        return iter(stream.mp_prefetch(processes, worker_init_fn=_one_opencv_thread))


class BatchIterator(grain.DatasetIterator):
    """Hands batches on, counts damaged images, and remembers how far it got."""

    def __init__(self, stream: BatchStream):
        super().__init__()
        self._stream = stream
        self._running: grain.DatasetIterator | None = None
        self._workers = 0  # that run
        self._position = 0  # in the stream of this process
        self._epoch = 0
        self._damaged = 0  # in this epoch, since the process has started

    def __next__(self) -> Example:
        self._stream.workers.asked()
        self._run(self._stream.workers.count)
        size = self._stream.size
        parts: list[Example] = []
        while sum(len(part["epoch"]) for part in parts) < size:
            parts.append(self._next_part())
        self._position += size
        return _joined(parts)

    def _run(self, workers: int) -> None:
        if self._running is None or workers != self._workers:
            self.close()
            self._running = self._stream.starting_at(self._position, workers)
            self._workers = workers

    def _next_part(self) -> Example:
        assert self._running is not None
        part: Example = next(self._running)
        self._stream.workers.measured(part["seconds"])
        for message, epoch in zip(part["damaged"], part["epoch"], strict=True):
            if message is not None:
                self._leave_out(message, epoch, lost="hr" not in part)
        return part

    def _leave_out(self, message: str, epoch: int, *, lost: bool) -> None:
        if epoch != self._epoch:
            self._epoch, self._damaged = epoch, 0
        self._damaged += 1
        warnings.warn(f"left out: {message}", DamagedImageWarning, stacklevel=2)
        total = len(self._stream.examples.source)
        share, limit = (
            total / self._stream.process_count,
            self._stream.examples.config.damaged_limit,
        )
        if self._damaged > limit * share or lost:
            raise TooManyDamagedError(
                f"{self._damaged} damaged images in epoch {self._epoch}, more than {limit:.1%} of "
                f"this process's {share:g}; the last: {message}. Remove or replace them, or raise "
                "damaged_limit if you can do without"
            )

    def get_state(self) -> dict[str, int]:
        """The same in every process, after as many batches."""
        return {
            "position": self._position * self._stream.process_count,
            "examples": len(self._stream.examples.source),
            "seed": self._stream.examples.seed,
        }

    def set_state(self, state: dict[str, int]) -> None:
        here = self.get_state()
        for key in ("examples", "seed"):
            if state[key] != here[key]:
                raise InputError(
                    f"the saved iterator had {key} = {state[key]}, this one has {here[key]}: it "
                    "would repeat and skip examples. Resume with the data of the saved run, or "
                    "start the data afresh"
                )
        self.close()
        # Batches divide among the processes, so after each of them this leaves no rest.
        self._position = state["position"] // self._stream.process_count

    def close(self) -> None:
        """Stops the workers; the iterator starts new ones when it is used again."""
        if self._running is not None:
            self._running.close()
            self._running = None


def to_device(
    batches: BatchStream,
    sharding: jax.sharding.NamedSharding | None = None,
    ahead: int = 2,
) -> grain.IterDataset:
    """The batches as JAX arrays, `ahead` of them under way.

    `sharding` divides the first axis; with several processes each contributes its part. The state
    of an iterator is that of the batch it handed out last. No program runs here: those of several
    processes must start in one order, and this is a thread.
    """
    import jax

    if sharding is None and jax.process_count() > 1:
        raise ValueError("with several processes to_device needs a sharding of the batch axis")

    def put(array: np.ndarray) -> jax.Array:
        if jax.process_count() == 1:
            return jax.device_put(array, sharding)
        return jax.make_array_from_process_local_data(sharding, array)

    def put_all(batch: Example) -> Example:
        arrays = {key: part for key, part in batch.items() if key != "id"}
        there = {**jax.tree.map(put, arrays), "id": batch["id"]}
        batches.workers.ready()
        return there

    return grain.experimental.ThreadPrefetchIterDataset(
        batches.map(put_all), prefetch_buffer_size=ahead
    )


def _stacked(examples: Sequence[Example]) -> Example:
    """Examples as arrays with a first axis, and what is told of them. No arrays if one is lost."""
    part: Example = {
        "epoch": [example["epoch"] for example in examples],
        "damaged": [example.get("damaged") for example in examples],
        "seconds": sum(example["seconds"] for example in examples) / len(examples),
    }
    if any("hr" not in example for example in examples):
        return part
    arrays = [
        {key: example[key] for key in ("lr", "plan", "hr") if key in example}
        for example in examples
    ]
    return {**part, "id": [example["id"] for example in examples], **_combined(np.stack, arrays)}


def _joined(parts: Sequence[Example]) -> Example:
    """A batch of its parts, without what was only told of them."""
    arrays = [{key: part[key] for key in ("lr", "plan", "hr") if key in part} for part in parts]
    join = np.concatenate if len(parts) > 1 else _only
    names = [name for part in parts for name in part["id"]]
    return {**_combined(join, arrays), "id": names}


def _only(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.asarray(arrays[0])  # it may be an array in shared memory, of Grain's own type


def _combined(combine: Callable[[Sequence[Any]], Any], trees: Sequence[Any]) -> Any:
    """Arrays of the same place in nested dicts, combined."""
    if not isinstance(trees[0], dict):
        return combine(trees)
    return {key: _combined(combine, [tree[key] for tree in trees]) for key in trees[0]}


def _largest_divisor(number: int, limit: int) -> int:
    return max(n for n in range(1, min(number, limit) + 1) if number % n == 0)


def _one_opencv_thread(worker_index: int, worker_count: int) -> None:
    """Workers are the parallelism; OpenCV's own threads would only compete with them."""
    del worker_index, worker_count
    cv2.setNumThreads(1)
