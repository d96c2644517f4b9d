"""Files and folders that appear under their names only when they are whole."""

import io
import math
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from etils import epath
from PIL import Image

from .. import buckets
from ..errors import InputError

if TYPE_CHECKING:
    import numpy as np

_QUIET_SECONDS = 2.0
_BEGUN, _PARTIAL = ".omgsr-", ".partial"
_ABANDONED_SECONDS = 600


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write, which gets its name when the block ends well, and else disappears.

    The folder is made if need be. A file that has the name already stays until then.
    """
    if buckets.is_remote(path):
        with _uploaded(path) as buffer:
            yield buffer
        return
    goal = Path(path)
    # A short name, as that of `path` may be as long as names can be; and one that is known before
    # the file exists, so that no interruption leaves it behind.
    partial = goal.parent / f"{_BEGUN}{secrets.token_hex(8)}{_PARTIAL}"
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        with _create(partial) as file:
            yield file
        partial.replace(goal)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # where no folder could be made, there is nothing to remove
            partial.unlink(missing_ok=True)


def remove_leftovers(folders: Iterable[str | os.PathLike[str]]) -> None:
    """Files that a killed process has begun. One that was touched lately may be another's work."""
    for folder in {os.fspath(folder) for folder in folders}:
        if buckets.is_remote(folder):
            continue
        for path in Path(folder or os.curdir).glob(f"{_BEGUN}*{_PARTIAL}"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    with atomic(path) as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """In UTF-8. The bytes of a file's name that are none are written as they are shown: \\xff."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_image(path: str | os.PathLike[str], image: "np.ndarray", **options: Any) -> None:
    """Writes h w 3 or h w, uint8, in the format of the path's suffix; `options` are Pillow's."""
    suffix = Path(path).suffix.lower()
    kind = Image.registered_extensions().get(suffix)
    if kind not in Image.SAVE:
        raise InputError(f"{path}: cannot write {suffix or 'a name without a suffix'}; try .png")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    write_bytes(path, buffer.getvalue())


def require_new(directory: str | os.PathLike[str]) -> None:
    buckets.require(directory)
    if epath.Path(directory).exists() or os.path.islink(directory):
        raise InputError(f"{directory} exists already; remove it or choose another name")


@contextmanager
def new_directory(
    directory: str | os.PathLike[str], *, bytes_needed: int = 0
) -> Iterator[epath.Path]:
    """A directory to fill, which gets its name when the block ends well, and else disappears."""
    require_new(directory)
    if buckets.is_remote(directory):
        with _new_in_a_bucket(directory) as goal:
            yield goal
        return
    directory = Path(directory).absolute()
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        free = shutil.disk_usage(partial).free
        if free < bytes_needed:
            raise InputError(
                f"{directory} needs {bytes_needed / 1e9:.1f} GB of disk space, "
                f"{free / 1e9:.1f} GB are free"
            )
        yield epath.Path(partial)
        partial.rename(directory)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # tensorstore reports a full disk as a ValueError
        raise InputError(f"{directory} could not be written: {error}") from error
    finally:
        _remove_for_good(partial)


@contextmanager
def _uploaded(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    buffer = io.BytesIO()
    yield buffer
    try:
        epath.Path(path).write_bytes(buffer.getvalue())
    except Exception as error:
        raise InputError(f"{path} cannot be written: {buckets.reason(error)}") from error


@contextmanager
def _new_in_a_bucket(directory: str | os.PathLike[str]) -> Iterator[epath.Path]:
    """It has its name from the beginning: whoever fills it writes last what makes it whole."""
    goal = epath.Path(directory)
    try:
        yield goal
    except BaseException as error:
        with suppress(Exception):
            goal.rmtree()
        if not isinstance(error, Exception) or isinstance(error, InputError):
            raise
        reason = buckets.reason(error)
        raise InputError(f"{directory} could not be written: {reason}") from error


def _create(path: Path) -> IO[bytes]:
    return open(path, "xb")


def _remove_for_good(folder: Path) -> None:
    """Removes a folder, even if Orbax's threads write on for a moment after one has failed."""
    quiet_since = time.monotonic() if folder.exists() else -math.inf
    while time.monotonic() - quiet_since < _QUIET_SECONDS:
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
            quiet_since = time.monotonic()
        time.sleep(0.05)
