"""Digests: what is read is what was written, or an error names the file that is not.

A card lists the files beside it, each with its size and its sha256. Sizes, and small files, which
say how to read the large ones, are compared before anything is read; large files while they are.
Buckets have checksums of their own: of what lies there, sizes alone are compared.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from etils import epath

from .buckets import is_remote
from .descriptions import Json, checked, file_size, shown
from .errors import InputError

# Told what takes long and None when it begins, and the seconds that it took at the end.
Notify = Callable[[str, float | None], None]

CARD = "omgsr.json"  # of a converted model
FILES = "files"  # in a card: what lies beside it

_SMALL_BYTES = _CHUNK = 2**20
_WORTH_MENTIONING_BYTES = 10**9
_LONGEST_NAME = 255
_MEND = "Convert the model again, or copy it again."
_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Written:
    """A file as it was written."""

    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if len(self.sha256) != 64:
            raise ValueError(f"there is a sha256 of {len(self.sha256)} characters, expected 64")


def of_files(folder: Path | epath.Path) -> Json:
    """The files below `folder`, as a card lists them."""
    paths = sorted(below(epath.Path(folder)))
    with ThreadPoolExecutor(_THREADS) as pool:
        written = list(pool.map(_written, paths))
    names = [path.relative_to(folder).as_posix() for path in paths]
    return {name: asdict(one) for name, one in zip(names, written, strict=True)}


def below(folder: epath.Path) -> Iterator[epath.Path]:
    """All files in a folder and its sub-folders, local or in a bucket."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from below(path)
        else:
            yield path


def listed(files: Any, where: str, under: str = "") -> dict[str, Written]:
    """The files that a card lists, those under a folder or all."""
    found = checked(Mapping[str, Written], files, where, "files")
    for name in found:
        parts = PurePosixPath(name)
        inside = not parts.is_absolute() and ".." not in parts.parts and "\\" not in name
        if not inside or len(name) > _LONGEST_NAME:
            raise InputError(f"{where}: files names {shown(name)}, which is not inside the folder")
    return {name: one for name, one in found.items() if name.startswith(under)}


def difference(path: epath.Path, one: Written) -> str | None:
    """What a file has become, if it is not as it was written."""
    if found := _other_size(path, one):
        return found
    if is_remote(path):
        return None
    return None if _written(path) == one else "its sha256 is not that of what was written"


def require_sizes(directory: epath.Path, written: Mapping[str, Written]) -> None:
    """All files are there and have their sizes, and the small ones have their digests."""
    local = not is_remote(directory)
    for name, one in written.items():
        if found := _other_size(directory / name, one):
            raise _damaged(directory / name, found)
    for name, one in written.items():
        if local and one.bytes < _SMALL_BYTES:
            _require_same(directory / name, one)


@contextmanager
def verified(
    directory: epath.Path, written: Mapping[str, Written], notify: Notify | None = None
) -> Iterator[None]:
    """Compares `written` with what is there while the block reads it.

    A file that is damaged is what is reported, whatever the block made of it.
    """
    require_sizes(directory, written)
    large = {n: one for n, one in written.items() if one.bytes >= _SMALL_BYTES}
    if is_remote(directory):
        large = {}
    total = sum(one.bytes for one in large.values())
    tell = notify if notify and total >= _WORTH_MENTIONING_BYTES else lambda what, seconds: None
    what = f"checking {total / 1e9:.1f} GB of weights"
    tell(what, None)
    started = time.perf_counter()
    pool = ThreadPoolExecutor(_THREADS)
    checks = [pool.submit(_require_same, directory / n, one) for n, one in large.items()]
    try:
        try:
            yield
        except Exception:
            _wait_for(checks)
            raise
        _wait_for(checks)
    finally:
        pool.shutdown(cancel_futures=True)
    tell(what, time.perf_counter() - started)


def _wait_for(checks: list[Future[None]]) -> None:
    for check in checks:
        check.result()


def _other_size(path: epath.Path, one: Written) -> str | None:
    size = size_of(path)
    return None if size == one.bytes else f"it has {size} bytes, {one.bytes} were written"


def _require_same(path: epath.Path, one: Written) -> None:
    if found := difference(path, one):
        raise _damaged(path, found)


def _damaged(path: epath.Path, how: str) -> InputError:
    return InputError(f"{path} is damaged: {how}. {_MEND}")


def _written(path: epath.Path) -> Written:
    size, digest = 0, hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            digest.update(chunk)
    return Written(size, digest.hexdigest())


def size_of(path: epath.Path) -> int:
    if not is_remote(path):
        return file_size(path)
    try:
        return path.stat().length
    except FileNotFoundError:
        raise InputError(f"{path} is not there") from None
