"""A process for what takes much memory: PyTorch and JAX seldom give theirs back."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any


def in_own_process(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What the function returns; with its process, all its memory goes back to the system."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()
