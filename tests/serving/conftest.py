"""A service around a model that only enlarges, and that waits where a test says so."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omgsr_jax.errors import InputError
from omgsr_jax.inference.pictures import from_array
from omgsr_jax.inference.progress import Progress
from omgsr_jax.inference.results import Upscaled
from omgsr_jax.serving.limits import Limits

LARGEST = 256


class Enlarging:
    """A model in the place of an `Upscaler`: pixels are repeated."""

    process_size, color, batch = 64, "none", 4

    def __init__(self) -> None:
        self.open = threading.Event()  # closed: batches wait, as if they took long
        self.open.set()
        self.begun = threading.Semaphore(0)
        self.batches: list[list[tuple[int, int]]] = []
        self.fails: set[tuple[int, int]] = set()  # sizes

    def alike(self, size, options):
        target = options.enlargement.of(size)
        if max(*size, *target) > LARGEST:
            raise InputError(f"{size} to {target} is too large")
        return "large" if max(target) > 64 else "small"

    def restore(self, batch, options, on_progress):
        self.batches.append([picture.size for picture in batch])
        self.begun.release()
        while not self.open.wait(0.01):
            on_progress(Progress("predict", 1, 2, 0.5, 3.0))
        if any(picture.size in self.fails for picture in batch):
            raise InputError("the model's decode stage is not finite")
        return [
            Upscaled(_enlarged(picture, one), picture.size)
            for picture, one in zip(batch, options, strict=True)
        ]


def _enlarged(picture, options):
    height, width = options.enlargement.of(picture.size)
    image = Image.fromarray(np.round(picture.rgb * 255).astype(np.uint8))
    larger = from_array(np.asarray(image.resize((width, height), Image.Resampling.NEAREST)))
    return replace(picture, values=larger.values, alpha=None)


def png(width: int = 8, height: int = 8, **options) -> bytes:
    rng = np.random.default_rng(width * 1000 + height)
    buffer = io.BytesIO()
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, options.pop("kind", "PNG"), **options)
    return buffer.getvalue()


@pytest.fixture
def model() -> Enlarging:
    return Enlarging()


@pytest.fixture
def serving(model) -> Callable[..., Any]:
    """A client of the service, which is ready; limits and options of `create_app` by name."""
    for needed in ("fastapi", "python_multipart", "prometheus_client"):
        pytest.importorskip(needed, reason="the extra [serve] is not installed")
    from starlette.testclient import TestClient

    from omgsr_jax.serving.app import create_app

    @contextmanager
    def start(*, prepare=lambda: model, stream=None, token=None, **limits) -> Iterator[TestClient]:
        app = create_app(
            prepare,
            name="stand-in",
            limits=Limits(largest=LARGEST, **limits),
            token=token,
            stream=stream,
        )
        with TestClient(app) as client:
            batcher = app.state.service.batcher
            wait_until(lambda: batcher.model is not None or batcher.failure is not None)
            try:
                yield client
            finally:
                model.open.set()

    return start


def wait_until(holds: Callable[[], bool], seconds: float = 5) -> None:
    turn = threading.Event()
    for _ in range(int(seconds / 0.005)):
        if holds():
            return
        turn.wait(0.005)
    raise AssertionError("it does not come to hold")
