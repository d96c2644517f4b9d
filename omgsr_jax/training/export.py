"""A run's model, from one of its checkpoints: on one device, whatever mesh it was trained on."""

import dataclasses
from pathlib import Path

import jax

from .. import files
from . import checkpoints, work_directory
from .config import MeshConfig, from_dict
from .run import Run


def export(workdir: str | Path, which: str, out: str) -> int:
    """Writes a converted model into the new directory `out`, and returns the checkpoint's step.

    Args:
        workdir: of the run.
        which: the checkpoint: best, latest or a step.
        out: where to; both may lie in buckets.
    """
    config = from_dict(work_directory.read_config(workdir))
    files.require_new(out)
    step = checkpoints.find(workdir, which)
    run = Run.of(dataclasses.replace(config, mesh=MeshConfig()), jax.local_devices()[:1])
    layout = run.layout
    state = checkpoints.restore_state(workdir, step, layout.state, layout.state_sharding)
    run.write_model(out, state.ema or state.generator)
    return step
