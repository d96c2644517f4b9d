"""Upscaling many files: each is done or fails by itself, and none is left half-written."""

import os
import resource
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from .. import files
from ..errors import InputError
from . import images, labels
from .jobs import Job
from .options import Options
from .pictures import Picture
from .results import Upscaled
from .sizes import Size
from .upscaler import Upscaler

_MOST_PEEKS = 2000


@dataclass
class Report:
    """What became of one file."""

    job: Job
    status: str  # done, skipped or failed
    error: str | None = None
    input_size: Size | None = None
    output_size: Size | None = None
    process_size: Size | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    latent_tiles: int = 0
    strips: int = 0
    peak_bytes: int | None = None
    notes: tuple[str, ...] = ()  # what the result lacks of the input: sentences

    def to_json(self) -> dict[str, Any]:
        def width_height(size: Size | None) -> list[int] | None:
            return [size[1], size[0]] if size else None

        return {
            "input": str(self.job.source),
            "output": str(self.job.goal),
            "status": self.status,
            "error": self.error,
            "input_size": width_height(self.input_size),
            "output_size": width_height(self.output_size),
            "process_size": width_height(self.process_size),
            "seconds": {stage: round(value, 4) for stage, value in self.seconds.items()},
            "latent_tiles": self.latent_tiles,
            "strips": self.strips,
            "peak_bytes": self.peak_bytes,
            "notes": list(self.notes),
        }


def upscale_files(
    model: Upscaler,
    jobs: Sequence[Job],
    options: Options,
    *,
    skip_existing: bool = False,
) -> Generator[Report, None, None]:
    """Upscales files one batch at a time; yields what became of each, in order.

    The next batch is read while one is computed. Closing the iterator leaves nothing half-written.
    """
    todo: list[Job] = []
    there: list[Job] = []
    for job in jobs:
        (there if skip_existing and os.path.isfile(job.goal) else todo).append(job)
    files.remove_leftovers(job.goal.parent for job in jobs)
    # Of all jobs, so that a run that goes on computes with the programs of the first.
    sizes = [size for size in (_peek(job.source) for job in _spread(jobs)) if size]
    if len(sizes) > 1 and todo:
        model.plan(sizes, options)
    for job in there:
        yield Report(job, "skipped")
    count = model.batch
    batches = [todo[start : start + count] for start in range(0, len(todo), count)]
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead: Future[Any] | None = None
        for number, batch in enumerate(batches):
            loaded = (ahead or reader.submit(_read_all, batch)).result()
            if number + 1 < len(batches):
                ahead = reader.submit(_read_all, batches[number + 1])
            yield from _one_batch(model, batch, loaded, options)


def _spread(jobs: Sequence[Job]) -> Sequence[Job]:
    """All of a few jobs, and some of many: the first image must not wait for a long folder."""
    step = -(-len(jobs) // _MOST_PEEKS) or 1
    return jobs[::step]


def _peek(path: Path) -> Size | None:
    """An image's size (height, width) from its header, upright, or None if that cannot be read."""
    try:
        return files.header(path).size
    except InputError:  # whatever is wrong is reported when the file is read
        return None


def _read_all(batch: Sequence[Job]) -> list[tuple[Picture | InputError, float]]:
    loaded: list[tuple[Picture | InputError, float]] = []
    for job in batch:
        started = time.perf_counter()
        try:
            picture: Picture | InputError = images.read(job.source)
        except InputError as error:
            picture = error
        except MemoryError:
            picture = InputError(f"{job.source} does not fit the memory")
        loaded.append((picture, time.perf_counter() - started))
    return loaded


def _one_batch(
    model: Upscaler,
    batch: Sequence[Job],
    loaded: Sequence[tuple[Picture | InputError, float]],
    options: Options,
) -> Iterator[Report]:
    good = [i for i, (picture, _) in enumerate(loaded) if isinstance(picture, Picture)]
    sources = [loaded[i][0] for i in good]
    outcome = dict(zip(good, _restore(model, sources, options), strict=True))  # type: ignore[arg-type]
    for i, job in enumerate(batch):
        picture, read_seconds = loaded[i]
        result = outcome.get(i, picture)
        if isinstance(result, InputError) or not isinstance(picture, Picture):
            yield Report(job, "failed", error=_about(job, str(result)))
            continue
        assert isinstance(result, Upscaled)
        yield _write(job, picture, result, read_seconds)


def _restore(
    model: Upscaler, sources: Sequence[Picture], options: Options
) -> list[Upscaled | InputError]:
    """Together if that works, else one by one, so that one failure is one file's."""
    if not sources:
        return []
    try:
        return list(model.restore(sources, options))
    except (InputError, MemoryError, jax.errors.JaxRuntimeError) as error:
        if len(sources) > 1:
            return [_restore(model, [source], options)[0] for source in sources]
        if isinstance(error, InputError):
            return [error]
        first = (str(error) or "out of memory").splitlines()[0]
        return [InputError(f"it could not be computed ({first}). Try --strips with few rows.")]


def _write(job: Job, source: Picture, result: Upscaled, read_seconds: float) -> Report:
    started = time.perf_counter()
    try:
        if job.comparison:  # first: where the result is, all is done, and may be skipped
            images.write(job.comparison, labels.side_by_side(source, result.picture))
        notes = images.write(job.goal, result.picture)
    except InputError as error:
        return Report(job, "failed", error=_about(job, str(error)))
    seconds = {"read": read_seconds, **result.work.seconds, "write": time.perf_counter() - started}
    return Report(
        job,
        "done",
        input_size=source.size,
        output_size=result.picture.size,
        process_size=result.process_size,
        seconds=seconds,
        latent_tiles=result.work.latent_tiles,
        strips=result.work.strips,
        peak_bytes=peak_bytes(),
        notes=(*source.notes, *notes),
    )


def _about(job: Job, message: str) -> str:
    """The message, with the file that it is about."""
    named = str(job.source) in message or str(job.goal) in message
    return message if named else f"{job.source}: {message}"


def peak_bytes() -> int | None:
    """The most memory used so far: the device's if it counts, else the process's."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return int(statistics["peak_bytes_in_use"])
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024
