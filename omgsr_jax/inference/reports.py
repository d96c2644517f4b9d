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
    strips: int = 1  # of rows in which the VAE took the image
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


@dataclass
class Throughput:
    """What a run over a folder took, from the first header to the last file."""

    images: int = 0
    pixels: int = 0  # of the outputs
    seconds: float = 0.0
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


def peak_bytes() -> int | None:
    """The most memory used so far: the device's if it counts, else the process's."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return int(statistics["peak_bytes_in_use"])
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024
