"""The discriminators: trained heads on the feature maps of a frozen backbone.

v1 (Fig. 5 of the paper): DINOv2 at 518 pixels, two spatial levels and a token level.
v2 (the revised paper): the first three stages of DINOv3-ConvNeXt, a tower on each.
Ours, where no pre-trained network is at hand: a U-Net that judges every pixel.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax import Array

from .features import FeatureBackbone, blur_pool
from .layers import Conv, Linear, Rngs
from .ops.resize import resize_area
from .spectral_norm import SpectralNorm, SpectralVector

_SLOPE = 0.2

# v2: per level, what each convolution of the tower does to the channels, and its stride. A blur
# pooling before each convolution halves the resolution as well. The layout for 64 pixels is ours,
# for models that train in minutes.
_Tower = tuple[tuple[float, int], ...]
_TOWERS: dict[int, tuple[_Tower, ...]] = {
    64: (((1, 1),), ((1, 1),), ((1, 1),)),
    512: (
        ((0.5, 2), (1, 2), (1, 2)),
        ((0.5, 1), (0.5, 2), (1, 2)),
        ((0.5, 1), (0.5, 1), (0.5, 2)),
    ),
    1024: (
        ((0.5, 1), (1, 2), (1, 2), (1, 2)),
        ((0.5, 1), (0.5, 1), (1, 2), (1, 2)),
        ((0.5, 1), (0.5, 1), (0.5, 1), (1, 2)),
    ),
}


@dataclass(frozen=True)
class TokenHeadsConfig:
    """v1's heads. `channels` are those of the backbone's maps."""

    channels: int = 768
    width: int = 128
    levels: tuple[int, ...] = (-8, -4, -1)
    # The backbone sees square images of this size: others are resized by area.
    image_size: int | None = 518


@dataclass(frozen=True)
class TowerHeadsConfig:
    """v2's heads. `layout` is the training resolution that the towers were laid out for."""

    channels: tuple[int, ...] = (192, 384, 768)
    layout: int = 512
    levels: tuple[int, ...] = (0, 1, 2)
    image_size: int | None = None


@dataclass(frozen=True)
class UNetHeadsConfig:
    """A U-Net that judges every pixel of an image, as Real-ESRGAN's does."""

    channels: tuple[int, ...] = (3,)
    width: int = 24
    levels: tuple[int, ...] = (0,)
    image_size: int | None = None


HeadsConfig = TokenHeadsConfig | TowerHeadsConfig | UNetHeadsConfig


class Blur(nnx.Module):
    def __init__(self, *, stride: int = 2, padding: int = 1):
        self.stride = stride
        self.padding = padding

    def __call__(self, x: Array) -> Array:
        return blur_pool(x, stride=self.stride, padding=self.padding)


class LeakyReLU(nnx.Module):
    def __call__(self, x: Array) -> Array:
        return jax.nn.leaky_relu(x, _SLOPE)


class TokenHeads(nnx.Module):
    """Two spatial levels, then a level that judges every token of the last map by itself."""

    def __init__(self, config: TokenHeadsConfig, *, rngs: Rngs):
        c, width = config.channels, config.width
        spatial = (
            [
                Blur(stride=1, padding=2),
                SpectralNorm(Conv(c, width, 3, stride=2, rngs=rngs), rngs=rngs),
                LeakyReLU(),
                Blur(stride=1),
                SpectralNorm(Conv(width, 1, 1, stride=2, rngs=rngs), rngs=rngs),
            ]
            for _ in config.levels[:-1]
        )
        token = [SpectralNorm(Linear(c, width, rngs=rngs), rngs=rngs), LeakyReLU()]
        self.decoder = nnx.List(nnx.List(layers) for layers in (*spatial, token))
        self.out = SpectralNorm(Linear(width, 1, rngs=rngs), rngs=rngs)

    def __call__(self, maps: list[Array], *, train: bool) -> list[Array]:
        """One map of logits (b h w 1) per level."""
        *logits, hidden = (
            _through(layers, x, train) for layers, x in zip(self.decoder, maps, strict=True)
        )
        return [*logits, self.out(hidden, train=train)]


class LevelHeads(nnx.Module):
    """Layers of its own for each level."""

    decoders: nnx.List

    def __call__(self, maps: list[Array], *, train: bool) -> list[Array]:
        """One map of logits (b h w 1) per level."""
        return [_through(layers, x, train) for layers, x in zip(self.decoders, maps, strict=True)]


class TowerHeads(LevelHeads):
    """A tower of blurred, strided convolutions on each level."""

    def __init__(self, config: TowerHeadsConfig, *, rngs: Rngs):
        self.decoders = nnx.List(
            nnx.List(_tower(c, steps, rngs))
            for c, steps in zip(config.channels, _TOWERS[config.layout], strict=True)
        )


def _tower(c_in: int, steps: _Tower, rngs: Rngs) -> list[nnx.Module]:
    layers: list[nnx.Module] = []
    for ratio, stride in steps:
        c_out = int(c_in * ratio)
        conv = Conv(c_in, c_out, 3, stride=stride, padding=1, rngs=rngs)
        layers += [Blur(), SpectralNorm(conv, rngs=rngs), LeakyReLU()]
        c_in = c_out
    return [*layers, Blur(), SpectralNorm(Conv(c_in, 1, 1, rngs=rngs), rngs=rngs)]


class UNetHeads(nnx.Module):
    """A logit for every pixel (b h w 1), of images whose sides are multiples of 8."""

    def __init__(self, config: UNetHeadsConfig, *, rngs: Rngs):
        (c_in,), w = config.channels, config.width

        def conv(c_in: int, c_out: int, size: int = 3, stride: int = 1) -> SpectralNorm:
            layer = Conv(c_in, c_out, size, stride=stride, padding=1, bias=False, rngs=rngs)
            return SpectralNorm(layer, rngs=rngs)

        self.first = Conv(c_in, w, 3, padding=1, rngs=rngs)
        self.down = nnx.List(conv(w * 2**i, w * 2 ** (i + 1), 4, 2) for i in range(3))
        self.up = nnx.List(conv(w * 2 ** (i + 1), w * 2**i) for i in reversed(range(3)))
        self.refine = nnx.List(conv(w, w) for _ in range(2))
        self.last = Conv(w, 1, 3, padding=1, rngs=rngs)

    def __call__(self, maps: list[Array], *, train: bool) -> list[Array]:
        (x,) = maps
        x = jax.nn.leaky_relu(self.first(x), _SLOPE)
        skips = []
        for layer in self.down:
            skips.append(x)
            x = jax.nn.leaky_relu(layer(x, train=train), _SLOPE)
        for layer in self.up:
            b, h, w, c = x.shape
            x = jax.image.resize(x, (b, 2 * h, 2 * w, c), "bilinear")
            x = jax.nn.leaky_relu(layer(x, train=train), _SLOPE) + skips.pop()
        for layer in self.refine:
            x = jax.nn.leaky_relu(layer(x, train=train), _SLOPE)
        return [self.last(x)]


def _through(layers: Iterable[nnx.Module], x: Array, train: bool) -> Array:
    for layer in layers:
        x = layer(x, train=train) if isinstance(layer, SpectralNorm) else layer(x)
    return x


_HEADS: dict[type, Any] = {
    TokenHeadsConfig: TokenHeads,
    TowerHeadsConfig: TowerHeads,
    UNetHeadsConfig: UNetHeads,
}


class Discriminator(nnx.Module):
    """Is an image real? Logits at several depths of a backbone that stays as it is."""

    def __init__(
        self,
        backbone: FeatureBackbone,
        config: HeadsConfig,
        *,
        rngs: Rngs,
    ):
        self.backbone = backbone
        self.heads = _HEADS[type(config)](config, rngs=rngs)
        self.config = config

    def __call__(self, x: Array, *, train: bool) -> list[Array]:
        """Images (b h w 3, in [-1, 1]), or latents, to one map of logits (b h w 1) per level.

        `train` advances the power iterations of the heads.
        """
        size = self.config.image_size
        if size is not None and x.shape[1:3] != (size, size):
            x = resize_area(x, (size, size))
        maps = self.backbone.features(x)
        return self.heads([maps[level] for level in self.config.levels], train=train)


class DiscriminatorParts(NamedTuple):
    """A discriminator taken apart by what happens to each part in training."""

    graph: nnx.GraphDef
    heads: nnx.State  # trained
    spectral: nnx.State  # handed on from forward to forward
    backbone: nnx.State  # frozen

    def merge(self) -> Discriminator:
        """The whole of it again, whose forwards leave these parts as they are."""
        return nnx.merge(self.graph, self.heads, self.spectral, self.backbone, copy=True)


def take_apart(discriminator: Discriminator) -> DiscriminatorParts:
    parts: Any = nnx.split(discriminator, _is_head, SpectralVector, ...)
    return DiscriminatorParts(*parts)


def _is_head(path: Sequence[Any], leaf: Any) -> bool:
    return path[0] == "heads" and isinstance(leaf, nnx.Param)
