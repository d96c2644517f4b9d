"""The loop around a compiled step: data, logs, validation, checkpoints, and every way to stop.

It knows nothing of OMGSR: a `Task` brings the step, the state and the batches.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import grain
import jax
import numpy as np

from ..errors import InputError
from .checkpoints import Checkpoints
from .config import RunConfig
from .log import Log
from .profile import Profile

Metrics = Mapping[str, Any]


@dataclass
class Task:
    """What is trained. `state.step` counts the steps that are done."""

    state: Any
    shapes: Any  # of the state
    shardings: Any
    step: Callable[[Any, Mapping[str, Any]], tuple[Any, Metrics]]
    batches: grain.DatasetIterator  # dicts of arrays on the devices, and `id`, a list of names
    images: int  # in a batch, on all devices together
    rows: list[int]  # of a batch: those that this process feeds
    # The share of the devices' peak that a step uses, by its seconds, where that is known.
    utilisation: Callable[[float], float] | None = None
    # Scalars and pictures (h w 3, uint8) of a state.
    validate: Callable[[Any], tuple[dict[str, float], dict[str, np.ndarray]]] | None = None
    validate_every: int = 1000


class Outcome(NamedTuple):
    step: int
    finished: bool  # False: stopped on request, to be resumed


class NotFiniteError(InputError):
    """A loss is NaN or infinite."""


def train(
    task: Task, run: RunConfig, checkpoints: Checkpoints, stop_requested: Callable[[int], bool]
) -> Outcome:
    """Trains until `run.steps`, from the last checkpoint if there is one.

    `stop_requested` is what `stop_requests` gives: asked after each step whether to stop there.
    """
    try:
        with Log(checkpoints.workdir) as log:
            return _Loop(task, run, checkpoints, log, stop_requested).go()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(
            "the device is out of memory. Raise data.accumulation (smaller micro-batches), set "
            "model.remat=True, shard the weights with mesh.fsdp, or lower data.batch_size. "
            f"{str(error).splitlines()[0]}"
        ) from error


class _Loop:
    def __init__(
        self,
        task: Task,
        run: RunConfig,
        checkpoints: Checkpoints,
        log: Log,
        stop_requested: Callable[[int], bool],
    ):
        self.task, self.run = task, run
        self.checkpoints, self.log, self.stop_requested = checkpoints, log, stop_requested
        self.profile = Profile(log.folder / "profile")
        self.state = task.state
        # Steps whose metrics have not been looked at: the device works on while we look back.
        self.pending: list[tuple[int, Metrics, list[str]]] = []

    def go(self) -> Outcome:
        step = self._resume()
        spent = self.checkpoints.goodput
        spent.turn_to("step")
        if step == 0:
            self._validate(0)
        self._start_clock()
        kind = "compiling"  # so is the first call
        while step < self.run.steps:
            self._profile(step)
            asked = time.perf_counter()
            with spent.spending("data"):
                batch = dict(next(self.task.batches))
            self.waited += time.perf_counter() - asked
            names = batch.pop("id", [])
            with spent.spending(kind):
                self.state, metrics = self.task.step(self.state, batch)
            kind = "step"
            step += 1
            self.pending.append((step, metrics, names))
            while len(self.pending) > 1:
                self._look_at(*self.pending.pop(0))
            stop = self.stop_requested(step)
            done = step == self.run.steps
            if step % self.run.log_every == 0 or done:
                self._report(step)
            due = self.task.validate is not None and step % self.task.validate_every == 0
            if due or done or stop or step % self.run.save_every == 0:
                self._settle()  # never save what is not finite
                found = self._validate(step) if due or done else None
                self.log.sync()
                self.checkpoints.save(step, self.state, self.task.batches, found)
                self._start_clock()
            elif self.checkpoints.is_due_nearby(step):
                self._settle()
                self.checkpoints.save_nearby(step, self.state, self.task.batches)
            if stop and not done:
                return Outcome(step, finished=False)
        return Outcome(step, finished=True)

    def _resume(self) -> int:
        task = self.task
        found = self.checkpoints.resume(task.shapes, task.shardings, task.batches)
        if found is None:
            return 0
        step, self.state = found
        print(f"resumed from step {step}", flush=True)
        return step

    def _settle(self) -> None:
        while self.pending:
            self._look_at(*self.pending.pop(0))

    def _look_at(self, step: int, metrics: Metrics, names: list[str]) -> None:
        """Fetches a step's metrics, stops on what is not finite, and logs."""
        fetched = jax.device_get(dict(metrics))
        ok = fetched.pop("ok", None)
        values = {name: float(value) for name, value in fetched.items()}
        if not all(np.isfinite(value) for value in values.values()):
            raise NotFiniteError(_explain(step, values, ok, self.task.rows, names))
        if step % self.run.log_every == 0 or step == self.run.steps:
            self.log.scalars(step, values)

    def _report(self, step: int) -> None:
        """How fast it goes, since the clock was started."""
        self._settle()
        steps = step - self.clock_step
        seconds = time.perf_counter() - self.clock
        devices = jax.device_count()
        rate = self.task.images * steps / seconds
        values = {
            "time/step": seconds / steps,
            "time/waiting_for_data": self.waited / steps,
            "time/device_and_host": (seconds - self.waited) / steps,
            "time/images_per_second_per_device": rate / devices,
        }
        if self.task.utilisation:
            values["time/model_flop_utilisation"] = self.task.utilisation(seconds / steps)
        self.log.scalars(step, values | self.checkpoints.goodput.scalars())
        self.checkpoints.goodput.write(soon=True)
        if jax.process_index() == 0:
            print(f"step {step}: {seconds / steps:.3f} s a step", flush=True)
        self._start_clock(step)

    def _validate(self, step: int) -> dict[str, float] | None:
        if self.task.validate is None:
            return None
        with self.checkpoints.goodput.spending("validation"):
            scalars, pictures = self.task.validate(self.state)
        self.log.scalars(step, {f"validation/{name}": value for name, value in scalars.items()})
        for name, picture in pictures.items():
            self.log.image(step, name, picture)
        if jax.process_index() == 0:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())
            print(f"step {step}: validation {shown}", flush=True)
        return scalars

    def _start_clock(self, step: int | None = None) -> None:
        self.clock = time.perf_counter()
        self.clock_step = int(self.state.step) if step is None else step
        self.waited = 0.0

    def _profile(self, step: int) -> None:
        first, count = self.run.profile_at, self.run.profile_steps
        if count and step == first:
            self.profile.start()
        if count and step == first + count:
            jax.block_until_ready(self.state)
            self.profile.stop()


def _explain(
    step: int, values: Mapping[str, float], ok: Any, rows: list[int], names: list[str]
) -> str:
    wrong = ", ".join(f"{name} = {value}" for name, value in values.items())
    if ok is not None and names:
        fine = np.asarray(ok)[rows]
        names = [name for name, good in zip(names, fine, strict=True) if not good] or names
    examples = f" Examples: {', '.join(map(str, names))}." if names else ""
    return (
        f"step {step} is not finite: {wrong}.{examples} The last checkpoint is untouched; look at "
        "these examples, lower optimizer.learning_rate, or set model.precision=fp32"
    )
