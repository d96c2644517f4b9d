"""2-D convolutions: the one place that chooses how they are computed.

| platform | way | when |
|---|---|---|
| CPU | Winograd's algorithm or one matrix product; other gradients | 3 x 3, fp32, one group |
| CPU | four 2 x 2 convolutions, one for each phase | every pixel stands there twice |
| TPU | strips of rows side by side in the batch | eight strips divide the rows |
| TPU | all four phases in one of these | every pixel stands there twice, and there are many |
| any | XLA's own | always |

The platform is the one that the program is lowered for.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from . import cpu_convolution, direct, tpu_strips
from .direct import Padding


@jax.named_scope("convolve")
def convolve(
    x: Array, kernel: Array, bias: Array | None = None, *, stride: int = 1, padding: Padding
) -> Array:
    """`x` under `kernel`, plus `bias`, in the kernel's dtype.

    Args:
        x: b h w c.
        kernel: h w c/groups o; every group of its outputs sees its own group of channels only.
        bias: o.
        padding: zeros around `x`, ((top, bottom), (left, right)).

    Returns:
        b h' w' o.
    """
    x = x.astype(kernel.dtype)
    ways = {"default": _biased(partial(direct.convolve, padding=padding, stride=stride))}
    if on_cpu := cpu_convolution.way(x, kernel, padding, stride):
        ways["cpu"] = _biased(on_cpu)
    if tpu_strips.takes(x, kernel, padding, stride):
        ways["tpu"] = partial(tpu_strips.convolve, padding=padding, stride=stride)
    return lax.platform_dependent(x, kernel, bias, **ways)


@jax.named_scope("convolve_doubled")
def convolve_doubled(x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """`doubled(x)` under a 3 x 3 kernel with padding 1, plus `bias`, in the kernel's dtype.

    b h w c, 3 3 c o, o -> b 2h 2w o
    """
    x = x.astype(kernel.dtype)
    large, padding = doubled(x), ((1, 1), (1, 1))
    if cpu_convolution.beats_xla(large, kernel):
        return convolve(large, kernel, bias, padding=padding)
    ways = {
        "cpu": _biased(cpu_convolution.convolve_doubled),
        "default": _biased(lambda x, kernel: direct.convolve(doubled(x), kernel, padding)),
    }
    if tpu_strips.takes_doubled(x, kernel):
        ways["tpu"] = tpu_strips.convolve_doubled
    elif tpu_strips.takes(large, kernel, padding, stride=1):
        ways["tpu"] = lambda x, kernel, bias: tpu_strips.convolve(
            doubled(x), kernel, bias, padding=padding
        )
    return lax.platform_dependent(x, kernel, bias, **ways)


def _biased(way: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    return lambda x, kernel, bias: direct.plus(way(x, kernel), bias)


def doubled(x: Array) -> Array:  # b h w c -> b 2h 2w c
    """Every pixel twice in height and in width."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)
