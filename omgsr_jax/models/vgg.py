"""VGG16's convolutions, as LPIPS and DISTS look through them."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
from flax import nnx
from jax import Array

from .features import max_pool, normalized
from .layers import Conv, Identity, Rngs

Pool = Callable[[Array], Array]


@dataclass(frozen=True)
class VGGConfig:
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)


class VGG(nnx.Module):
    """Stages of 3x3 convolutions with pooling in between; the classifier is left out.

    `layers` is torchvision's `features`, without the pooling at its end.
    """

    def __init__(self, config: VGGConfig, *, rngs: Rngs):
        self.layers: nnx.List = nnx.List([])
        c_in = 3
        for width, depth in zip(config.widths, config.depths, strict=True):
            if self.layers:
                self.layers.append(Identity())  # the pooling
            for _ in range(depth):
                self.layers.append(Conv(c_in, width, 3, padding=1, rngs=rngs))
                self.layers.append(Identity())  # the ReLU
                c_in = width
        self.config = config

    def features(self, x: Array, *, pool: Pool = max_pool) -> list[Array]:
        """The last activation of every stage: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3."""
        x = normalized(x)
        maps = []
        convolutions = (layer for layer in self.layers if isinstance(layer, Conv))
        for stage, depth in enumerate(self.config.depths):
            x = pool(x) if stage else x
            for _ in range(depth):
                x = jax.nn.relu(next(convolutions)(x))
            maps.append(x)
        return maps
