"""How programs are compiled for a platform, where JAX's defaults are not for us."""

from jax.sharding import Mesh

# By default the compiler for CPUs begins all that can begin: up to three times the memory, and more
# time.
_OPTIONS = {"cpu": {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}}


def compiler_options(mesh: Mesh) -> dict[str, str] | None:
    """For programs that run on the devices of `mesh`."""
    return _OPTIONS.get(mesh.devices.flat[0].platform)
