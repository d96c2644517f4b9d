"""XLA's own convolution: what every other way to convolve must equal."""

from jax import Array, lax

Padding = tuple[tuple[int, int], tuple[int, int]]  # (top, bottom), (left, right)


def convolve(
    x: Array, kernel: Array, padding: Padding = ((1, 1), (1, 1)), stride: int = 1
) -> Array:
    """`x` (b h w c) under `kernel` (h w c/groups o), of the same dtype: b h' w' o."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


def plus(y: Array, bias: Array | None) -> Array:
    return y if bias is None else y + bias
