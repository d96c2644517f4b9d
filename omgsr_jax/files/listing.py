"""The images of a folder: each once, in a fixed order, and with a word on what was passed over."""

import functools
import os
from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from etils import epath

from .. import buckets
from ..errors import InputError
from .opening import formats

# Suffix -> Pillow's name of the format.
_KINDS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".avif": "AVIF",
    ".heic": "HEIF",
    ".heif": "HEIF",
}


LIST = ".txt"  # a path a line
_MOST_NAMED = 5  # files that a list names and that are not there

HEIF_HINT = "for .heic and .heif install pillow-heif: pip install 'omgsr-jax[heif]'"


class LeftOutWarning(UserWarning):
    """A file, or a part of what it says, is left out."""


@functools.cache
def suffixes() -> tuple[str, ...]:
    """Those of image files that can be read here."""
    known = formats()
    return tuple(suffix for suffix, kind in _KINDS.items() if kind in known)


@dataclass
class Listing:
    folder: str
    expected: Collection[str]  # suffixes
    images: list[str] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)  # by suffix
    closed: list[str] = field(default_factory=list)  # folders that cannot be read

    def add(self, path: str) -> None:
        suffix = os.path.splitext(path)[1].lower()
        if suffix in self.expected:
            self.images.append(path)
        else:
            self.passed_over[suffix] += 1

    def mention(self) -> str | None:
        """One sentence on what is in the folder and not among the images."""
        counts = [
            f"{count} {suffix or 'without a suffix'}"
            for suffix, count in sorted(self.passed_over.items())
        ]
        counts += [f"the folder {path}, which cannot be read" for path in self.closed]
        if not counts:
            return None
        heif = f"; {HEIF_HINT}"
        needed = not {".heic", ".heif"}.isdisjoint(self.passed_over)
        return (
            f"passed over in {self.folder}: {', '.join(counts)} (expected "
            f"{' '.join(self.expected)}{heif if needed else ''})"
        )


def images_in(
    folder: str | os.PathLike[str],
    *,
    recursive: bool = True,
    leave_out: str | os.PathLike[str] | None = None,
) -> Listing:
    """The files in `folder` that are called like images, in the order of their paths.

    Links to folders are followed, but every folder is listed once: a link that leads back
    up counts nothing twice. Hidden files and folders are left out, as is the folder `leave_out`.
    What has an image's name and is something else fails when its turn comes.
    """
    found = Listing(os.fspath(folder), suffixes())
    if buckets.is_remote(folder):
        _list_remote(epath.Path(folder), found, recursive)
    else:
        _list_local(found, recursive, leave_out)
    found.images.sort()
    return found


def images_listed(path: str | os.PathLike[str]) -> list[str]:
    """The paths in a .txt list: one a line, from the list's folder on, or addresses with a scheme.

    Empty lines, and lines that begin with #, name nothing. Of local files, all must be there.
    """
    buckets.require(path)
    file = epath.Path(path)
    if not file.is_file():
        raise InputError(f"the image list {path} does not exist")
    found: dict[int, str] = {}  # by the number of its line
    for number, line in enumerate(os.fsdecode(file.read_bytes()).splitlines(), start=1):
        name = line.removeprefix("\ufeff").strip()
        if name and not name.startswith("#"):
            # An absolute path on the right replaces what stands on the left.
            found[number] = name if buckets.is_remote(name) else str(file.parent / name)
    if not found:
        raise InputError(f"the image list {path} is empty; expected a path on each line")
    _require_there(path, found)
    return [*found.values()]


def _require_there(path: str | os.PathLike[str], found: Mapping[int, str]) -> None:
    for one in found.values():
        buckets.require(one)
    local = {number: one for number, one in found.items() if not buckets.is_remote(one)}
    missing = {number: one for number, one in local.items() if not os.path.isfile(one)}
    if not missing:
        return
    named = list(missing.items())[:_MOST_NAMED]
    shown = "".join(f"\n  line {number}: {one}" for number, one in named)
    more = f"\n  and {len(missing) - len(named)} more" if len(missing) > len(named) else ""
    raise InputError(
        f"{path} lists {len(missing)} of {len(found)} files that do not exist:{shown}{more}"
    )


def _list_local(found: Listing, recursive: bool, leave_out: str | os.PathLike[str] | None) -> None:
    top = str(Path(found.folder))
    # The folders that hold this one: a link to one of them leads back here.
    seen = {_identity(folder) for folder in Path(os.path.realpath(top)).parents}
    if leave_out is not None:
        seen.add(_identity(leave_out))
    seen -= {None, _identity(top)}
    waiting, linked = [top], deque[str]()
    while waiting or linked:
        folder = waiting.pop() if waiting else linked.popleft()  # a link is last
        if (identity := _identity(folder)) in seen:
            continue
        seen.add(identity)
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            if folder == top:
                reason = error.strerror or error
                raise InputError(f"{found.folder} cannot be listed: {reason}") from error
            found.closed.append(folder)
            continue
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            path = entry.name if folder == "." else entry.path
            if not _is_folder(entry):
                found.add(path)
            elif recursive:
                (linked if entry.is_symlink() else waiting).append(path)
            elif os.path.splitext(path)[1].lower() in found.expected:
                found.add(path)


def _list_remote(folder: epath.Path, found: Listing, recursive: bool) -> None:
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            found.add(str(path))
        elif recursive:
            _list_remote(path, found, recursive)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
