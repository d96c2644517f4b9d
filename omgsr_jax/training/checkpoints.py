"""Checkpoints of a run: written in the background, complete or not there, the latest and the best.

workdir/config.json            which run the directory belongs to
workdir/checkpoints/STEP/      what is trained, both optimisers, the data iterator's position
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from .. import files
from ..errors import InputError

CONFIG = "config.json"
# Settings that may change when a run goes on: they do not change what is learnt.
_FREE = ("run.", "validation.", "mesh.", "sharding", "data.workers", "data.damaged_limit")


class Checkpoints:
    """The checkpoints in a work directory; `best` names the validation metric that ranks them."""

    def __init__(self, workdir: str | Path, *, keep: int, best: str = "psnr"):
        self.best = best
        policy = policies.AnyPreservationPolicy(
            [
                policies.LatestN(keep),
                policies.BestN(
                    get_metric_fn=self._rank, n=1, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            _absolute(workdir) / "checkpoints",
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                best_fn=self._rank,
                cleanup_tmp_directories=True,  # what a killed process left half-written
            ),
        )

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
        self._manager.save(step, args=items, metrics=dict(metrics) if metrics else None)

    def restore(
        self, step: int, shapes: Any, shardings: Any, batches: grain.DatasetIterator
    ) -> Any:
        """The state of a step, every shard on its device; `batches` is moved to where it was."""
        wanted = _on_devices(shapes, shardings)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(wanted), data=grain.checkpoint.CheckpointRestore(batches)
        )
        return self._restored(step, items)["state"]

    def restore_state(self, step: int, shapes: Any, shardings: Any) -> Any:
        """The state alone."""
        wanted = _on_devices(shapes, shardings)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
        return self._restored(step, items)["state"]

    def find(self, which: str) -> int:
        """The step called `which`: latest, best, or a number."""
        steps = list(self._manager.all_steps())
        named = {"latest": self.latest, "best": self._manager.best_step()}
        found = named[which] if which in named else int(which) if which.isdigit() else None
        if found is None or found not in steps:
            there = ", ".join(map(str, steps)) or "none"
            raise InputError(f"there is no checkpoint {which!r}; there are {there}")
        return int(found)

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _rank(self, metrics: Mapping[str, float]) -> float:
        return float(metrics[self.best])

    def _restored(self, step: int, items: Any) -> Any:
        try:
            return self._manager.restore(step, args=items)
        except (ValueError, KeyError) as error:
            raise InputError(
                f"checkpoint {step} does not hold what this config trains: {error}"
            ) from error


def claim(workdir: str | Path, config: Mapping[str, Any]) -> None:
    """Makes `workdir` this run's own, or finds that it is; another run's is left untouched."""
    path = _absolute(workdir) / CONFIG
    mine = _flat(json.loads(json.dumps(config)))
    if path.exists():
        theirs = _flat(json.loads(path.read_text()))
        names = sorted({*mine, *theirs})
        different = [
            f"{name} is {theirs.get(name)!r} there and {mine.get(name)!r} here"
            for name in names
            if theirs.get(name) != mine.get(name) and not name.startswith(_FREE)
        ]
        if different:
            raise InputError(
                f"{workdir} belongs to another run: {'; '.join(different[:5])}. Choose another "
                "work directory, or go on with the config of that run"
            )
        return
    if path.parent.exists() and any(path.parent.iterdir()):
        raise InputError(
            f"{workdir} is not empty and holds no run ({CONFIG} is missing): choose a new directory"
        )
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("every process has looked at the work directory")
    if jax.process_index() == 0:
        files.write_text(path, json.dumps(config, indent=2) + "\n")


def read_config(workdir: str | Path) -> dict[str, Any]:
    """The config of the run in `workdir`."""
    path = _absolute(workdir) / CONFIG
    if not path.exists():
        raise InputError(f"{workdir} is not a run's work directory: it has no {CONFIG}")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _on_devices(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def _absolute(path: str | Path) -> epath.Path:
    return epath.Path(path if "://" in str(path) else os.path.abspath(path))
