"""Emergency checkpoints: each process keeps its own shards on a disk of its own host.

    FOLDER/RUN/STEP/process-I-of-N.npz      the shards of this process, and the data's position

They are written between those in the work directory, which may be far away, and only save time:
what counts is the work directory. One is used after a kill if all processes have theirs, on the
same mesh, and if it is newer than the newest checkpoint there.
"""

import json
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from .. import files

_POSITION = "position"
_KEPT = 2  # the newest may be there for some processes only


class Nearby:
    def __init__(self, folder: Path, every: int):
        """`folder` is this run's own; a checkpoint is due every so many steps."""
        self._folder = folder
        self.every = every
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def save(self, step: int, state: Any, position: Any) -> None:
        """Copies the shards and returns; the writing goes on in the background."""
        self.wait()
        arrays = {name: _bytes_of(shard.data) for name, shard in _shards(state)}
        arrays[_POSITION] = np.frombuffer(json.dumps(position).encode(), np.uint8)
        self._writing = self._writer.submit(self._write, step, arrays)

    def wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def newest(self, shapes: Any, shardings: Any) -> int | None:
        """The newest that all processes have, for these shards."""
        mine = [step for step in self.steps() if self._is_whole(step, shapes, shardings)][-_KEPT:]
        if jax.process_count() > 1:
            padded = np.array([*mine, -1, -1][:_KEPT], np.int64)
            theirs = multihost_utils.process_allgather(padded)
            mine = [step for step in mine if (theirs == step).any(axis=1).all()]
        return max(mine, default=None)

    def restore(self, step: int, shapes: Any, shardings: Any) -> tuple[Any, Any]:
        """The state and the data's position."""
        with np.load(self._path(step)) as stored:

            def array(path: Any, leaf: Any, sharding: Any) -> jax.Array:
                def shard(index: Any) -> np.ndarray:
                    found = stored[_name(path, index, leaf.shape)].view(leaf.dtype)
                    return found.reshape(sharding.shard_shape(leaf.shape))

                return jax.make_array_from_callback(leaf.shape, sharding, shard)

            state = jax.tree_util.tree_map_with_path(array, shapes, shardings)
            return state, json.loads(bytes(stored[_POSITION]))

    def steps(self) -> list[int]:
        return sorted(int(path.name) for path in self._folder.glob("*") if path.name.isdigit())

    def drop(self, until: int) -> None:
        """Those up to a step, which lies whole in the work directory."""
        for step in self.steps():
            if step <= until:
                shutil.rmtree(self._folder / str(step), ignore_errors=True)
        if self._writing is None:  # else the folder is about to be used
            with suppress(OSError):  # there are others
                self._folder.rmdir()

    def close(self) -> None:
        """Waits until everything is written."""
        self.wait()
        self._writer.shutdown()

    def _write(self, step: int, arrays: dict[str, Any]) -> None:
        with files.atomic(self._path(step)) as file:
            np.savez(file, **arrays)
        for old in self.steps()[:-_KEPT]:
            shutil.rmtree(self._folder / str(old), ignore_errors=True)

    def _path(self, step: int) -> Path:
        name = f"process-{jax.process_index()}-of-{jax.process_count()}.npz"
        return self._folder / str(step) / name

    def _is_whole(self, step: int, shapes: Any, shardings: Any) -> bool:
        try:
            with zipfile.ZipFile(self._path(step)) as stored:  # has a CRC-32 of every member
                names = {Path(name).stem for name in stored.namelist()}
                return _names(shapes, shardings) <= names and stored.testzip() is None
        except (OSError, zipfile.BadZipFile):
            return False


def _shards(state: Any) -> Iterator[tuple[str, Any]]:
    """Those of this process, each once."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        yield from {
            _name(path, shard.index, leaf.shape): shard for shard in leaf.addressable_shards
        }.items()


def _names(shapes: Any, shardings: Any) -> set[str]:
    found: set[str] = set()

    def add(path: Any, leaf: Any, sharding: Any) -> None:
        indices = sharding.addressable_devices_indices_map(leaf.shape).values()
        found.update(_name(path, index, leaf.shape) for index in indices)

    jax.tree_util.tree_map_with_path(add, shapes, shardings)
    return found


def _name(path: Any, index: Any, shape: tuple[int, ...]) -> str:
    """Of a shard: which array's, and from where to where it goes; without a slash."""
    bounds = [part.indices(size)[:2] for part, size in zip(index, shape, strict=True)]
    ranges = ",".join(f"{first}-{last}" for first, last in bounds)
    return f"{jax.tree_util.keystr(path)}[{ranges}]".replace("/", "|")


def _bytes_of(array: Any) -> np.ndarray:
    """npz knows none of ml_dtypes' types."""
    copied: np.ndarray = np.array(array)  # the step reuses the state's memory
    return copied.reshape(-1).view(np.uint8)
