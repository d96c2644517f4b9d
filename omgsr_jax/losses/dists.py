"""DISTS: the similarity of structure and of texture in deep features."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ..models.features import filtered, l2_pool
from ..models.layers import Rngs, initial
from ..models.vgg import VGG
from .chunks import chunks
from .lpips import WINDOW

_C = 1e-6
_GREY = (0.2989, 0.5870, 0.1140)
# Sobel's two filters, taken apart.
_STEP = (-1.0, 0.0, 1.0)
_SMOOTH = (1.0, 2.0, 1.0)


@dataclass(frozen=True)
class DISTSConfig:
    # Of the image and of all of the backbone's maps.
    channels: int = 1475


class DISTSWeights(nnx.Module):
    """What the texture (alpha) and the structure (beta) of every channel count."""

    def __init__(self, config: DISTSConfig, *, rngs: Rngs):
        self.alpha = nnx.Param(initial(_init, rngs, config.channels))
        self.beta = nnx.Param(initial(_init, rngs, config.channels))

    def normalized(self) -> tuple[Array, Array]:
        """Both, summing to 1 together."""
        alpha, beta = (w[...].astype(jnp.float32) for w in (self.alpha, self.beta))
        total = alpha.sum() + beta.sum()
        return alpha / total, beta / total


def dists(x: Array, y: Array, backbone: VGG, weights: DISTSWeights) -> Array:
    """DISTS of each pair of images: b.

    1 - sum_c (alpha_c l_c + beta_c s_c) over the channels of the images in [0, 1] and of VGG16's
    maps under L2 pooling.
    """
    alpha, beta = weights.normalized()
    return dissimilarity(_maps(x, backbone), _maps(y, backbone), alpha, beta)


def oc_dists(x_p: Array, x_h: Array, backbone: VGG, weights: DISTSWeights) -> Array:
    """DISTS in place of LPIPS in Eq. 14: (1/N) sum_i DISTS(phi_i(x_P), phi_i(x_H))."""
    return dists(chunks(x_p, WINDOW), chunks(x_h, WINDOW), backbone, weights).mean()


def oc_ea_dists(x_p: Array, x_h: Array, backbone: VGG, weights: DISTSWeights) -> Array:
    """The edge-aware variant of the August 2025 code: OC-DISTS of the images and of their edges."""
    edges = oc_dists(_as_image(sobel(x_p)), _as_image(sobel(x_h)), backbone, weights)
    return oc_dists(x_p, x_h, backbone, weights) + edges


def dissimilarity(
    maps_x: list[Array], maps_y: list[Array], alpha: Array, beta: Array
) -> Array:  # lists of b h w c -> b
    """sum_c (alpha_c (1 - l_c) + beta_c (1 - s_c)) over all channels of all maps: b.

    l compares the channels' means (texture), s their covariance (structure):
    l = (2 mx my + c) / (mx^2 + my^2 + c), s = (2 cov + c) / (vx + vy + c). With weights that sum to
    1 this is DISTS' 1 - sum (alpha l + beta s), without the difference of nearly equal numbers:
    1 - l = (mx - my)^2 / (mx^2 + my^2 + c), 1 - s = var(x - y) / (vx + vy + c).
    """
    textures, structures = [], []
    for x, y in zip(maps_x, maps_y, strict=True):
        x, y = x.astype(jnp.float32), y.astype(jnp.float32)
        (mean_x, var_x), (mean_y, var_y) = _moments(x), _moments(y)
        mean_error, var_error = _moments(x - y)
        textures.append(mean_error**2 / (mean_x**2 + mean_y**2 + _C))
        structures.append(var_error / (var_x + var_y + _C))
    return jnp.concatenate(textures, -1) @ alpha + jnp.concatenate(structures, -1) @ beta


def _moments(x: Array) -> tuple[Array, Array]:  # b h w c -> b c, b c
    """Mean and variance over space."""
    mean = x.mean((1, 2))
    return mean, jnp.square(x - mean[:, None, None]).mean((1, 2))


def sobel(x: Array) -> Array:
    """The strength of edges in the luma of images in [-1, 1], as of images in [0, 1]: b h w 1."""
    grey = (x.astype(jnp.float32) * 0.5 + 0.5) @ jnp.asarray(_GREY)  # b h w
    across = filtered(filtered(grey, _STEP, axis=2, padding=1), _SMOOTH, axis=1, padding=1)
    down = filtered(filtered(grey, _STEP, axis=1, padding=1), _SMOOTH, axis=2, padding=1)
    return jnp.sqrt(across**2 + down**2 + 1e-6)[..., None]  # at 0, the root alone has no gradient


def _as_image(edges: Array) -> Array:
    """An edge map as a grey image in the range that losses take."""
    return jnp.repeat(edges, 3, axis=-1) * 2 - 1


def _maps(x: Array, backbone: VGG) -> list[Array]:
    return [x.astype(jnp.float32) * 0.5 + 0.5, *backbone.features(x, pool=l2_pool)]


def _init(key: Array, shape: Sequence[int], dtype: jnp.dtype) -> Array:
    return 0.1 + 0.01 * jax.random.normal(key, shape, dtype)
