"""Dv3CD, the revised paper's perceptual loss: DISTS in the features of DINOv3-ConvNeXt."""

from functools import partial

import jax.numpy as jnp
from jax import Array

from ..models.dinov3_convnext import DINOv3ConvNeXt
from ..models.features import l2_pool
from .dists import dissimilarity

_STAGES = 3


def dv3cd(x_p: Array, x_h: Array, backbone: DINOv3ConvNeXt) -> Array:
    """1 - sum_c w (l_c + s_c), with DISTS' texture l and structure s and one weight for all.

    Over the channels of the images in [0, 1] and of the first three stages, each stage L2-pooled
    (without subsampling) before it goes into the next; w = 1 / (2 * number of channels). The
    network sees images at their own size: there are no chunks.
    """
    maps_p, maps_h = _maps(x_p, backbone), _maps(x_h, backbone)
    channels = sum(m.shape[-1] for m in maps_p)
    weight = jnp.full(channels, 1 / (2 * channels))
    return dissimilarity(maps_p, maps_h, weight, weight).mean()


def _maps(x: Array, backbone: DINOv3ConvNeXt) -> list[Array]:
    stages = backbone.features(x, between=partial(l2_pool, stride=1))
    return [x.astype(jnp.float32) * 0.5 + 0.5, *stages[:_STAGES]]
