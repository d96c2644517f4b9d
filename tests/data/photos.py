"""Photographs for tests: synthetic ones that are always there, and the Kodak suite where it is."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

_ROOT = Path(__file__).resolve().parents[2]
TEST_DATA = Path(os.environ.get("OMGSR_TEST_DATA", _ROOT.parent / "shared" / "data"))


def synthetic_photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """h w 3 uint8 with the 1/f spectrum of photographs, some hard edges and correlated colours."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    amplitude = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    fields = [
        np.fft.irfft2(
            np.fft.rfft2(rng.standard_normal((height, width))) * amplitude, (height, width)
        )
        for _ in range(4)
    ]
    image = np.stack([fields[0] + 0.4 * field for field in fields[1:]], axis=-1)
    image = image / image.std() * 0.18 + 0.5
    for _ in range(6):
        y, x = rng.integers(0, height), rng.integers(0, width)
        image[y : y + height // 4, x : x + width // 5] += rng.uniform(-0.3, 0.3, 3)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def kodak_crops(size: int = 512) -> np.ndarray:
    """n size size 3 uint8, the top left of each Kodak photograph."""
    paths = sorted((TEST_DATA / "kodak24").glob("*.png"))
    return np.stack([np.asarray(Image.open(p).convert("RGB"))[:size, :size] for p in paths])
