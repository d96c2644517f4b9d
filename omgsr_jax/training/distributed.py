"""Joining the processes of a run: TPU pods, GKE and Slurm say who they are, others are told."""

import os
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from ..errors import InputError

# Set where several processes belong together, and understood by jax.distributed itself.
_CLUSTERS = {
    "SLURM_NTASKS": "Slurm",
    "OMPI_COMM_WORLD_SIZE": "Open MPI",
    "MEGASCALE_NUM_SLICES": "TPU slices",
}
_TPU_HOSTS = "TPU_WORKER_HOSTNAMES"
_LONGEST = 4096  # bytes of a message


def join(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> str:
    """Initialises jax.distributed if there is more than one process; returns how it was found.

    Must come before anything else of JAX. A process that dies takes the others down within the
    heartbeat timeout; start the same command again, and the run goes on from its last checkpoint.
    """
    given = (coordinator, processes, process)
    if any(value is not None for value in given):
        if any(value is None for value in given):
            raise InputError("--coordinator, --num_processes and --process_id go together")
        jax.distributed.initialize(coordinator, processes, process)
        return "flags"
    cluster = find_cluster(os.environ)
    if cluster:
        jax.distributed.initialize()
        return cluster
    return "a single process"


def find_cluster(environment: Mapping[str, str]) -> str | None:
    """Which kind of cluster this process was started on, if it has company there."""
    for variable, name in _CLUSTERS.items():
        if environment.get(variable, "1").isdigit() and int(environment.get(variable, "1")) > 1:
            return name
    hosts = [host for host in environment.get(_TPU_HOSTS, "").split(",") if host]
    return "TPU pod" if len(hosts) > 1 else None


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
