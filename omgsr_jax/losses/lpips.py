"""LPIPS: the distance between deep features, each channel weighted by how people see it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ..models.features import FeatureBackbone
from ..models.layers import Rngs, initial
from .chunks import chunks

WINDOW = 224  # what VGG16 was trained on


@dataclass(frozen=True)
class LPIPSConfig:
    # The channels of the backbone's maps.
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    # The published OC-LPIPS gives images in [0, 1] to a network that expects [-1, 1].
    unit_range: bool = field(default=False, metadata={"stored": False})


class LPIPSHeads(nnx.Module):
    """The weight of every channel at every level."""

    def __init__(self, config: LPIPSConfig, *, rngs: Rngs):
        self.lin = nnx.List(nnx.Param(initial(_init, rngs, c)) for c in config.channels)
        self.unit_range = config.unit_range


def lpips(x: Array, y: Array, backbone: FeatureBackbone, heads: LPIPSHeads) -> Array:
    """LPIPS of each pair of images: b.

    sum over levels of mean_{h w} sum_c w_c (x_c / |x| - y_c / |y|)^2, where |.| runs over channels.
    """
    maps = zip(heads.lin, backbone.features(x), backbone.features(y), strict=True)
    return jnp.stack([_level(weight[...], a, b) for weight, a, b in maps]).sum(0)


def oc_lpips(x_p: Array, x_h: Array, backbone: FeatureBackbone, heads: LPIPSHeads) -> Array:
    """Overlap-Chunked LPIPS, Eq. 14: (1/N) sum_i LPIPS(phi_i(x_P), phi_i(x_H)).

    The windows of the whole batch go through the backbone at once.
    """
    if heads.unit_range:
        x_p, x_h = x_p * 0.5 + 0.5, x_h * 0.5 + 0.5
    return lpips(chunks(x_p, WINDOW), chunks(x_h, WINDOW), backbone, heads).mean()


def feature_distance(x_p: Array, x_h: Array, backbone: FeatureBackbone) -> Array:
    """LPIPS' distance with the same weight for every channel, through any backbone.

    mean over levels of mean_{b h w} |x / |x| - y / |y||^2, from 0 to 4. For models that have no
    pre-trained perceptual network: the encoder of their own VAE is one to look through.
    """
    maps = zip(backbone.features(x_p), backbone.features(x_h), strict=True)
    levels = [jnp.square(_unit_channels(x) - _unit_channels(y)).sum(-1).mean() for x, y in maps]
    return jnp.stack(levels).mean()


def _level(weight: Array, x: Array, y: Array) -> Array:  # c, b h w c, b h w c -> b
    difference = jnp.square(_unit_channels(x) - _unit_channels(y))
    return (difference @ weight.astype(jnp.float32)).mean((1, 2))


def _unit_channels(x: Array) -> Array:
    """`x` divided by its length over channels. Pixels without any feature stay, with gradient 0."""
    x = x.astype(jnp.float32)
    energy = jnp.square(x).sum(-1, keepdims=True)
    is_flat = energy == 0
    length = jnp.where(is_flat, 0.0, jnp.sqrt(jnp.where(is_flat, 1.0, energy)))
    return x / (length + 1e-10)


def _init(key: Array, shape: Sequence[int], dtype: jnp.dtype) -> Array:
    return jnp.full(shape, 1 / shape[0], dtype)
