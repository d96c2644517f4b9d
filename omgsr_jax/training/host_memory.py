"""On CPUs a step gets the memory of the step before it.

XLA asks for all of a step's memory when the step begins, and gives it back at its end. So large a
piece the C library returns to the kernel, which hands out every page anew, and cleared: a fifth of
the time of a step. glibc can be told to keep it, but keeps the main thread's only.
"""

import ctypes
import platform

import jax

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # as malloc.h numbers mallopt's parameters


def keep() -> None:
    """Steps on CPUs run in the main thread, and what they free stays with the process.

    For programs that do nothing but train. To be called behind `distributed.join` and before
    anything else of JAX. Other devices' steps, and other C libraries' memory, stay as they are.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if jax.default_backend() == "cpu" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, -1)
