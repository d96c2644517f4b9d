"""Matrix products: with a factor of low rank, as adapters have them, and of features in parts."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec

from . import rows

_FEATURES = "tensor"


@jax.custom_vjp
def narrow_product(x: Array, factor: Array) -> Array:  # ... c, c o -> ... o; one of c, o is small
    """`x @ factor`, whose gradients never transpose more than the rank's few columns.

    XLA on CPUs transposes the left side of a product over rows, however wide it is.
    """
    return x @ factor


def _forward(x: Array, factor: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ factor, (x, factor)


def _backward(kept: tuple[Array, Array], d_out: Array) -> tuple[Array, Array]:
    x, factor = kept
    rows, d_rows = (y.reshape(-1, y.shape[-1]) for y in (x, d_out))
    x_is_narrow = factor.shape[0] < factor.shape[1]
    d_factor = rows.T @ d_rows if x_is_narrow else (d_rows.T @ rows).T
    return d_out @ factor.T, d_factor


narrow_product.defvjp(_forward, _backward)


def product_of_parts(parts: Sequence[Array], kernel: Array) -> Array:
    """`concatenate(parts, -1) @ kernel`: ... c_1, ... c_2, (c_1+c_2) o -> ... o

    Devices that divide the features of each part have others of the whole: they would exchange all
    of them. So there the shares of a device are put together, and the kernel's rows with them.
    """
    widths = [part.shape[-1] for part in parts]
    devices = rows.devices(_FEATURES)
    if devices == 1 or any(width % devices for width in widths):
        return jnp.concatenate(parts, axis=-1) @ kernel
    of_parts = jnp.split(kernel, [sum(widths[:i]) for i in range(1, len(widths))])
    by_device = PartitionSpec(_FEATURES, None)
    kernel = lax.with_sharding_constraint(rows.dealt(of_parts, 0, devices), by_device)
    return rows.dealt(parts, parts[0].ndim - 1, devices) @ kernel
