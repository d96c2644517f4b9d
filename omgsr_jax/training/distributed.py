"""Joining the processes of a run: JAX finds those of TPU VMs, GKE, Slurm and Open MPI by itself."""

import os
from collections import Counter
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ..errors import InputError
from ..launchers import VISIBLE_GPUS, has_the_host_for_itself

_LONGEST = 4096  # bytes of a message


def join(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Initialises jax.distributed, by what is given or else by what JAX finds.

    Must come before anything else of JAX. A process that dies takes the others down within the
    heartbeat timeout; start the same command again, and the run goes on from its last checkpoint.
    """
    given = (coordinator, processes, process)
    if any(value is not None for value in given):
        if any(value is None for value in given):
            raise InputError("--coordinator, --num_processes and --process_id go together")
        jax.distributed.initialize(coordinator, processes, process)
        return
    try:
        jax.distributed.initialize()
    except ValueError as error:
        if "coordinator_address" not in str(error):
            raise
        return  # nothing was found: a process by itself
    except OSError as error:
        raise InputError(
            "this is a TPU VM, and its metadata server, which knows the other hosts, does not "
            f"answer ({error}). Set TPU_SKIP_MDS_QUERY=1 if there are no other hosts."
        ) from error
    if has_the_host_for_itself(os.environ):
        for name in VISIBLE_GPUS:  # JAX gives a Slurm or MPI process one device, for one of many
            jax.config.update(name, "all")


def description(mesh: Mesh) -> str:
    """What was found: processes, hosts' devices, the mesh."""
    devices = list(mesh.devices.flat)
    kinds = ", ".join(
        f"{n} x {kind}" for kind, n in Counter(device.device_kind for device in devices).items()
    )
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1)
    parts = [
        f"process {jax.process_index()} of {jax.process_count()}",
        f"{jax.local_device_count()} of {kinds}",
        *([f"{slices} slices"] if slices > 1 else []),
        f"mesh {axes or 'of one device'}",
    ]
    return ", ".join(parts)


def first_process_does(work: Callable[[], None]) -> None:
    """Something that is done once for all processes; its InputError is raised in every one."""
    problem = b""
    if jax.process_index() == 0:
        try:
            work()
        except InputError as error:
            problem = str(error).encode()[:_LONGEST]
    if jax.process_count() > 1:
        padded = np.frombuffer(problem.ljust(_LONGEST, b"\0"), np.uint8)
        problem = bytes(multihost_utils.broadcast_one_to_all(padded)).rstrip(b"\0")
    if problem:
        raise InputError(problem.decode(errors="replace"))
