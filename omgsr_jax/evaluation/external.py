"""Metrics of the `pyiqa` package (Chen & Mo, IQA-PyTorch), which the compared papers call.

It serves for what has no implementation here, and to check what has. Optional: torch is imported
only when one of these is prepared.
"""

from typing import Any

import numpy as np

from .errors import UnavailableError

INSTALL = "pip install 'omgsr-jax[iqa]'"


class ByPyiqa:
    """One of its metrics: uint8 outputs and references `b h w 3` -> `b`."""

    def __init__(self, name: str, **options: Any):
        self._metric = _create(name, **options)

    def __call__(self, sr: np.ndarray, hr: np.ndarray) -> np.ndarray:
        # One by one, as the papers' script does: some of these networks look at the whole batch.
        with_reference = self._metric.metric_mode == "FR"
        scores = [
            self._metric(_tensor(image), *([_tensor(reference)] if with_reference else []))
            for image, reference in zip(sr, hr, strict=True)
        ]
        return np.array([float(score) for score in scores])


def _tensor(image: np.ndarray) -> Any:  # h w 3 -> 1 3 h w, in [0, 1]
    import torch

    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None] / 255


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
