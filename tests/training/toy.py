"""A run of the real loop whose step is one line, to stop, kill and resume.

python -m tests.training.toy WORKDIR STEPS
    [kill AT | kill-while-writing AT | busy AT | slowly SECONDS]
"""

import dataclasses
import hashlib
import os
import signal
import sys
import time
from typing import NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np

from omgsr_jax.training import loop, work_directory
from omgsr_jax.training.config import RunConfig
from omgsr_jax.training.stopping import STOPPED, stop_requests


class State(NamedTuple):
    step: jax.Array
    weights: dict[str, jax.Array]


@jax.jit
def _step(state, batch):
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), state.step), (64,))
    weight = state.weights["kernel"]
    others = {name: array for name, array in state.weights.items() if name != "kernel"}
    gradient = weight - batch["x"].mean(0) + 0.1 * noise
    metrics = {"loss": jnp.square(gradient).sum(), "ok": jnp.isfinite(batch["x"]).all(1)}
    return State(state.step + 1, {**others, "kernel": weight - 0.1 * gradient}), metrics


def _example(i):
    x = np.random.default_rng(int(i)).standard_normal(64).astype(np.float32)
    return {"x": x, "id": f"photo-{i}"}


def _collate(examples):
    return {
        "x": np.stack([example["x"] for example in examples]),
        "id": [example["id"] for example in examples],
    }


def task(*, at=None, do=None, validate=None, utilisation=None, ballast=0, pause=0, workers=None):
    """`do(batch)` happens to the batch of step `at`; `ballast` numbers make checkpoints larger.

    A step takes `pause` seconds more.
    """
    stream = grain.MapDataset.range(4000).shuffle(seed=1).map(_example).to_iter_dataset()
    weights = {"kernel": jnp.ones(64)}
    if ballast:  # noise: it cannot be compressed
        weights["ballast"] = jax.random.normal(jax.random.key(0), ballast)
    state = State(jnp.zeros((), jnp.int32), weights)
    count = {"steps": 0}

    def step(state, batch):
        count["steps"] += 1
        time.sleep(pause)
        if do is not None and int(state.step) == at:
            batch = do(batch) or batch
        return _step(state, batch)

    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return loop.Task(
        state=state,
        shapes=jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state),
        shardings=jax.tree.map(lambda _: device, state),
        step=step,
        batches=iter(stream.batch(4, batch_fn=_collate)),
        images=4,
        rows=[0, 1, 2, 3],
        workers=workers,
        validate=validate,
        validate_every=10,
        utilisation=utilisation,
    )


def run(workdir, steps, *, emergency=None, **options):
    """`emergency` is a folder for checkpoints of every fourth step. Options are the run's or the
    task's."""
    settings = {"log_every": 1, "save_every": 10, "keep": 2}
    if emergency:
        settings |= {"emergency_every": 4, "emergency_folder": str(emergency)}
    own = {field.name for field in dataclasses.fields(RunConfig)} & options.keys()
    settings |= {name: options.pop(name) for name in own}
    config = RunConfig(steps=steps, **settings)
    settings = {"run": dataclasses.asdict(config)}
    with stop_requests() as stop, work_directory.opened(workdir, settings, config) as saved:
        return loop.train(task(**options), config, saved, stop)


def _kill_later(_batch):
    time.sleep(3)  # real steps take long enough for what was saved before to be written
    _kill()


def _be_busy(_batch):
    """As XLA's compiler is: minutes without a line of Python, in which others may run."""
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**30)


def _kill():
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    workdir, steps, *how = sys.argv[1:]
    if how and how[0] == "kill-while-writing":
        from orbax.checkpoint import checkpoint_managers

        save = checkpoint_managers.CheckpointManager.save

        def save_and_die(self, step, *args, **kwargs):
            done = save(self, step, *args, **kwargs)
            if step == int(how[1]):
                _kill()  # the writing goes on in the background, and stops here
            return done

        checkpoint_managers.CheckpointManager.save = save_and_die
        run(workdir, int(steps))
    elif how and how[0] == "slowly":
        outcome = run(workdir, int(steps), pause=float(how[1]), ballast=2**18)
        sys.exit(0 if outcome.finished else STOPPED)
    elif how:
        happens = {"kill": _kill_later, "busy": _be_busy}[how[0]]
        run(workdir, int(steps), at=int(how[1]), do=happens)
    else:
        run(workdir, int(steps))
