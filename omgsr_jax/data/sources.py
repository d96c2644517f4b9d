"""Where training images come from: folders, .txt lists and ArrayRecord shards, as one sequence.

A source is a sequence of (name, file bytes). An ArrayRecord holds one image a record: the name in
UTF-8, a zero byte, the image file unchanged.
"""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grain
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from .. import buckets
from ..errors import InputError
from ..files import read_bytes
from .images import DamagedImageError, decode_image, list_images

SHARD_SUFFIX = ".array_record"


class Source(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[str, bytes]: ...


class ImageFiles:
    """Image files by path."""

    def __init__(self, paths: Sequence[str]):
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[str, bytes]:
        path = self._paths[index]
        return path, read_bytes(path)


class ArrayRecords:
    """The records of one or more shards, as `pack` writes them."""

    def __init__(self, shards: Sequence[str]):
        lengths = [_record_count(shard) for shard in shards]
        self._shards = shards
        self._ends = list(itertools.accumulate(lengths))
        self._reader = grain.sources.ArrayRecordDataSource(list(shards))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> tuple[str, bytes]:
        shard = bisect.bisect(self._ends, index)
        number = index - (self._ends[shard - 1] if shard else 0)
        place = f"record {number} of {self._shards[shard]}"
        try:
            name, zero, data = self._reader[index].partition(b"\0")
        except Exception as error:  # array_record raises RuntimeError, IndexError or ValueError
            raise DamagedImageError(f"{place} cannot be read: {error}") from error
        if not zero:
            raise DamagedImageError(
                f"{place} is not a name and an image; pack the shard with "
                "scripts/make_array_record.py"
            )
        return name.decode(errors="replace"), data


class Joined:
    """Several sources, one after the other."""

    def __init__(self, sources: Sequence[Source]):
        self._sources = sources
        self._ends = list(itertools.accumulate(len(source) for source in sources))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> tuple[str, bytes]:
        which = bisect.bisect(self._ends, index)
        return self._sources[which][index - (self._ends[which - 1] if which else 0)]


def open_sources(paths: Iterable[str], notify: Callable[[str], None] | None = None) -> Source:
    """Each path is a folder of images or of shards, a .txt list, an image or a shard.

    `notify` is told of the files of folders that are passed over.
    """
    sources = [_open(path, notify) for path in paths]
    if not sources:
        raise InputError("no training images: name a folder, a .txt list or ArrayRecord shards")
    return sources[0] if len(sources) == 1 else Joined(sources)


def _open(path: str, notify: Callable[[str], None] | None) -> Source:
    buckets.require(path)
    if path.endswith(SHARD_SUFFIX):
        return ArrayRecords([path])
    folder = epath.Path(path)
    if folder.suffix != ".txt" and folder.is_dir():
        shards = sorted(str(p) for p in folder.iterdir() if p.name.endswith(SHARD_SUFFIX))
        if shards:
            return ArrayRecords(shards)
    return ImageFiles(list_images(path, notify))


def _record_count(shard: str) -> int:
    if buckets.is_remote(shard):
        raise InputError(
            f"{shard} lies in a bucket, and shards are read from file systems: mount the bucket, "
            "such as by gcsfuse, or copy the shards"
        )
    try:
        count = len(grain.sources.ArrayRecordDataSource([shard]))
    except Exception as error:  # RuntimeError, its text sometimes empty
        reason = str(error) or "it is cut short or no ArrayRecord at all"
        raise InputError(f"{shard} cannot be opened as an ArrayRecord: {reason}") from error
    if count == 0:
        raise InputError(f"{shard} holds no records")
    return count


@dataclass(frozen=True)
class PackSummary:
    """What `pack` did."""

    written: int
    shards: tuple[str, ...]
    damaged: tuple[str, ...]


def pack(
    sources: Iterable[str],
    output: str | os.PathLike[str],
    *,
    shard_bytes: int = 512 * 2**20,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] | None = None,
) -> PackSummary:
    """Packs the images of folders and .txt lists into `output`/images-00000.array_record and on.

    Files go in unchanged, named by folder and file. Those that cannot be decoded stay out and are
    reported, as `notify` is of files that are passed over. A shard appears under its name only when
    it is complete.
    """
    paths = [path for source in sources for path in list_images(source, notify)]
    output = Path(output)
    if any(output.glob(f"*{SHARD_SUFFIX}")):
        raise InputError(f"{output} holds shards already; choose a new folder or remove them")
    output.mkdir(parents=True, exist_ok=True)
    damaged: list[str] = []
    shards = _Shards(output, shard_bytes)
    try:
        for number, path in enumerate(paths, start=1):
            try:
                _, data = ImageFiles([path])[0]
                decode_image(data, path)
                shards.write(os.fsencode("/".join(Path(path).parts[-2:])) + b"\0" + data)
            except DamagedImageError as error:
                damaged.append(str(error))
            if progress:
                progress(number, len(paths))
    finally:
        shards.close()
    return PackSummary(len(paths) - len(damaged), tuple(shards.paths), tuple(damaged))


class _Shards:
    """Writes records to one shard after the other, each under a temporary name until it is full."""

    def __init__(self, folder: Path, limit: int):
        self._folder, self._limit = folder, limit
        self._writer: ArrayRecordWriter | None = None
        self._size = 0
        self.paths: list[str] = []

    def write(self, record: bytes) -> None:
        if self._writer is None:
            self.paths.append(str(self._folder / f"images-{len(self.paths):05d}{SHARD_SUFFIX}"))
            # One record to a group, so that reading one image decompresses no other.
            self._writer = ArrayRecordWriter(self.paths[-1] + ".part", "group_size:1,uncompressed")
            self._size = 0
        self._writer.write(record)
        self._size += len(record)
        if self._size >= self._limit:
            self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            os.replace(self.paths[-1] + ".part", self.paths[-1])
