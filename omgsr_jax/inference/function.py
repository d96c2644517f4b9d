"""What `Upscaler.upscale` does, for arrays that are on the device already."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .programs import Programs
from .progress import Watch
from .restore import Restoration


class Function:
    """Images on the device (b h w 3, uint8) to restored ones (b H W 3, uint8).

    `apply` is the same as a pure function of weights and images, to be used under JAX's own
    transformations; `weights` are those of the model.
    """

    def __init__(self, programs: Programs, steps: Sequence[Restoration]):
        self.weights = programs.weights
        self._programs, self._steps = programs, steps
        # Here, so that a call moves nothing from the host.
        self._latents = [jnp.array([how.canvas.latents] * how.batch) for how in steps]

    def __call__(self, images: jax.Array) -> jax.Array:
        for how, latents in zip(self._steps, self._latents, strict=True):
            images = jax.device_put(images, self._programs.image_sharding(how))
            latents = jax.device_put(latents, self._programs.image_sharding(how))
            tiles = how.tiles_of([how.canvas.extent])
            images, *_ = self._programs.restored(how, images, latents, tiles=tiles, watch=Watch())
        return images

    def apply(self, weights: Any, images: jax.Array) -> jax.Array:
        for how in self._steps:
            images = self._programs.pure(how)(weights, images)
        return images
