"""Files that grow, locally and in a bucket, whose objects cannot be appended to."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from etils import epath

_SECONDS = 60.0  # between two writes of an object that grows
_LARGEST = 2**22  # bytes; what comes after goes into the next object


class Appended(Protocol):
    def write(self, data: bytes) -> None: ...

    def flush(self) -> None:
        """Soon everything is there for others to read."""

    def sync(self) -> None:
        """Everything is there now."""

    def close(self) -> None: ...


class File:
    """A local file, which a killed process may have left with half a line."""

    def __init__(self, path: Path):
        self._file = path.open("ab+")

    def end_line(self) -> None:
        """What comes next is not to be part of it."""
        if size := self._file.seek(0, os.SEEK_END):
            self._file.seek(size - 1)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def sync(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Objects:
    """Objects in a bucket, numbered. The last is written anew each minute, until it is large."""

    def __init__(self, path: Callable[[int], epath.Path], head: bytes = b""):
        """Args:
        path: of an object, by its number.
        head: how each of them begins.
        """
        self._path, self._head = path, head
        self._number = 0
        self._content = bytearray(head)
        self._changed = True
        self._written = time.monotonic()

    def write(self, data: bytes) -> None:
        self._content += data
        self._changed = True

    def flush(self) -> None:
        if time.monotonic() - self._written > _SECONDS:
            self.sync()

    def sync(self) -> None:
        if self._changed:
            self._path(self._number).write_bytes(bytes(self._content))
        self._written, self._changed = time.monotonic(), False
        if len(self._content) > _LARGEST:
            self._number += 1
            self._content = bytearray(self._head)

    def close(self) -> None:
        self.sync()
