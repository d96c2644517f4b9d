"""A run's work directory: whose it is, and that one run at a time writes into it.

workdir/config.json            which run the directory belongs to
workdir/run.lock               held by the run that writes; one that nobody holds blocks nobody
workdir/run.id                 what its emergency checkpoints are called by on the hosts
workdir/checkpoints/           see checkpoints.py; workdir/damaged/: what could not be read
"""

import fcntl
import json
import os
import re
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .. import buckets, files
from ..errors import InputError
from .checkpoints import Checkpoints, absolute, sort_out
from .config import RunConfig
from .distributed import first_process_does
from .nearby import Nearby

CONFIG = "config.json"
_LOCK, _ID = "run.lock", "run.id"
_HOW_TO_MEND = "put a copy of it back, or choose another work directory"
# Settings that may change when a run goes on: they do not change what is learnt.
_FREE = ("run.", "validation.", "mesh.", "sharding", "data.workers", "data.damaged_limit")


@contextmanager
def opened(
    workdir: str | Path,
    config: Mapping[str, Any],
    run: RunConfig,
    defaults: Mapping[str, Any] | None = None,
) -> Iterator[Checkpoints]:
    """The checkpoints in `workdir`, which is this run's alone until the block ends.

    Another run's directory is left untouched, and so is one whose checkpoints are damaged, unless
    `run.resume` says what to do about it. A run of an earlier version, which did not know some
    setting yet, had its default.
    """
    buckets.require(workdir)
    with ExitStack() as stack:
        first_process_does(lambda: _claim(workdir, config, run, defaults or {}, stack))
        nearby = _nearby(workdir, run)
        yield stack.enter_context(Checkpoints(workdir, keep=run.keep, nearby=nearby))


def read_config(workdir: str | Path) -> dict[str, Any]:
    """The config of the run in `workdir`."""
    buckets.require(workdir)
    path = absolute(workdir) / CONFIG
    if not path.exists():
        raise InputError(f"{workdir} is not a run's work directory: it has no {CONFIG}")
    try:
        found = json.loads(path.read_text())
    except (buckets.failures(path), ValueError, RecursionError) as error:
        reason = buckets.reason(error)
        raise InputError(f"{path} cannot be read: {reason}; {_HOW_TO_MEND}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no settings; {_HOW_TO_MEND}")
    return found


def _claim(
    workdir: str | Path,
    config: Mapping[str, Any],
    run: RunConfig,
    defaults: Mapping[str, Any],
    stack: ExitStack,
) -> None:
    _require_own(workdir, config, defaults)  # before anything is written
    stack.enter_context(locked(workdir))
    if not _require_own(workdir, config, defaults):  # nobody else can have come in between now
        files.write_text(absolute(workdir) / CONFIG, json.dumps(config, indent=2) + "\n")
    if run.emergency_every and _identity(workdir) is None:
        files.write_text(absolute(workdir) / _ID, f"{secrets.token_hex(8)}\n")
    sort_out(workdir, run.resume)


def _nearby(workdir: str | Path, run: RunConfig) -> Nearby | None:
    identity = _identity(workdir) if run.emergency_every else None
    if identity is None:
        return None
    return Nearby((Path(run.emergency_folder) / identity).absolute(), run.emergency_every)


def _identity(workdir: str | Path) -> str | None:
    """It names a folder, so it has to be what was written."""
    path = absolute(workdir) / _ID
    try:
        found = path.read_text().strip()
    except (buckets.failures(path), ValueError):
        return None
    return found if re.fullmatch("[0-9a-f]{16}", found) else None


def _require_own(
    workdir: str | Path, config: Mapping[str, Any], defaults: Mapping[str, Any]
) -> bool:
    """Whether this run has been here before; another run's directory is an error."""
    folder = absolute(workdir)
    if (folder / CONFIG).exists():
        _require_same(workdir, read_config(workdir), config, defaults)
        return True
    if folder.exists() and (
        not folder.is_dir() or any(path.name != _LOCK for path in folder.iterdir())
    ):
        raise InputError(
            f"{workdir} is not empty and holds no run ({CONFIG} is missing): choose a new directory"
        )
    return False


def _require_same(
    workdir: str | Path,
    there: Mapping[str, Any],
    here: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> None:
    mine, usual = (_flat(json.loads(json.dumps(settings))) for settings in (here, defaults))
    theirs = {name: usual[name] for name in mine if name in usual} | _flat(there)
    different = [
        f"{name} is {theirs.get(name)!r} there and {mine.get(name)!r} here"
        for name in sorted({*mine, *theirs})
        if theirs.get(name) != mine.get(name) and not name.startswith(_FREE)
    ]
    if different:
        raise InputError(
            f"{workdir} belongs to another run: {'; '.join(different[:5])}. Choose another "
            "work directory, or go on with the config of that run"
        )


@contextmanager
def locked(workdir: str | Path) -> Iterator[None]:
    """For one process at a time. The kernel frees the lock, however the process ends."""
    if buckets.is_remote(workdir):  # which cannot be locked
        yield
        return
    path = Path(absolute(workdir)) / _LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    with file:
        _lock(file, workdir)
        yield


def _lock(file: Any, workdir: str | Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(200).strip() or "another process"
        raise InputError(
            f"{workdir} is in use by {holder}: wait until that run ends, stop it, or choose "
            "another work directory"
        ) from None
    except OSError as error:
        print(
            f"note: {workdir} cannot be locked ({error.strerror}): start no second run on it",
            file=sys.stderr,
        )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
