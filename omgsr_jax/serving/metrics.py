"""Figures for Prometheus."""

import functools
from collections.abc import Callable

import jax
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_COMPILED = "/jax/core/compile/backend_compile_duration"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
_IMAGES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Those of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "omgsr_requests", "Requests.", ["route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "omgsr_request_seconds",
            "From a request's first byte to its answer's last.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batches = Histogram(
            "omgsr_batch_images", "Images of a batch.", buckets=_IMAGES, registry=self.registry
        )
        self._compute = Histogram(
            "omgsr_batch_seconds", "To compute it.", buckets=_SECONDS, registry=self.registry
        )
        compiled = compilations()
        self._gauge("omgsr_compiled_programs", "Compiled, or read from the cache.").set_function(
            lambda: compiled.count
        )

    def watch(self, *, waiting: Callable[[], float], ready: Callable[[], float]) -> None:
        self._gauge("omgsr_waiting", "Accepted and not answered.").set_function(waiting)
        self._gauge("omgsr_ready", "1 when images are accepted.").set_function(ready)

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def computed(self, images: int, seconds: float) -> None:
        self._batches.observe(images)
        self._compute.observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(name, meaning, registry=self.registry)


class _Compilations:
    """Programs that JAX has compiled in this process since this was first asked for."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **more: str | int) -> None:
        self.count += event == _COMPILED


@functools.cache  # as a listener stays for the life of the process
def compilations() -> _Compilations:
    return _Compilations()
