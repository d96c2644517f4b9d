"""The loop around a compiled step: data, logs, validation, checkpoints, and every way to stop.

It knows nothing of OMGSR: a `Task` brings the step, the state and the batches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import grain
import jax
import numpy as np

from ..data.workers import Workers
from ..errors import InputError
from . import timing
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
    workers: Workers | None = None  # that make the batches
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
        with Log(checkpoints.workdir) as log, Profile(log.folder / "profile") as profile:
            return _Loop(task, run, checkpoints, log, profile, stop_requested).go()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(
            "the device is out of memory. Raise data.accumulation (smaller micro-batches), set "
            "model.remat=True, shard the weights with mesh.fsdp, let devices share images with "
            "mesh.spatial, or lower data.batch_size. "
            f"{str(error).splitlines()[0]}"
        ) from error


class _Loop:
    def __init__(
        self,
        task: Task,
        run: RunConfig,
        checkpoints: Checkpoints,
        log: Log,
        profile: Profile,
        stop_requested: Callable[[int], bool],
    ):
        self.task, self.run = task, run
        self.checkpoints, self.log, self.stop_requested = checkpoints, log, stop_requested
        self.profile, self.processes = profile, timing.Processes()
        self.clock, self.first_steps = timing.Clock(task.workers), timing.FirstSteps()
        self.state, self.begun = task.state, 0
        # Steps whose metrics have not been looked at: the device works on while we look back.
        self.pending: list[tuple[int, Metrics, list[str]]] = []

    def go(self) -> Outcome:
        step = self._resume()
        spent = self.checkpoints.goodput
        spent.turn_to("step")
        if step == 0:
            self._validate(0)
        self.begun = step
        self.clock.start(step)
        kind = "compiling"  # so is the first call
        while step < self.run.steps:
            self._profile(step)
            with spent.spending("data"), self.clock.waiting_for_data():
                batch = dict(next(self.task.batches))
            names = batch.pop("id", [])
            self.first_steps.begin()
            with spent.spending(kind), self.clock.on_devices(), self.profile.step(step):
                self.state, metrics = self.task.step(self.state, batch)
            kind = "step"
            step += 1
            if self.first_steps.to_come:
                self._time_alone(step, metrics)
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
                self.clock.start(step)
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

    def _time_alone(self, step: int, metrics: Metrics) -> None:
        """One of the first steps. After the one that compiles the clock starts; after the last of
        them the number of workers is chosen."""
        with self.clock.on_devices():
            self.first_steps.end(metrics)
        if self.first_steps.compiled:
            self.clock.start(step)
        if self.first_steps.to_come or self.task.workers is None:
            return
        chosen = self.task.workers.fit(len(self.task.rows), self.first_steps.fastest)
        if chosen:
            where = f"process {jax.process_index()}: " if jax.process_count() > 1 else ""
            print(f"{where}{chosen}", flush=True)

    def _settle(self) -> None:
        while self.pending:
            self._look_at(*self.pending.pop(0))

    def _look_at(self, step: int, metrics: Metrics, names: list[str]) -> None:
        """Fetches a step's metrics, stops on what is not finite, and logs."""
        with self.clock.on_devices():
            fetched = jax.device_get(dict(metrics))
        ok = fetched.pop("ok", None)
        values = {name: float(value) for name, value in fetched.items()}
        if not all(np.isfinite(value) for value in values.values()):
            problem = _explain(step, values, ok, self.task.rows, names)
            self._skip(step, int(values.get("skipped", 0)), problem)
        elif step % self.run.log_every == 0 or step == self.run.steps:
            self.log.scalars(step, values)

    def _skip(self, step: int, skipped: int, problem: str) -> None:
        """A step that is not finite has changed nothing, if as many as that are allowed."""
        allowed = self.run.skip_not_finite
        if skipped > allowed or not allowed:
            raise NotFiniteError(
                f"{problem}. {f'{allowed} steps have been skipped before it. ' if allowed else ''}"
                "The last checkpoint is untouched; look at these examples, lower "
                "optimizer.learning_rate, or set model.precision=fp32"
            )
        self.log.scalars(step, {"skipped": float(skipped)})
        if jax.process_index() == 0:
            print(
                f"{problem}. It is skipped, and nothing is learnt from it: "
                f"{skipped} of {allowed} (run.skip_not_finite)",
                flush=True,
            )

    def _report(self, step: int) -> None:
        """How fast it goes, since the clock was started."""
        self._settle()
        interval = self.clock.interval(step)
        if interval is None:  # this step has compiled, and says nothing of the others
            return
        everybody = self.processes.intervals(interval)
        values = {
            "time/step": interval.step,
            "time/waiting_for_data": interval.waiting,
            "time/data_waiting": interval.idle,
            "time/device_and_host": interval.step - interval.waiting,
            "time/images_per_second_per_device": (
                self.task.images / interval.step / jax.device_count()
            ),
            **timing.scalars(everybody),
        }
        if self.task.workers:
            values["data/workers"] = float(self.task.workers.count)
            values["data/seconds_a_pair"] = self.task.workers.seconds_a_pair
        if self.task.utilisation:
            values["time/model_flop_utilisation"] = self.task.utilisation(interval.step)
        self.log.scalars(step, values | self.checkpoints.goodput.scalars())
        self.checkpoints.goodput.write(soon=True)
        if jax.process_index() == 0:
            said = self.processes.described(everybody)
            print(f"step {step}: {interval.step:.3f} s a step; {said}", flush=True)
        self.clock.start(step)

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

    def _profile(self, step: int) -> None:
        """Begins or ends the trace before a step, if it is time to."""
        done, first, count = step - self.begun, self.run.profile_at, self.run.profile_steps
        if count and done == first:
            self.profile.start()
        if count and done == first + count:
            jax.block_until_ready(self.state)
            self.profile.stop()


def _explain(
    step: int, values: Mapping[str, float], ok: Any, rows: list[int], names: list[str]
) -> str:
    wrong = ", ".join(f"{name} = {value}" for name, value in values.items())
    if ok is not None and names:
        fine = np.asarray(ok)[rows]
        names = [name for name, good in zip(names, fine, strict=True) if not good] or names
    examples = f". Examples: {', '.join(map(str, names))}" if names else ""
    return f"step {step} is not finite: {wrong}{examples}"
