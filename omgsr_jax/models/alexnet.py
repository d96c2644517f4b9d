"""AlexNet's convolutions, as LPIPS looks through them."""

from dataclasses import dataclass

import jax
from flax import nnx
from jax import Array

from .features import max_pool, normalized
from .layers import Conv, Identity, Rngs


@dataclass(frozen=True)
class AlexNetConfig:
    widths: tuple[int, ...] = (64, 192, 384, 256, 256)


class AlexNet(nnx.Module):
    """Five convolutions; the classifier is left out. `layers` is torchvision's `features`."""

    def __init__(self, config: AlexNetConfig, *, rngs: Rngs):
        c1, c2, c3, c4, c5 = config.widths
        self.layers = nnx.List([
            Conv(3, c1, 11, stride=4, padding=2, rngs=rngs), Identity(), Identity(),  # ReLU, pool
            Conv(c1, c2, 5, padding=2, rngs=rngs), Identity(), Identity(),
            Conv(c2, c3, 3, padding=1, rngs=rngs), Identity(),
            Conv(c3, c4, 3, padding=1, rngs=rngs), Identity(),
            Conv(c4, c5, 3, padding=1, rngs=rngs),
        ])  # fmt: skip

    def features(self, x: Array) -> list[Array]:
        """The activations after each of the five convolutions."""
        x = normalized(x)
        maps: list[Array] = []
        for layer in self.layers:
            if isinstance(layer, Conv):
                x = max_pool(x, window=3) if len(maps) in (1, 2) else x
                x = jax.nn.relu(layer(x))
                maps.append(x)
        return maps
