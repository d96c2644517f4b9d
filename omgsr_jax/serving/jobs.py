"""Images that a client does not wait for: it asks how far they are, and fetches the results.

Results are kept in memory for a while, so many and so many bytes; the oldest go first.
"""

import asyncio
import secrets
import time
import traceback
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TextIO

from . import log
from .batcher import Batcher, Entry
from .limits import Limits
from .refusals import RefusedError
from .service import Answer


@dataclass(eq=False)
class Job:
    id: str
    created: float = field(default_factory=time.monotonic)
    entry: Entry | None = None  # None while the image is decoded
    answer: Answer | None = None
    failure: RefusedError | None = None
    is_fetched: bool = False
    task: asyncio.Task[None] | None = None

    @property
    def is_done(self) -> bool:
        return self.answer is not None or self.failure is not None

    @property
    def status(self) -> str:
        if self.is_done:
            return "done" if self.answer else "failed"
        return "running" if self.entry and self.entry.is_computed else "queued"

    def follow(self, entry: Entry) -> None:
        self.entry = entry

    def state(self, batcher: Batcher) -> dict[str, Any]:
        """What the client is told."""
        state: dict[str, Any] = {"id": self.id, "status": self.status}
        if self.answer:
            state |= {**self.answer.facts, "notes": list(self.answer.notes)}
            state["result"] = f"/v1/jobs/{self.id}/result"
        elif self.failure:
            state |= {"error": self.failure.sentence, "error_status": self.failure.status}
        elif self.entry:
            state["before"] = batcher.position(self.entry)
            if progress := self.entry.progress:
                state |= {"stage": progress.stage, "share": round(progress.share, 3)}
                state["seconds_left"] = progress.seconds_left
        return state


class Jobs:
    """`stream` gets a line for each job that is done."""

    def __init__(self, limits: Limits, batcher: Batcher, stream: TextIO | None):
        self._limits, self._batcher, self._stream = limits, batcher, stream
        self._jobs: dict[str, Job] = {}

    def begin(self, work: Callable[[Job], Coroutine[Any, Any, Answer]], place: ExitStack) -> Job:
        """A job that does `work`, from now on, and then gives back its place."""
        job = Job(secrets.token_urlsafe(12))
        self._jobs[job.id] = job
        job.task = asyncio.create_task(self._run(job, work))
        job.task.add_done_callback(lambda task: place.close())
        return job

    async def _run(self, job: Job, work: Callable[[Job], Coroutine[Any, Any, Answer]]) -> None:
        try:
            job.answer = await work(job)
            log.write(self._stream, job=job.id, **job.answer.facts)
        except RefusedError as failure:
            self._fail(job, failure)
        except Exception:
            traceback.print_exc()
            self._fail(job, RefusedError(500, "a fault of the service; its log says more"))
        self._forget_old()

    def _fail(self, job: Job, failure: RefusedError) -> None:
        job.failure = failure
        log.write(self._stream, job=job.id, status=failure.status, error=failure.sentence)

    def find(self, name: str) -> Job:
        self._forget_old()
        if name not in self._jobs:
            raise RefusedError(404, "there is no such job, or not any more")
        return self._jobs[name]

    def remove(self, name: str) -> None:
        """Forgets a job, and stops it if it is not done."""
        job = self.find(name)
        del self._jobs[name]
        if job.task:
            job.task.cancel()

    @property
    def unfetched(self) -> int:
        """Jobs that are not done, or whose result nobody has fetched."""
        return sum(not job.failure and not job.is_fetched for job in self._jobs.values())

    def state(self, job: Job) -> dict[str, Any]:
        return job.state(self._batcher)

    def _forget_old(self) -> None:
        done = [job for job in self._jobs.values() if job.is_done]
        held = sum(len(job.answer.data) for job in done if job.answer)
        too_many = len(self._jobs) - self._limits.jobs
        for job in done:  # in the order in which they came
            is_old = time.monotonic() - job.created > self._limits.job_seconds
            if is_old or too_many > 0 or held > self._limits.job_bytes:
                del self._jobs[job.id]
                held -= len(job.answer.data) if job.answer else 0
                too_many -= 1
