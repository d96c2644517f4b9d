"""Metrics of the `pyiqa` package (Chen & Mo, IQA-PyTorch), which the compared papers call.

It serves for what has no implementation here, and to check what has. Optional: torch is imported
only when one of these is prepared.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import UnavailableError

INSTALL = "pip install 'omgsr-jax[iqa]'"


def prepare(name: str, **options: Any) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """pyiqa's metric `name` as a function of uint8 outputs and references `b h w 3` -> `b`."""
    metric = _create(name, **options)
    import torch

    def tensor(image: np.ndarray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None] / 255

    def score(sr: np.ndarray, hr: np.ndarray) -> np.ndarray:
        # One by one, as the papers' script does: some of these networks look at the whole batch.
        with_reference = metric.metric_mode == "FR"
        scores = [
            metric(tensor(image), tensor(reference)) if with_reference else metric(tensor(image))
            for image, reference in zip(sr, hr, strict=True)
        ]
        return np.array([float(value) for value in scores])

    return score


def _create(name: str, **options: Any) -> Any:
    try:
        import pyiqa
    except ImportError as error:
        if error.name == "pyiqa":
            raise UnavailableError(
                f"computed by pyiqa, which is not installed: {INSTALL}"
            ) from None
        raise UnavailableError(f"computed by pyiqa, which cannot be imported: {error}") from error
    try:
        return pyiqa.create_metric(name, **options)
    except Exception as error:  # mostly weights that cannot be fetched, by any of its downloaders
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UnavailableError(f"pyiqa could not prepare {name}: {reason[0]}") from error
