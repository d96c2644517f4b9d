"""Digests of a checkpoint's files: written before the checkpoint gets its name, compared later.

    checkpoints/STEP/digests.json      the size and the SHA-256 of every file of every item

Compression hides most damage, and Orbax reads what is left of it without a word.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from .. import files

DIGESTS = "digests.json"
_ORBAX = "_CHECKPOINT_METADATA"  # changed last of all, with the time of the commit
_CHUNK = 1 << 20


def write(checkpoint: epath.Path) -> None:
    """For a checkpoint whose files are all written."""
    found = {name: _describe(checkpoint / name) for name in _names(checkpoint)}
    files.write_text(checkpoint / DIGESTS, json.dumps(found, indent=1) + "\n")


def damage(checkpoint: epath.Path) -> str | None:
    """What is wrong with a checkpoint, or None if it is as it was written."""
    try:
        expected = _read_object(checkpoint / DIGESTS)
        if (checkpoint / _ORBAX).exists():
            _read_object(checkpoint / _ORBAX)
        for name, (size, digest) in expected.items():
            path = checkpoint / name
            if not path.exists():
                return f"{name} is missing"
            if path.stat().length != size:
                return f"{name} has {path.stat().length} bytes, expected {size}"
            if _digest(path) != digest:
                return f"{name} is not what was written"
    except _UnreadableError as error:
        return str(error)
    except (OSError, ValueError, TypeError) as error:
        return f"it cannot be read: {error}"
    return None if expected else f"{DIGESTS} names no file"


class _UnreadableError(Exception):
    pass


def _read_object(path: epath.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise _UnreadableError(f"{path.name} is missing") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _UnreadableError(f"{path.name} is damaged")
    return found


def _names(checkpoint: epath.Path) -> Iterator[str]:
    """The files of the checkpoint's items, relative to it. What lies beside is Orbax's own."""
    for item in sorted(checkpoint.iterdir()):
        if item.is_dir():
            for path in _files(item):
                yield path.relative_to(checkpoint).as_posix()


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _describe(path: epath.Path) -> tuple[int, str]:
    return path.stat().length, _digest(path)


def _digest(path: epath.Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()
