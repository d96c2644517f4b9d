"""What became of each file of a folder, and what all of them took."""

import math
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax

from .jobs import Job
from .sizes import Size

_MUCH = 4  # times the work that the output's own pixels need


@dataclass
class Report:
    """What became of one file."""

    job: Job
    status: str  # done, skipped or failed
    error: str | None = None
    input_size: Size | None = None
    output_size: Size | None = None
    process_size: Size | None = None
    canvas_size: Size | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    latent_tiles: int = 0
    strips: int = 1  # of rows in which the VAE took the image
    peak_bytes: int | None = None
    notes: tuple[str, ...] = ()  # what the result lacks of the input: sentences

    @property
    def cost(self) -> str | None:
        """A sentence where most of the work was not for the output's own pixels."""
        if not (self.output_size and self.process_size and self.canvas_size):
            return None
        worked, output = math.prod(self.canvas_size), math.prod(self.output_size)
        if worked < _MUCH * output:
            return None
        is_least = math.prod(self.process_size) >= _MUCH * output
        why = (
            "the least that this model works on"
            if is_least
            else "a canvas that several sizes share"
        )
        return (
            f"{self.job.source}: {_text(self.output_size)} px took the work of "
            f"{_text(self.canvas_size)} px, {why}"
        )

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
            "canvas_size": width_height(self.canvas_size),
            "seconds": {stage: round(value, 4) for stage, value in self.seconds.items()},
            "latent_tiles": self.latent_tiles,
            "strips": self.strips,
            "peak_bytes": self.peak_bytes,
            "notes": list(self.notes),
        }


@dataclass
class Throughput:
    """What a run over a folder took, from the first header to the last file."""

    images: int = 0
    pixels: int = 0  # of the outputs
    seconds: float = 0.0
    compiling: float = 0.0  # seconds
    waited: float = 0.0  # seconds without anything to compute, while images were left
    _idle_since: float = field(default=0.0, init=False, repr=False)

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def megapixels_per_second(self) -> float:
        return self.pixels / 1e6 / self.seconds if self.seconds else 0.0

    @property
    def share_waited(self) -> float:
        return self.waited / self.seconds if self.seconds else 0.0

    def count(self, report: Report) -> None:
        self.compiling += report.seconds.get("compile", 0)
        if report.status == "done":
            self.images += 1
            self.pixels += math.prod(report.output_size or ())

    @contextmanager
    def measured(self) -> Iterator[None]:
        self._idle_since = started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started

    @contextmanager
    def computing(self) -> Iterator[None]:
        self.waited += time.perf_counter() - self._idle_since
        try:
            yield
        finally:
            self._idle_since = time.perf_counter()


def _text(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def peak_bytes() -> int | None:
    """The most memory used so far: the device's if it counts, else the process's."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return int(statistics["peak_bytes_in_use"])
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024
