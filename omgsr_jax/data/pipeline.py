"""The Grain pipeline: shuffled crops and their degradation, the same on any number of workers.

A position in the endless stream of examples fixes the epoch, the image, its crop and its
degradation. Processes take positions in turn, workers only compute them, and the state of an
iterator is a position in the stream of all processes, so a saved one resumes with any number of
processes and workers.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import grain
import numpy as np
from absl import flags
from PIL import Image

from ..errors import InputError
from ..files import LeftOutWarning
from .config import DataConfig
from .degradation import degrade
from .images import DamagedImageError, decode_image
from .plan import DegradationConfig, Plan, example_rng, sampled_plan
from .sources import Source, open_sources

if TYPE_CHECKING:
    import jax

Example = dict[str, Any]

_THREADS = 4  # of each process or worker
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
) -> grain.IterDataset:
    """Endless batches of this process: `lr` and `hr`, b h w c float32 in [-1, 1], and `id`, a list.

    A LeftOutWarning says which files of a folder are passed over.
    With `degrade_on="device"` there is `plan` instead of `lr`. The process defaults to JAX's own.
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
    stream = ExampleStream(examples, process_index, process_count)
    return stream.batch(config.batch_size // process_count, drop_remainder=True, batch_fn=_collate)


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
        self.seed = seed
        self.shuffle = shuffle
        self._order: tuple[int, np.ndarray] | None = None

    def __call__(self, position: int) -> Example:
        epoch, turn = divmod(position, len(self.source))
        found: Example = {"epoch": epoch}
        for index in self._candidates(epoch, turn):
            try:
                name, data = self.source[index]
                image = decode_image(data, name)
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


class ExampleStream(grain.IterDataset):
    """The examples of one process, damaged ones left out."""

    def __init__(self, examples: Examples, process_index: int, process_count: int):
        super().__init__()
        self.examples = examples
        self.process_index = process_index
        self.process_count = process_count

    def __iter__(self) -> ExampleIterator:
        return ExampleIterator(self)

    def starting_at(self, position: int) -> grain.DatasetIterator:
        config = self.examples.config
        first = position * self.process_count + self.process_index
        positions = grain.MapDataset.range(first, sys.maxsize, self.process_count)
        threads = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=2 * _THREADS)
        stream = positions.map(self.examples).to_iter_dataset(threads)
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain's worker processes read its absl flags
        workers = grain.MultiprocessingOptions(num_workers=config.workers, per_worker_buffer_size=4)
        return iter(stream.mp_prefetch(workers, worker_init_fn=_one_opencv_thread))


class ExampleIterator(grain.DatasetIterator):
    """Hands examples on, counts damaged ones, and remembers how far it got."""

    def __init__(self, stream: ExampleStream):
        super().__init__()
        self._stream = stream
        self._running: grain.DatasetIterator | None = None
        self._position = 0  # in the stream of this process
        self._epoch = 0
        self._damaged = 0  # in this epoch, since the process has started

    def __next__(self) -> Example:
        if self._running is None:
            self._running = self._stream.starting_at(self._position)
        example = next(self._running)
        self._position += 1
        if "damaged" in example:
            self._leave_out(example.pop("damaged"), example["epoch"], lost="hr" not in example)
        return example

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
    batches: grain.IterDataset,
    config: DataConfig,
    sharding: jax.sharding.NamedSharding | None = None,
    ahead: int = 2,
) -> grain.IterDataset:
    """The batches as JAX arrays, `ahead` of them under way, and degraded there if so configured.

    `sharding` divides the first axis; with several processes each contributes its part. The state
    of an iterator is that of the batch it handed out last.
    """
    import jax

    if sharding is None and jax.process_count() > 1:
        raise ValueError("with several processes to_device needs a sharding of the batch axis")

    def put(array: np.ndarray) -> jax.Array:
        if jax.process_count() == 1:
            return jax.device_put(array, sharding)
        return jax.make_array_from_process_local_data(sharding, array)

    if config.degrade_on == "device":
        from .degradation_jax import degrade_function

        assert isinstance(config.degradation_config, DegradationConfig)
        degrade_there = degrade_function(config.degradation_config, sharding)

    def put_all(batch: Example) -> Example:
        there = {key: jax.tree.map(put, batch[key]) for key in batch if key != "id"}
        if config.degrade_on == "device":
            there["lr"] = degrade_there(there["hr"], there.pop("plan"))
        return {**there, "id": batch["id"]}

    return grain.experimental.ThreadPrefetchIterDataset(
        batches.map(put_all), prefetch_buffer_size=ahead
    )


def _collate(examples: Sequence[Example]) -> Example:
    batch: Example = {"id": [example["id"] for example in examples]}
    for key in ("lr", "hr"):
        if key in examples[0]:
            stacked = np.stack([example[key] for example in examples])  # b h w c
            batch[key] = np.multiply(stacked, np.float32(2 / 255), dtype=np.float32) - 1
    if "plan" in examples[0]:
        plans = [example["plan"] for example in examples]
        batch["plan"] = {key: np.stack([plan[key] for plan in plans]) for key in plans[0]}
    return batch


def _one_opencv_thread(worker_index: int, worker_count: int) -> None:
    """Workers are the parallelism; OpenCV's own threads would only compete with them."""
    del worker_index, worker_count
    cv2.setNumThreads(1)
