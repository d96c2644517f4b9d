"""2-D convolutions: the one place that chooses how they are computed.

| platform | way | when |
|---|---|---|
| CPU | Winograd's algorithm or one matrix product; other gradients | 3 x 3, fp32, one group |
| CPU | four 2 x 2 convolutions, one for each phase | every pixel stands there twice |
| any | XLA's own | always |

The platform is the one that the program is lowered for.
"""

from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from . import cpu_convolution, direct
from .direct import Padding


def convolve(x: Array, kernel: Array, *, stride: int = 1, padding: Padding) -> Array:
    """`x` under `kernel`, in the kernel's dtype.

    Args:
        x: b h w c.
        kernel: h w c/groups o; every group of its outputs sees its own group of channels only.
        padding: zeros around `x`, ((top, bottom), (left, right)).

    Returns:
        b h' w' o.
    """
    x = x.astype(kernel.dtype)
    portable = partial(direct.convolve, padding=padding, stride=stride)
    on_cpu = cpu_convolution.way(x, kernel, padding, stride)
    if on_cpu is None:
        return portable(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=portable)


def convolve_doubled(x: Array, kernel: Array) -> Array:  # b h w c, 3 3 c o -> b 2h 2w o
    """`doubled(x)` under a 3 x 3 kernel with padding 1, in the kernel's dtype."""
    x = x.astype(kernel.dtype)
    large, padding = doubled(x), ((1, 1), (1, 1))
    if cpu_convolution.beats_xla(large, kernel):
        return convolve(large, kernel, padding=padding)
    return lax.platform_dependent(
        x,
        kernel,
        cpu=cpu_convolution.convolve_doubled,
        default=lambda x, kernel: direct.convolve(doubled(x), kernel, padding),
    )


def doubled(x: Array) -> Array:  # b h w c -> b 2h 2w c
    """Every pixel twice in height and in width."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)
