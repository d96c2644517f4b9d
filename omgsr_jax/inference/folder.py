"""Upscaling many files: each is done or fails by itself, and none is left half-written.

While one batch is computed, the next images are read and the last results are written.
"""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax

from .. import files
from ..errors import InputError
from . import images, labels
from .jobs import Job
from .lookahead import Loaded, LookAhead, Waiting
from .options import ALL, Options, Share
from .pictures import Picture
from .progress import OnProgress, Progress
from .reports import Report, Throughput, peak_bytes
from .results import Upscaled
from .sizes import Size
from .upscaler import Upscaler

_MOST_PEEKS = 2000
_MOST_THREADS = 8  # that read, and that write
_PIXELS_BEHIND = 2**25  # of results that are not written yet: 400 MB as they are held

# Told how far the files of a batch are, by the thread that computes.
OnBatch = Callable[[Sequence[Job], Progress], None]

# What may go wrong with one image, while others can still be computed.
FAILURES = (InputError, MemoryError, jax.errors.JaxRuntimeError)

_Outcome = Upscaled | InputError


def upscale_files(
    model: Upscaler,
    jobs: Sequence[Job],
    options: Options,
    *,
    share: Share = ALL,
    skip_existing: bool = False,
    throughput: Throughput | None = None,
    on_progress: OnBatch | None = None,
) -> Generator[Report, None, None]:
    """Upscales a share of the files; yields what became of each, in their order.

    Images of one canvas share batches. Closing the iterator leaves nothing half-written, and while
    nobody asks for the next report no batch begins.

    Args:
        share: which of the jobs are done here. Canvases are chosen for all of them, so results are
            those of a run that does all.
        skip_existing: leave results that are there alone; they are reported first.
        throughput: is told what the run takes.
        on_progress: called between programs. What it raises ends the run.
    """
    throughput = throughput or Throughput()
    todo: list[Job] = []
    there: list[Job] = []
    for job in share.of(jobs):
        (there if skip_existing and os.path.isfile(job.goal) else todo).append(job)
    files.remove_leftovers(job.goal.parent for job in (*there, *todo))
    for job in there:
        yield Report(job, "skipped")
    if not todo:
        return
    with throughput.measured(), _hands() as hands:
        peeked = {job.source: hands.readers.submit(_peek, job.source) for job in _spread(jobs)}
        # Of all jobs, so that a run that goes on computes with the programs of the first.
        sizes = [size for size in (found.result() for found in peeked.values()) if size]
        if len(sizes) > 1:
            model.plan(sizes, options)
        ahead = LookAhead(
            todo,
            hands.readers,
            peek=_peek,
            peeked=peeked,
            canvas=lambda size: model.canvas(size, options),
            batch=model.batch,
        )
        compute = partial(_compute, model, options, throughput, on_progress)
        for report in _assembly_line(ahead, hands, compute):
            throughput.count(report)
            yield report


def _spread(jobs: Sequence[Job]) -> Sequence[Job]:
    """All of a few jobs, and some of many: the first image must not wait for a long folder."""
    step = -(-len(jobs) // _MOST_PEEKS) or 1
    return jobs[::step]


def _peek(path: Path) -> Size | None:
    """An image's size (height, width) from its header, upright, or None if that cannot be read."""
    try:
        return files.header(path).size
    except (InputError, MemoryError):  # whatever is wrong is reported when the file is read
        return None


# The threads, and what goes from one to the next.


class _Hands(NamedTuple):
    """Decoding, computing and encoding hold Python's lock for little of their time."""

    readers: Executor
    computer: Executor
    writers: Executor


@contextmanager
def _hands() -> Iterator[_Hands]:
    """At the end what is being written is written, and nothing else begins."""
    some = max(1, min(_MOST_THREADS, (os.cpu_count() or 1) // 2))
    with ExitStack() as stack:

        def pool(name: str, workers: int) -> Executor:
            executor = ThreadPoolExecutor(workers, thread_name_prefix=name)
            stack.callback(executor.shutdown, cancel_futures=True)
            return executor

        yield _Hands(pool("read", some), pool("compute", 1), pool("write", some))


def _assembly_line(
    ahead: LookAhead, hands: _Hands, compute: Callable[[Sequence[Waiting]], list[_Outcome]]
) -> Iterator[Report]:
    behind = _Behind(hands.writers)
    batch: list[Waiting] = []
    computing: Future[list[_Outcome]] | None = None
    while ahead or computing or behind:
        if computing and computing.done():
            behind.add(batch, computing.result())
            batch, computing = [], None
        missing, unwritten = ahead.missing, behind.unwritten
        is_full = behind.is_full
        if ahead and not (computing or missing or is_full):
            batch = ahead.take()
            computing = hands.computer.submit(compute, batch)
        if reports := behind.finished():
            yield from reports
            continue
        needed = [computing] if computing else unwritten if is_full else missing
        wait([*needed, *unwritten[:1]], return_when=FIRST_COMPLETED)


def _compute(
    model: Upscaler,
    options: Options,
    throughput: Throughput,
    on_progress: OnBatch | None,
    batch: Sequence[Waiting],
) -> list[_Outcome]:
    """What becomes of each image of a batch."""
    pictures = [(one.job, one.loading.result().picture) for one in batch]
    good = [(job, picture) for job, picture in pictures if isinstance(picture, Picture)]
    with throughput.computing():
        results = iter(_restore(model, good, options, on_progress))
    return [next(results) if isinstance(p, Picture) else p for _, p in pictures]


def _restore(
    model: Upscaler,
    sources: Sequence[tuple[Job, Picture]],
    options: Options,
    on_progress: OnBatch | None,
) -> list[_Outcome]:
    """Together if that works, else one by one, so that one failure is one file's."""
    if not sources:
        return []
    tell: OnProgress | None = on_progress and partial(on_progress, [job for job, _ in sources])
    try:
        return list(model.restore([picture for _, picture in sources], options, tell))
    except FAILURES as error:
        if len(sources) > 1:
            return [_restore(model, [one], options, on_progress)[0] for one in sources]
        return [reason(error)]


def reason(error: Exception) -> InputError:
    """One of FAILURES as a sentence."""
    if isinstance(error, InputError):
        return error
    first = (str(error) or "out of memory").splitlines()[0]
    return InputError(f"it could not be computed ({first}). Try --strips with few rows.")


class _Behind:
    """Results that are being written, and reports that wait for those of the files before them."""

    def __init__(self, writers: Executor):
        self._writers = writers
        self._next = 0
        self._reports: dict[int, Future[Report]] = {}
        self._pixels: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._reports)

    def add(self, batch: Sequence[Waiting], outcomes: Sequence[_Outcome]) -> None:
        for one, outcome in zip(batch, outcomes, strict=True):
            writing = self._writers.submit(_finish, one.job, one.loading.result(), outcome)
            self._reports[one.number] = writing
            if isinstance(outcome, Upscaled):
                height, width = outcome.picture.size
                self._pixels[one.number] = height * width

    @property
    def unwritten(self) -> list[Future[Report]]:
        """In the order of the jobs."""
        return [self._reports[n] for n in sorted(self._reports) if not self._reports[n].done()]

    @property
    def is_full(self) -> bool:
        held = sum(n for i, n in self._pixels.items() if not self._reports[i].done())
        return held > _PIXELS_BEHIND

    def finished(self) -> list[Report]:
        """Of the next jobs, as far as all before them are done."""
        found = []
        while self._next in self._reports and self._reports[self._next].done():
            found.append(self._reports.pop(self._next).result())
            self._pixels.pop(self._next, None)
            self._next += 1
        return found


def _finish(job: Job, loaded: Loaded, outcome: _Outcome) -> Report:
    if isinstance(outcome, InputError):
        return Report(job, "failed", error=_about(job, str(outcome)))
    assert isinstance(loaded.picture, Picture)
    try:
        return _write(job, loaded.picture, outcome, loaded.seconds)
    except InputError as error:
        return Report(job, "failed", error=_about(job, str(error)))
    except MemoryError:
        return Report(job, "failed", error=f"{job.goal} does not fit the memory")


def _write(job: Job, source: Picture, result: Upscaled, read_seconds: float) -> Report:
    started = time.perf_counter()
    if job.comparison:  # first: where the result is, all is done, and may be skipped
        images.write(job.comparison, labels.side_by_side(source, result.picture))
    notes = images.write(job.goal, result.picture)
    seconds = {"read": read_seconds, **result.work.seconds, "write": time.perf_counter() - started}
    return Report(
        job,
        "done",
        input_size=source.size,
        output_size=result.picture.size,
        process_size=result.process_size,
        canvas_size=result.work.canvas_size,
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
