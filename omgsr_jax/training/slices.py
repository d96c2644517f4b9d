"""Commands that train several runs in turn, and go on from wherever they were stopped."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ..compile_cache import keep_compiled_programs
from ..errors import InputError
from . import checkpoints, gpu_flags, host_memory, loop, work_directory
from .config import read
from .stopping import STOPPED, stop_requests


class StoppedError(Exception):
    """A run was asked to stop before its end."""


def command(workdir: str | Path, train: Callable[[], None]) -> int:
    """Does `train` with the work directory locked; the exit code, which scripts/train.py has too:
    2 for an error in what was given, 3 for a stop."""
    try:
        gpu_flags.use()
        host_memory.keep()
        keep_compiled_programs()
        with work_directory.locked(workdir):
            train()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (StoppedError, KeyboardInterrupt):
        print("stopped; the same command goes on from there", flush=True)
        return STOPPED
    return 0


def finished(folder: Path, config: Any, make_task: Callable[[], loop.Task]) -> Any:
    """The state at the end of a run, which is trained from wherever it stands."""
    with (
        stop_requests() as stop_requested,
        work_directory.opened(
            folder, dataclasses.asdict(config), config.run, dataclasses.asdict(type(config)())
        ) as saved,
    ):
        task = make_task()
        print(f"{config.name}: up to step {config.run.steps}", flush=True)
        if not loop.train(task, config.run, saved, stop_requested).finished:
            raise StoppedError
    step = checkpoints.find(folder, checkpoints.LATEST)
    return checkpoints.restore_state(folder, step, task.shapes, task.shardings)


def config_of(kind: type, settings: ConfigDict, changes: Mapping[str, Any]) -> Any:
    """The config of a run, of which some settings are known only now; those of groups by group."""
    found = settings.to_dict()
    for name, value in changes.items():
        found[name] = {**found[name], **value} if isinstance(value, Mapping) else value
    return read(kind, found)
