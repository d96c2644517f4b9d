"""A tiny model with a process size of 64 px, loaded once; all its programs take seconds."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import omgsr_jax
from conversion.convert import convert


@pytest.fixture(scope="session")
def model_64(tiny_base, tiny_adapter, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("checkpoints") / "model-64"
    convert(str(tiny_base), out, adapter=str(tiny_adapter), process_size=64)
    return out


@pytest.fixture(scope="session")
def upscaler(model_64, compile_cache) -> omgsr_jax.Upscaler:
    return omgsr_jax.load(model_64)


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
