"""DINOv3's ConvNeXt networks (tiny, small, base and large)."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax import Array

from .features import normalized
from .layers import ACTIVATIONS, Conv, LayerNorm, Linear, Rngs, remat, require_activation


@dataclass(frozen=True)
class DINOv3ConvNeXtConfig:
    hidden_sizes: tuple[int, ...] = (192, 384, 768, 1536)
    depths: tuple[int, ...] = (3, 3, 27, 3)
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        require_activation(self.hidden_act)


class Layer(nnx.Module):
    """A 7x7 convolution of each channel by itself, then an MLP of each pixel by itself."""

    def __init__(self, channels: int, config: DINOv3ConvNeXtConfig, *, rngs: Rngs):
        self.depthwise_conv = Conv(channels, channels, 7, padding=3, groups=channels, rngs=rngs)
        self.layer_norm = LayerNorm(channels, eps=config.layer_norm_eps)
        self.pointwise_conv1 = Linear(channels, 4 * channels, rngs=rngs)
        self.pointwise_conv2 = Linear(4 * channels, channels, rngs=rngs)
        self.gamma = nnx.Param(jnp.full(channels, 1e-6))
        self.activation = config.hidden_act

    def __call__(self, x: Array) -> Array:  # b h w c
        y = self.pointwise_conv1(self.layer_norm(self.depthwise_conv(x)))
        return x + self.gamma[...] * self.pointwise_conv2(ACTIVATIONS[self.activation](y))


class Stage(nnx.Module):
    """The way into a resolution (the stem normalises after its convolution), and its layers."""

    def __init__(self, stage: int, config: DINOv3ConvNeXtConfig, *, rngs: Rngs):
        width, eps = config.hidden_sizes[stage], config.layer_norm_eps
        if stage == 0:
            down = [Conv(3, width, 4, stride=4, rngs=rngs), LayerNorm(width, eps=eps)]
        else:
            c_in = config.hidden_sizes[stage - 1]
            down = [LayerNorm(c_in, eps=eps), Conv(c_in, width, 2, stride=2, rngs=rngs)]
        self.downsample_layers = nnx.List(down)
        self.layers = nnx.List(Layer(width, config, rngs=rngs) for _ in range(config.depths[stage]))

    def __call__(self, x: Array) -> Array:
        for layer in (*self.downsample_layers, *self.layers):
            x = layer(x)
        return x


class DINOv3ConvNeXt(nnx.Module):
    """The four stages; the norm and the pooling that make one vector of an image are left out."""

    def __init__(self, config: DINOv3ConvNeXtConfig, *, remat: bool = False, rngs: Rngs):
        self.stages = nnx.List(
            Stage(stage, config, rngs=rngs) for stage in range(len(config.hidden_sizes))
        )
        self.config = config
        self.remat = remat

    def features(self, x: Array, *, between: Callable[[Array], Array] = lambda x: x) -> list[Array]:
        """The output of every stage (b h/4 w/4 c, b h/8 w/8 c, ...).

        `between` is applied to a stage's output before it is returned and goes into the next one.
        """
        x = normalized(x)
        maps = []
        for stage in self.stages:
            x = between(remat(stage, x) if self.remat else stage(x))
            maps.append(x)
        return maps
