"""Matrix products with a factor of low rank, as adapters have them."""

import jax
from jax import Array


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
