"""XLA's flags for training on GPUs.

XLA reads XLA_FLAGS when JAX starts its devices, and ends the process where it does not know a flag:
so they are set before, and only where there are GPUs.
"""

import importlib.util
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

FLAGS = {
    # Collectives run beside the arithmetic that does not need them.
    "xla_gpu_enable_latency_hiding_scheduler": "true",
    # Kernels are launched by the graph, not one by one. XLA's own choice at the time of writing.
    "xla_gpu_enable_command_buffer": (
        "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,CONDITIONAL"
    ),
}
_VARIABLE = "XLA_FLAGS"
_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
_PLATFORMS = {"cuda", "gpu"}


def use() -> None:
    """Sets what the user has not set. To be called before JAX starts its devices."""
    if has_gpus(os.environ):
        add_missing(os.environ)


def has_gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> bool:
    """Whether JAX is going to run on NVIDIA's GPUs; it cannot be asked yet."""
    asked = {one for one in environment.get("JAX_PLATFORMS", "").split(",") if one}
    if asked and not asked & _PLATFORMS:
        return False
    installed = any(importlib.util.find_spec(name) for name in _PLUGINS)
    return installed and any(devices.glob("nvidia[0-9]*"))


def add_missing(environment: MutableMapping[str, str]) -> None:
    given = environment.get(_VARIABLE, "").split()
    if given and not given[0].startswith("-"):
        return  # the name of a file with flags, which stands alone
    names = {flag.lstrip("-").partition("=")[0] for flag in given}
    missing = [f"--{name}={value}" for name, value in FLAGS.items() if name not in names]
    environment[_VARIABLE] = " ".join([*given, *missing])
