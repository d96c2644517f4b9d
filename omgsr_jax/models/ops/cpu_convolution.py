"""3 x 3 convolutions on CPUs, where there are faster ways than XLA's own.

Which way pays was measured on two x86 cores; see docs/benchmarks.md.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from . import direct, small_winograd, winograd
from .direct import Padding

Convolution = Callable[..., Array]  # b h w c, 3 3 c o -> b h w o

# Pixels of all images, and channels in and out.
_WINOGRAD_PIXELS, _WINOGRAD_CHANNELS = 32 * 32, 32  # from here on
# Up to here, and from here on, in small tiles.
_SMALL_PIXELS, _SMALL_CHANNELS = 64 * 128, 128
_PATCHES_PIXELS, _PATCHES_CHANNELS = 16 * 16, 512  # up to here; from here on
_WITH_HALO = ((0, 0), (1, 1))  # the padding of rows that come with their neighbours
_NARROW_CHANNELS = 192  # up to here a kernel's gradient is three matrix products


def way(x: Array, kernel: Array, padding: Padding, stride: int) -> Convolution | None:
    """A function that convolves like this, with faster gradients than XLA's, if any."""
    if (padding, stride) == (_WITH_HALO, 1) and takes(x, kernel):
        rows = x[:, 1:-1]
        found = faster(rows, kernel)
        return None if found in (None, through_patches) else partial(found, with_halo=True)
    (before, after), columns = padding
    if (before, after) != columns or after != 1 or not takes(x, kernel):
        return None
    if (stride, before) == (1, 1):
        return convolve
    if stride == 2 and before <= 1 and not any(n % 2 for n in x.shape[1:3]):
        return partial(halve, before)
    return None


def beats_xla(x: Array, kernel: Array) -> bool:
    """Is the forward pass of `convolve` faster than XLA's?"""
    return takes(x, kernel) and faster(x, kernel) is not None


def takes(x: Array, kernel: Array) -> bool:
    """Are `x` (b h w c) and `kernel` (h w c o) what `convolve` and `halve` are for?"""
    whole = kernel.shape[:3] == (3, 3, x.shape[-1])
    return whole and x.dtype == kernel.dtype == jnp.float32


@jax.custom_vjp
def convolve(x: Array, kernel: Array) -> Array:  # b h w c, 3 3 c o -> b h w o
    """`x` (fp32) under `kernel` with padding 1, and both gradients, in the fastest way."""
    return (faster(x, kernel) or direct.convolve)(x, kernel)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return convolve(x, kernel), (x, kernel)


def _backward(kept: tuple[Array, Array], d_out: Array) -> tuple[Array, Array]:
    x, kernel = kept
    if faster(x, kernel) is through_patches:  # whose derivative leaves large kernels as they lie
        return jax.vjp(through_patches, x, kernel)[1](d_out)
    d_x = convolve(d_out, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    if kernel.shape[-1] <= _NARROW_CHANNELS:
        return d_x, _gradient_of_narrow_kernel(x, d_out)
    _, pull_back = jax.vjp(lambda kernel: direct.convolve(x, kernel), kernel)
    return d_x, *pull_back(d_out)


convolve.defvjp(_forward, _backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def halve(before: int, x: Array, kernel: Array) -> Array:  # b h w c, 3 3 c o -> b h/2 w/2 o
    """`x` (fp32, of even height and width) under `kernel` with stride 2.

    The padding is `before` (0 or 1) above and left, and 1 below and right. XLA's gradient by `x`
    multiplies with the zeros between the output's pixels.
    """
    return direct.convolve(x, kernel, ((before, 1),) * 2, stride=2)


def _forward_halve(before: int, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return halve(before, x, kernel), (x, kernel)


def _backward_halve(before: int, kept: tuple[Array, Array], d_out: Array) -> tuple[Array, Array]:
    x, kernel = kept
    turned = kernel.swapaxes(2, 3)
    taps, paddings = zip(*(_taps_that_meet(parity, before) for parity in (0, 1)), strict=True)
    d_x = _interleaved(
        [
            [
                direct.convolve(d_out, turned[jnp.array(rows)][:, jnp.array(columns)], (top, left))
                for columns, left in zip(taps, paddings, strict=True)
            ]
            for rows, top in zip(taps, paddings, strict=True)
        ]
    )
    if kernel.shape[-1] <= _NARROW_CHANNELS:
        apart = lax.pad(d_out, 0.0, ((0, 0, 0), (0, 1, 1), (0, 1, 1), (0, 0, 0)))
        return d_x, _gradient_of_narrow_kernel(x, apart, before)
    _, pull_back = jax.vjp(
        lambda kernel: direct.convolve(x, kernel, ((before, 1),) * 2, stride=2), kernel
    )
    return d_x, *pull_back(d_out)


def _taps_that_meet(parity: int, before: int) -> tuple[list[int], tuple[int, int]]:
    """Which of a kernel's three taps see an even (0) or odd (1) pixel when they go by twos.

    In the order of the output's pixels that they see it from; and the padding for these.
    """
    offsets = {
        (parity + before - tap) // 2: tap for tap in range(3) if not (parity + before - tap) % 2
    }
    order = sorted(offsets)
    return [offsets[offset] for offset in order], (-order[0], order[-1])


halve.defvjp(_forward_halve, _backward_halve)


def convolve_doubled(x: Array, kernel: Array) -> Array:  # b h w c, 3 3 c o -> b 2h 2w o
    """A 3 x 3 convolution of `x` with every pixel doubled, with 4/9 of its products.

    A 3 x 3 window over repeated pixels sees 2 x 2 different ones. Which, and with which sums of
    weights, depends on whether the output's row and column are even or odd.
    """
    rows = [
        [
            direct.convolve(x, folded.astype(x.dtype), ((1 - i, i), (1 - j, j)))
            for j, folded in enumerate(_fold(half, axis=1))
        ]
        for i, half in enumerate(_fold(kernel.astype(jnp.float32), axis=0))
    ]
    return _interleaved(rows)


def _fold(kernel: Array, axis: int) -> tuple[Array, Array]:
    """Three weights over repeated pixels to two over the pixels: for even and for odd outputs."""
    first, middle, last = jnp.split(kernel, 3, axis)
    return (
        jnp.concatenate([first, middle + last], axis),
        jnp.concatenate([first + middle, last], axis),
    )


def _interleaved(phases: list[list[Array]]) -> Array:  # 2 2 of b h w c -> b 2h 2w c
    """One image from what stands in its even and odd rows, and there in even and odd columns."""
    y = jnp.stack([jnp.stack(columns, axis=3) for columns in phases], axis=2)  # b h 2 w 2 c
    b, h, _, w, _, c = y.shape
    return y.reshape(b, 2 * h, 2 * w, c)


def faster(x: Array, kernel: Array) -> Convolution | None:
    """A function that computes what `convolve` does faster than XLA, if any."""
    b, h, w, _ = x.shape
    pixels, channels = b * h * w, min(kernel.shape[2:])
    if pixels <= _PATCHES_PIXELS and channels >= _PATCHES_CHANNELS:
        return through_patches
    # Winograd's sums lose some digits: not where the highest precision is asked for.
    exact = jax.config.values["jax_default_matmul_precision"] == "highest"
    if pixels < _WINOGRAD_PIXELS or channels < _WINOGRAD_CHANNELS or exact:
        return None
    small = pixels <= _SMALL_PIXELS and channels >= _SMALL_CHANNELS
    if winograd.fits(h, w) and not small:
        return winograd.convolve
    return small_winograd.convolve if small_winograd.fits(h, w) else None


def through_patches(x: Array, kernel: Array) -> Array:  # b h w c, 3 3 c o -> b h w o
    """One matrix product with the 3 x 3 surroundings of every pixel."""
    _, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(9 * c, -1)


def _gradient_of_narrow_kernel(x: Array, d_out: Array, before: int = 1) -> Array:
    """A matrix product for each row of the kernel: the output's few channels around all pixels.

    From `x` (b h w c), padded by `before` above and left, and `d_out` (b h w o): 3 3 c o.
    """
    b, h, w, c = x.shape
    # Channels first before they are many: XLA would transpose the larger side of the product.
    few = jnp.moveaxis(d_out, 3, 0)
    margin = (2 - before, before)
    few = jnp.pad(few, ((0, 0), (0, 0), margin, margin))  # o b h+2 w+2

    def of_row(top: int) -> Array:
        places = jnp.stack([few[:, :, top : top + h, left : left + w] for left in (2, 1, 0)])
        places = lax.optimization_barrier(places)  # 3 o b h w
        return places.reshape(-1, b * h * w) @ x.reshape(-1, c)

    d_kernel = jnp.stack([of_row(top) for top in (2, 1, 0)])  # 3 3o c
    return d_kernel.reshape(3, 3, -1, c).swapaxes(2, 3)
