"""What the perceptual networks share: their interface, the range of their input, their pooling.

Anything with `features` can be looked through by a loss or a discriminator: VGG16, AlexNet, DINOv2,
DINOv3-ConvNeXt, the encoder of a frozen VAE, and the pixels themselves. A generator shows latents,
by what its backbone makes of them.
"""

import operator
from functools import reduce
from typing import Protocol

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

Colour = tuple[float, float, float]

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
# The published code subtracts CLIP's mean from DINOv2's input, and divides by ImageNet's deviation.
CLIP_MEAN: Colour = (0.48145466, 0.4578275, 0.40821073)

_BINOMIAL = (0.125, 0.375, 0.375, 0.125)
_HANN = (0.25, 0.5, 0.25)


class FeatureBackbone(Protocol):
    """A network that is looked through, not at."""

    def features(self, x: Array) -> list[Array]:
        """Images (b h w 3, in [-1, 1]) to feature maps (b h' w' c), in the order of their depth."""


class Pixels(nnx.Module):
    """A feature backbone that shows the image itself: the heads look for themselves."""

    def features(self, x: Array) -> list[Array]:
        """Images (b h w 3, in [-1, 1]) as they are."""
        return [x.astype(jnp.float32)]


def normalized(x: Array, mean: Colour = IMAGENET_MEAN) -> Array:
    """Images in [-1, 1] as networks trained on ImageNet expect them, fp32."""
    return (x.astype(jnp.float32) * 0.5 + 0.5 - jnp.asarray(mean)) / jnp.asarray(IMAGENET_STD)


def max_pool(x: Array, *, window: int = 2) -> Array:
    """The largest value of every `window` x `window` pixels, two pixels apart: b h w c."""
    return lax.reduce_window(
        x, -jnp.inf, lax.max, (1, window, window, 1), (1, 2, 2, 1), padding="VALID"
    )


def l2_pool(x: Array, *, stride: int = 2) -> Array:
    """The smoothed energy of every channel, as DISTS pools: b h w c."""
    energy = jnp.square(x.astype(jnp.float32))
    for axis in (1, 2):
        energy = filtered(energy, _HANN, axis=axis, stride=stride, padding=1)
    return jnp.sqrt(energy + 1e-12).astype(x.dtype)  # at 0, the root alone has no gradient


def blur_pool(x: Array, *, stride: int = 2, padding: int = 1) -> Array:
    """`x` behind a low-pass filter that lets it be subsampled without aliasing: b h w c."""
    y = x.astype(jnp.float32)
    for axis in (1, 2):
        y = filtered(y, _BINOMIAL, axis=axis, stride=stride, padding=padding)
    return y.astype(x.dtype)


def filtered(
    x: Array, taps: tuple[float, ...], *, axis: int, stride: int = 1, padding: int
) -> Array:
    """`x` correlated with `taps` along one axis, on zero padding."""
    x = jnp.pad(x, [(padding, padding) if i == axis else (0, 0) for i in range(x.ndim)])
    end = x.shape[axis] - len(taps) + 1
    shifted = (
        tap * lax.slice_in_dim(x, i, end + i, stride=stride, axis=axis)
        for i, tap in enumerate(taps)
    )
    return reduce(operator.add, shifted)
