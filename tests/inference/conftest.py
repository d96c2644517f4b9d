"""Photographs to upscale."""

import numpy as np
from PIL import Image


def photo(height: int = 16, width: int = 16, channels: int = 3, seed: int = 0) -> np.ndarray:
    """uint8 with structure at several scales."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, channels))
    for cells in (2, 5, 11):
        coarse = rng.uniform(-1, 1, (cells, cells, channels))
        for c in range(channels):
            plane = Image.fromarray(coarse[..., c].astype(np.float32))
            image[..., c] += np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(127.5 + 50 * image, 0, 255).astype(np.uint8)
