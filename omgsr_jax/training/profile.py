"""A trace of some steps, for TensorBoard's profiler or Perfetto."""

import shutil
import tempfile

import jax
from etils import epath

from .. import buckets, digests
from ..errors import InputError


class Profile:
    def __init__(self, folder: epath.Path):
        self._goal = self._local = folder

    def start(self) -> None:
        if buckets.is_remote(self._goal):  # the profiler writes local files only
            self._local = epath.Path(tempfile.mkdtemp(prefix="omgsr-profile-"))
        jax.profiler.start_trace(str(self._local))

    def stop(self) -> None:
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
