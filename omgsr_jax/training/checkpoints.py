"""Checkpoints of a run: written in the background, complete or not there, the latest and the best.

workdir/checkpoints/STEP/      what is trained, both optimisers, the data iterator's position
workdir/damaged/STEP/          what was a checkpoint and is none now, moved out of the way
"""

import itertools
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from ..errors import InputError
from . import digests

LATEST, LAST_WHOLE, BEST = "latest", "last_whole", "best"
_FOLDER, _DAMAGED = "checkpoints", "damaged"
_STATE, _METRICS = "state", "metrics"  # items of a checkpoint; Orbax names the second


class Checkpoints:
    """The checkpoints in a work directory; `best` names the validation metric that ranks them.

    All of them have to be whole: `sort_out` sees to that.
    """

    def __init__(self, workdir: str | Path, *, keep: int, best: str = "psnr"):
        self.workdir = workdir
        self.best = best
        self._folder = absolute(workdir) / _FOLDER
        self._writing: int | None = None
        self._quiet = ExitStack()
        policy = policies.AnyPreservationPolicy(
            [
                policies.LatestN(keep),
                policies.BestN(
                    get_metric_fn=self._rank, n=1, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=self._rank,
            cleanup_tmp_directories=True,  # what a killed process left half-written
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
        )
        try:
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"the checkpoints in {self._folder} cannot be listed: {_reason(error)}"
            ) from error

    def __enter__(self) -> "Checkpoints":
        self._quiet.enter_context(_without_tracebacks())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Waits until everything is written. What ended the run before is told by itself."""
        with self._quiet:
            try:
                self.close()
            except InputError as error:
                if kind is None:
                    raise
                print(f"note: {error}", file=sys.stderr)

    @property
    def latest(self) -> int | None:
        return self._manager.latest_step()

    def save(
        self,
        step: int,
        state: Any,
        batches: grain.DatasetIterator,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Copies the state and returns; the writing goes on in the background."""
        if step == self.latest:
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), data=grain.checkpoint.CheckpointSave(batches)
        )
        with self._failures_told():
            self._manager.wait_until_finished()
            self._writing = step
            self._manager.save(step, args=items, metrics=dict(metrics) if metrics else None)

    def restore(
        self, step: int, shapes: Any, shardings: Any, batches: grain.DatasetIterator
    ) -> Any:
        """The state of a step, every shard on its device; `batches` is moved to where it was."""
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(_on_devices(shapes, shardings)),
            data=grain.checkpoint.CheckpointRestore(batches),
        )
        with _mismatch_told(step):
            return self._manager.restore(step, args=items)["state"]

    def close(self) -> None:
        """Waits until everything is written."""
        with self._failures_told():
            self._manager.wait_until_finished()
        self._manager.close()

    def _rank(self, metrics: Mapping[str, float]) -> float:
        return float(metrics[self.best])

    def _write_digests(self) -> None:
        """Called by the first process when all files are there and the name is still to come."""
        for folder in self._folder.iterdir():
            if folder.name.split(".")[0] == str(self._writing):
                digests.write(folder)

    @contextmanager
    def _failures_told(self) -> Iterator[None]:
        """Whatever goes wrong in the background comes to light at the next save, or at the end."""
        try:
            yield
        except Exception as error:  # OSError, ValueError and more, by what failed to write
            step, self._writing = self._writing, None
            self._remove_partial(step)
            there = ", ".join(map(str, steps_in(self._folder))) or "none"
            raise InputError(
                f"checkpoint {step} could not be written to {self._folder}: {_reason(error)}. "
                f"Those that are there are whole ({there}): mend the cause, such as a full disk, "
                "and start the same command again"
            ) from error

    def _remove_partial(self, step: int | None) -> None:
        for folder in self._folder.glob(f"{step}.*"):
            with suppress(OSError):
                folder.rmtree()


def sort_out(workdir: str | Path, resume: str) -> None:
    """Moves damaged checkpoints out of the way; if the latest is one, only when that is asked for.

    Args:
        resume: LATEST, or LAST_WHOLE to go on from an earlier one where the latest is damaged.
    """
    folder = absolute(workdir) / _FOLDER
    steps = steps_in(folder)
    damaged = {step: what for step in steps if (what := digests.damage(folder / str(step)))}
    whole = [step for step in steps if step not in damaged]
    if damaged and not whole:
        raise InputError(
            f"{_damaged(workdir, damaged)}, and there is no whole one: start again in another work "
            "directory"
        )
    if damaged and max(steps) in damaged and resume != LAST_WHOLE:
        raise InputError(
            f"{_damaged(workdir, damaged)}. The last whole one is {max(whole)}: to go on from it, "
            f"set --config.run.resume={LAST_WHOLE}"
        )
    for step, what in damaged.items():
        goal = _set_aside(folder / str(step))
        print(f"note: checkpoint {step} is damaged ({what}) and lies in {goal} now", flush=True)


def find(workdir: str | Path, which: str, best: str = "psnr") -> int:
    """The step called `which`: latest, best, or a number. What is found is whole."""
    folder = absolute(workdir) / _FOLDER
    steps = steps_in(folder)
    there = ", ".join(map(str, steps)) or "none"
    asked = [int(which)] if which.isdigit() else {LATEST: steps[-1:], BEST: steps}.get(which, [])
    if not asked or asked[0] not in steps:
        raise InputError(f"there is no checkpoint {which!r}; there are {there}")
    damaged = {step: what for step in asked if (what := digests.damage(folder / str(step)))}
    if damaged:
        raise InputError(f"{_damaged(workdir, damaged)}: choose another one by its step ({there})")
    if which != BEST:
        return asked[0]
    ranked = {step: rank for step in asked if (rank := _rank_of(folder / str(step), best))}
    if not ranked:
        raise InputError(f"no checkpoint was validated: choose one by its step ({there})")
    return max(ranked, key=lambda step: (ranked[step], step))


def restore_state(workdir: str | Path, step: int, shapes: Any, shardings: Any) -> Any:
    """The state of a step, without the data's position."""
    path = absolute(workdir) / _FOLDER / str(step) / _STATE
    with _mismatch_told(step):
        return ocp.StandardCheckpointer().restore(path, _on_devices(shapes, shardings))


def steps_in(folder: epath.Path) -> list[int]:
    """The checkpoints that were written to their end, in order."""
    found = set(ocp.utils.checkpoint_steps(folder))
    return sorted(step for step in found if (folder / str(step)).is_dir())


def _damaged(workdir: str | Path, damaged: Mapping[int, str]) -> str:
    step = max(damaged)
    return f"checkpoint {step} in {workdir} is damaged ({damaged[step]})"


def _set_aside(checkpoint: epath.Path) -> epath.Path:
    folder = checkpoint.parent.parent / _DAMAGED
    numbered = (folder / f"{checkpoint.name}-{number}" for number in itertools.count(2))
    goal = next(p for p in itertools.chain([folder / checkpoint.name], numbered) if not p.exists())
    try:
        folder.mkdir(exist_ok=True)
        checkpoint.rename(goal)
    except OSError as error:
        raise InputError(
            f"{checkpoint} is damaged and cannot be moved to {goal}: {error.strerror or error}"
        ) from error
    return goal


def _rank_of(checkpoint: epath.Path, best: str) -> float | None:
    """How well it did in validation, if that was due then."""
    if not (checkpoint / _METRICS).exists():
        return None
    handler = ocp.JsonCheckpointHandler(filename=_METRICS)
    metrics: Mapping[str, float] = ocp.Checkpointer(handler).restore(checkpoint / _METRICS)
    return metrics.get(best)


@contextmanager
def _mismatch_told(step: int) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError) as error:
        raise InputError(
            f"checkpoint {step} does not hold what this config trains: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    """What an exception says, in few words; TensorStore hides the system's among many."""
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(said).splitlines()[0][:200]


@contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Orbax logs what fails in its threads, with tracebacks; here it is told in one sentence."""

    def is_of_another(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname or record.levelno < logging.ERROR

    logger = logging.getLogger("absl")
    logger.addFilter(is_of_another)
    try:
        yield
    finally:
        logger.removeFilter(is_of_another)


def _on_devices(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def absolute(path: str | Path) -> epath.Path:
    return epath.Path(path if "://" in str(path) else os.path.abspath(path))
