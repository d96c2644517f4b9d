"""Small images and folders of them."""

from pathlib import Path

import numpy as np
from PIL import Image


def photograph(seed: int, height: int, width: int, slope: float = 1) -> np.ndarray:
    """uint8 RGB with the 1/f^slope spectrum of natural images."""
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    f[0, 0] = 1
    noise = rng.standard_normal((height, width, 3)).mean(-1, keepdims=True) * 2
    noise = noise + 0.3 * rng.standard_normal((height, width, 3))
    image = np.fft.ifft2(np.fft.fft2(noise, axes=(0, 1)) / f[..., None] ** slope, axes=(0, 1)).real
    image = (image - image.mean()) / image.std()
    return np.clip(128 + 45 * image, 0, 255).astype(np.uint8)


def save(folder: Path, images: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        Image.fromarray(image).save(folder / name)
    return folder
