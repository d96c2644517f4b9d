"""JAX's cache of compiled programs: a later start finds what an earlier one has compiled."""

import os
import sys
from pathlib import Path

import jax

AUTO = "auto"


def keep_compiled_programs(where: str = AUTO) -> None:
    """Keeps compiled programs, unless JAX is told where already.

    Args:
        where: a directory, local or in a bucket, or AUTO for the user's cache directory. With "" no
            programs are kept.
    """
    if not where or jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    directory = str(cache_directory()) if where == AUTO else where
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def cache_directory() -> Path:
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "omgsr-jax"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "omgsr-jax"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "omgsr-jax"
    return Path.home() / ".cache" / "omgsr-jax"
