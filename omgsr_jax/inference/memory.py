"""Whether the VAE can take an image whole."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from ..generator import AnyVAEConfig
from ..weights import PRECISIONS
from .sizes import Size

STRIP = 2**19  # pixels of a strip of rows, where it can not
_MAPS = 2


@dataclass(frozen=True)
class Budget:
    """Bytes on one device for the networks' intermediate results, and what a pixel takes of them.

    Most is needed in the decoder's last block: there, features of the two widest resolutions'
    channels meet at the image's resolution. 1.7 such maps were counted at once for TPUs (at 2048 x
    2048 px), 2.0 for CPUs.
    """

    available: float
    per_pixel: float

    @classmethod
    def of(cls, mesh: Mesh, vae: AnyVAEConfig, precision: str) -> "Budget":
        dtype = PRECISIONS["bf16" if precision == "int8" else precision]
        width = jnp.dtype(dtype).itemsize
        return cls(_available(mesh), _MAPS * width * vae.channels_per_pixel)

    def holds(self, size: Size, batch: int) -> bool:
        return batch * size[0] * size[1] * self.per_pixel <= self.available


def _available(mesh: Mesh) -> float:
    device: Any = mesh.devices.flat[0]
    statistics = device.memory_stats() or {}
    if "bytes_limit" in statistics:
        return 0.8 * (statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    return 0.6 * available_on_host() / mesh.size


def available_on_host(meminfo: Path = Path("/proc/meminfo")) -> float:
    """Bytes of memory that could be had, counting what only caches files (Linux tells)."""
    if meminfo.exists():
        amounts = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return 1024 * float(amounts["MemAvailable"].removesuffix("kB"))
    return 7e9
