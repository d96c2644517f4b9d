"""Checkpoints of a run: written in the background, complete or not there, the latest and the best.

workdir/checkpoints/STEP/      what is trained, both optimisers, the data's position
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

from .. import buckets
from ..digests import below
from ..errors import InputError
from . import digests, restoring
from .goodput import Goodput
from .nearby import Nearby

LATEST, LAST_WHOLE, BEST = "latest", "last_whole", "best"
_FOLDER, _DAMAGED = "checkpoints", "damaged"
_PLACEHOLDER = ".folder"  # in a bucket: a folder that holds nothing is none
# Items of a checkpoint; Orbax names the last.
_STATE, _POSITION, _METRICS = "state", "position", "metrics"


class Checkpoints:
    """The checkpoints in a work directory; `best` names the validation metric that ranks them.

    All of them have to be whole: `sort_out` sees to that. `nearby` are those on the hosts' own
    disks, between them.
    """

    def __init__(
        self, workdir: str | Path, *, keep: int, best: str = "psnr", nearby: Nearby | None = None
    ):
        self.workdir = workdir
        self.nearby = nearby
        self.goodput = Goodput(absolute(workdir))
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
            if buckets.is_remote(workdir) and jax.process_index() == 0:
                (self._folder / _PLACEHOLDER).write_text("")
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        except (buckets.failures(workdir), ValueError, TypeError, KeyError) as error:
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
            state=ocp.args.StandardSave(state), position=ocp.args.JsonSave(batches.get_state())
        )
        with self.goodput.spending("checkpoint"), self._failures_told():
            self._manager.wait_until_finished()
            self._writing = step
            self._manager.save(step, args=items, metrics=dict(metrics) if metrics else None)
        self.goodput.saved(step)

    def resume(
        self, shapes: Any, shardings: Any, batches: grain.DatasetIterator
    ) -> tuple[int, Any] | None:
        """The newest step and its state, every shard on its device, if there is one.

        `batches` is moved to where it was then. The number of processes and the mesh may differ
        from those that saved.
        """
        with self.goodput.spending("restoring"):
            step = self.latest
            near = self.nearby.newest(shapes, shardings) if self.nearby else None
            if self.nearby and near is not None and near > (step or 0):
                step = near
                state, position = self.nearby.restore(near, shapes, shardings)
            elif step is not None:
                state, position = self._restore(step, shapes, shardings)
            if step is not None:
                batches.set_state(position)
        self.goodput.resumed(step or 0)
        return None if step is None else (step, state)

    def _restore(self, step: int, shapes: Any, shardings: Any) -> tuple[Any, Any]:
        path = self._folder / str(step) / _POSITION
        if not path.exists():
            raise InputError(
                f"checkpoint {step} in {self.workdir} does not say how far the data were: an "
                "earlier version wrote it. It can be exported, not resumed"
            )
        position = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(path)
        return restore_state(self.workdir, step, shapes, shardings), position

    def is_due_nearby(self, step: int) -> bool:
        return self.nearby is not None and step % self.nearby.every == 0

    def save_nearby(self, step: int, state: Any, batches: grain.DatasetIterator) -> None:
        """On this host's own disk."""
        assert self.nearby is not None
        with self.goodput.spending("checkpoint"):
            self.nearby.save(step, state, batches.get_state())
            self.nearby.drop(self._whole)
        self.goodput.saved(step)

    @property
    def _whole(self) -> int:
        """The newest step that is written to its end, or -1."""
        return max(steps_in(self._folder), default=-1)

    def close(self) -> None:
        """Waits until everything is written."""
        with self.goodput.spending("checkpoint"), self._failures_told():
            self._manager.wait_until_finished()
        self._manager.close()
        if self.nearby:
            self.nearby.close()
            self.nearby.drop(self._whole)
        if self.goodput.begun:
            self.goodput.write()
            if jax.process_index() == 0:
                print(self.goodput.summary(), flush=True)

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
        """In a bucket it has its name already, which counts only once all of it is there."""
        partial = [*self._folder.glob(f"{step}.*")]
        if step is not None and step not in steps_in(self._folder):
            partial.append(self._folder / str(step))
        for folder in partial:
            with suppress(buckets.failures(folder)):
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
    named = {LATEST: steps[-1:], BEST: steps, **{str(step): [step] for step in steps}}
    asked = named.get(which)
    if not asked:
        raise InputError(f"there is no checkpoint {which!r}; there are {there}")
    damaged = {step: what for step in asked if (what := digests.damage(folder / str(step)))}
    if damaged:
        raise InputError(f"{_damaged(workdir, damaged)}: choose another one by its step ({there})")
    if which != BEST:
        return asked[0]
    ranks = {step: _rank_of(folder / str(step), best) for step in steps}
    ranked = {step: rank for step, rank in ranks.items() if rank is not None}
    if not ranked:
        raise InputError(f"no checkpoint was validated: choose one by its step ({there})")
    return max(ranked, key=lambda step: (ranked[step], step))


def restore_state(workdir: str | Path, step: int, shapes: Any, shardings: Any) -> Any:
    """The state of a step, without the data's position."""
    path = absolute(workdir) / _FOLDER / str(step) / _STATE
    with _mismatch_told(step):
        return restoring.restore(path, shapes, shardings)


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
        if buckets.is_remote(checkpoint):
            _move_objects(checkpoint, goal)
        else:
            folder.mkdir(exist_ok=True)
            checkpoint.rename(goal)
    except buckets.failures(checkpoint) as error:
        raise InputError(
            f"{checkpoint} is damaged and cannot be moved to {goal}: {buckets.reason(error)}"
        ) from error
    return goal


def _move_objects(folder: epath.Path, goal: epath.Path) -> None:
    for path in below(folder):
        path.copy(goal / path.relative_to(folder))
    folder.rmtree()


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
    return buckets.reason(error)


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


def absolute(path: str | Path) -> epath.Path:
    return epath.Path(path if buckets.is_remote(path) else os.path.abspath(path))
