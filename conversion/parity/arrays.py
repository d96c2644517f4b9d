"""How far two arrays are apart, and arrays in PyTorch's order of axes and back."""

from typing import Any

import numpy as np


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """||ours - theirs|| / ||theirs||, in float64."""
    difference = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(np.asarray(theirs, np.float64)))


def psnr(ours: np.ndarray, theirs: np.ndarray, peak: float = 2.0) -> float:
    """Peak signal-to-noise ratio in dB; images in [-1, 1] have a peak of 2."""
    difference = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    return float(20 * np.log10(peak) - 10 * np.log10(np.mean(difference**2) + 1e-30))


def to_nhwc(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.element_size() < 4:  # NumPy has no bf16 of its own
        tensor = tensor.float()
    return tensor.numpy().transpose(0, 2, 3, 1)


def to_nchw(array: Any) -> Any:
    import torch

    # In PyTorch's own layout: its group norm loses digits on channels-last tensors.
    nchw = np.asarray(array, np.float32).transpose(0, 3, 1, 2)
    return torch.from_numpy(nchw.copy(order="C"))
