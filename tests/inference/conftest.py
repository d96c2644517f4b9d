"""Photographs to upscale, and what a program makes of them before it is rounded."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from omgsr_jax import Upscaler
from omgsr_jax.inference.canvases import Canvas, Stage
from omgsr_jax.inference.programs import Item


def canvas_of(stage: Stage, shared: bool) -> Canvas:
    """8 x 8 tiles of latents, 8 pixels each."""
    return Canvas(stage, (8, 8), 8, 8, shared)


def stage_of(height: int, width: int) -> Stage:
    """Of images that are enlarged four times."""
    return Stage((height // 4, width // 4), (height, width), (height, width))


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


def restored(model: Upscaler, x_l: np.ndarray) -> np.ndarray:
    """Images (b h w 3) as the networks restore them: both in [-1, 1], fp32, without colours."""
    (how,) = model.steps(x_l.shape[1:3], scale=1, color="none", batch=len(x_l))
    how = replace(
        how,
        encoding=replace(how.encoding, given="float32"),
        decoding=replace(how.decoding, stored="float32", truncates=False),
    )
    items = [Item(image * 0.5 + 0.5, how.canvas.extent) for image in x_l.astype(np.float32)]
    return model.programs.run(how, items)[0] * 2 - 1


def run_on_devices(count: int, program: str, *arguments: object, cache: Path) -> None:
    """A Python program in a process with so many simulated devices."""
    flags = f"--xla_force_host_platform_device_count={count}"
    subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        env={
            **os.environ,
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
        },
        check=True,
    )
