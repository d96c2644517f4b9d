"""Where outputs go, decided before anything is written."""

import functools
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from PIL import Image

from ..errors import InputError
from .listing import HEIF_HINT

# Kinds of image files that Pillow does not know.
_OTHER_KINDS = (
    *(".heic", ".heif", ".jxl", ".svg", ".exr", ".hdr", ".xcf"),
    *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf"),
)


class Outputs:
    """All files that a command is going to write: none twice, and none that it reads.

    Names count as the same whatever their case, as some file systems see them, and so do paths
    that lead to one place through links.
    """

    def __init__(self, reads: Iterable[str | os.PathLike[str]] = ()):
        # Looked up once for each folder: a file costs no question to the file system.
        self._real = functools.cache(lambda folder: os.path.realpath(folder or os.curdir))
        self._links = functools.cache(_links_in)
        self._obstacle = functools.cache(_obstacle)
        self._reads = {place.casefold(): place for path in reads for place in self._places(path)}
        self._claimed: dict[str, Path] = {}
        self._numbers: dict[str, int] = {}

    def claim(
        self,
        path: Path,
        *,
        replaces: str | os.PathLike[str] | None = None,
        hint: str = "choose another output",
    ) -> Path:
        """Takes `path`, or says why it cannot be written.

        `replaces` is the one file that is read and may be written over all the same.
        """
        may_replace = replaces is not None and self._are_one(path, replaces)
        if self._is_read(path) and not may_replace:
            raise InputError(f"{path} is an input and would be overwritten; {hint}")
        if (other := self._claimed.get(self._key(path))) is not None:
            raise InputError(f"{path} would be written twice, the other time as {other}; {hint}")
        if obstacle := self._obstacle(path.parent):
            raise InputError(f"{path} cannot be written: {obstacle}")
        self._claimed[self._key(path)] = path
        return path

    def free(self, *wanted: Path, of_inputs: bool = True) -> Path:
        """The first name that no output has, or else the last of them with a number.

        With `of_inputs` it is also none that is read.
        """

        def is_free(path: Path) -> bool:
            return self._key(path) not in self._claimed and not (of_inputs and self._is_read(path))

        for path in wanted:
            if is_free(path):
                return path
        last = wanted[-1]
        key = self._key(last)
        while True:  # counting goes on from one call to the next: a thousand a.png take as many
            self._numbers[key] = number = self._numbers.get(key, 1) + 1
            path = last.with_name(f"{last.stem}-{number}{last.suffix}")
            if is_free(path):
                return path

    def _is_read(self, path: Path) -> bool:
        for place in self._places(path) if self._reads else ():
            read = self._reads.get(place.casefold())
            if read is not None and (read == place or _is_one_file(read, place)):
                return True
        return False

    def _are_one(self, path: Path, other: str | os.PathLike[str]) -> bool:
        return not set(self._places(path)).isdisjoint(self._places(other)) or _is_one_file(
            path, other
        )

    def _key(self, path: Path) -> str:
        return self._places(path)[0].casefold()

    def _places(self, path: str | os.PathLike[str]) -> list[str]:
        """Where a path is and, if it is a link, where it leads: both files must stay."""
        folder, slash, name = os.fspath(path).rpartition(os.sep)
        folder = self._real(folder or slash)
        here = f"{folder.rstrip(os.sep)}{os.sep}{name}"
        return [here, os.path.realpath(here)] if name in self._links(folder) else [here]


def _obstacle(folder: Path) -> str | None:
    """Why no file can be made in a folder that is there, or is still to be made."""
    there = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    if not os.path.isdir(there):
        return f"{there} is not a folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"no permission to write into {there}"
    return None


def _links_in(folder: str) -> frozenset[str]:
    try:
        return frozenset(entry.name for entry in os.scandir(folder) if entry.is_symlink())
    except OSError:  # the folder is still to be made
        return frozenset()


def within(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Whether `path` is `folder` or lies inside it, through whatever links."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def refuse_other_kinds(out: str | os.PathLike[str], writable: Collection[str]) -> None:
    """An output called like an image of a kind that cannot be written is no name for a folder."""
    suffix = Path(out).suffix.lower()
    if os.path.isdir(out) or os.fspath(out).endswith(os.sep) or suffix in writable:
        return
    Image.init()
    if suffix in _OTHER_KINDS or suffix in Image.registered_extensions():
        heif = f"; {HEIF_HINT}" if suffix in (".heic", ".heif") else ""
        raise InputError(
            f"{out}: cannot write {suffix}; expected one of {' '.join(writable)}, or a folder{heif}"
        )


def require_folder_name(out: str | os.PathLike[str]) -> None:
    """Where a folder is written, the name of an image is a mistake."""
    suffix = Path(out).suffix.lower()
    if os.path.isdir(out) or os.fspath(out).endswith(os.sep):
        return
    Image.init()
    if suffix in _OTHER_KINDS or suffix in Image.registered_extensions():
        raise InputError(f"{out} is called like an image; expected the name of a folder")


def _is_one_file(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two names that differ in case only are one file: the file system decides."""
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False
