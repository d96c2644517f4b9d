"""Several processes of one command: what Slurm and Open MPI tell each of them."""

from collections.abc import Mapping
from dataclasses import dataclass

# How many processes there are, and on how many hosts; or how many there are on this one.
_ONE_PER_HOST = (("SLURM_NTASKS", "SLURM_STEP_NUM_NODES"), ("OMPI_COMM_WORLD_LOCAL_SIZE", None))

# The options of JAX that say which GPUs a process may see.
VISIBLE_GPUS = ("jax_cuda_visible_devices", "jax_rocm_visible_devices")


@dataclass(frozen=True)
class Launched:
    """One of several processes."""

    index: int
    count: int
    index_on_host: int


@dataclass(frozen=True)
class _Launcher:
    """Names of variables."""

    present: str
    index: str
    count: str
    index_on_host: str


_LAUNCHERS = (
    # In a batch script itself there is no step, and the script is one process whatever it asks for.
    _Launcher("SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    _Launcher(
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
    ),
)


def launched(environment: Mapping[str, str]) -> Launched | None:
    """Which of several processes this is, or None if it is the only one."""
    for names in _LAUNCHERS:
        try:
            index, count, on_host = (
                int(environment[name]) for name in (names.index, names.count, names.index_on_host)
            )
        except (KeyError, ValueError):
            continue
        if names.present in environment and 0 <= index < count > 1:
            return Launched(index, count, on_host)
    return None


def has_the_host_for_itself(environment: Mapping[str, str]) -> bool:
    """Whether Slurm or Open MPI started one process on this host, and nobody chose its devices."""
    if "JAX_LOCAL_DEVICE_IDS" in environment:
        return False
    for processes, hosts in _ONE_PER_HOST:
        if processes in environment:
            return environment[processes] == (environment.get(hosts) if hosts else "1")
    return False


def own_gpus(environment: Mapping[str, str]) -> str | None:
    """The GPUs of a process that shares its host, as CUDA counts those that it may see.

    One for each process; None where all that it sees are its own.
    """
    if chosen := environment.get("JAX_LOCAL_DEVICE_IDS"):
        return chosen
    here = launched(environment)
    if here is None or has_the_host_for_itself(environment):
        return None
    seen = [one for one in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    divided_already = seen and here.index_on_host >= len(seen)
    return None if divided_already or len(seen) == 1 else str(here.index_on_host)
