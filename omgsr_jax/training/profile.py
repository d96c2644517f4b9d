"""A trace of some steps, for TensorBoard's profiler or Perfetto."""

import shutil
import tempfile
from contextlib import AbstractContextManager
from typing import Any

import jax
from etils import epath

from .. import buckets, digests
from ..errors import InputError


class Profile:
    """Into a folder. What is being traced when the block ends is written all the same."""

    def __init__(self, folder: epath.Path):
        self._goal = self._local = folder
        self._running = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._running:
            self.stop()

    def step(self, number: int) -> AbstractContextManager[Any]:
        """A step, by which the profiler divides the trace."""
        return jax.profiler.StepTraceAnnotation("train", step_num=number)

    def start(self) -> None:
        if buckets.is_remote(self._goal):  # the profiler writes local files only
            self._local = epath.Path(tempfile.mkdtemp(prefix="omgsr-profile-"))
        jax.profiler.start_trace(str(self._local))
        self._running = True

    def stop(self) -> None:
        self._running = False
        jax.profiler.stop_trace()
        if self._local == self._goal:
            return
        try:
            for path in digests.below(self._local):
                path.copy(self._goal / path.relative_to(self._local))
        except Exception as error:
            raise InputError(
                f"the profile cannot be written to {self._goal}: {buckets.reason(error)}; it lies "
                f"in {self._local}"
            ) from error
        shutil.rmtree(self._local)
