"""Latents moved by less than a patch, against the lattice that transformers leave.

A transformer draws latents in patches, always on the same lattice. Moved by less than a patch they
meet it elsewhere, and what is seen there alone is no property of the image.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax


def sampled_places(key: Array, patch: int) -> Array:
    """A place in the patch, in rows and columns, for each key (b): b 2."""
    return jax.vmap(lambda one: jax.random.randint(one, (2,), 0, patch))(key)


def places(count: int, patch: int) -> Array:
    """The first `count` places in a patch, along its diagonals: n 2."""
    diagonals = [(row, (row + offset) % patch) for offset in range(patch) for row in range(patch)]
    return jnp.array(diagonals[:count])


def moved(one_step: Callable[[Array], Array], z: Array, by: Array, patch: int) -> Array:
    """`one_step` of latents (b h w c) moved down and right by `by` (b 2), and moved back.

    Around them is a margin in which they are mirrored, a patch in all.
    """
    _, h, w, _ = z.shape
    margin = (patch, patch)
    mirrored = jnp.pad(z, ((0, 0), margin, margin, (0, 0)), mode="symmetric")
    found = one_step(_cut(mirrored, patch - by, (h + patch, w + patch)))
    return _cut(found, by, (h, w))


def averaged(one_step: Callable[[Array], Array], z: Array, count: int, patch: int) -> Array:
    """The mean of `moved` over `count` places in the patch. One is `one_step` itself."""
    if count == 1:
        return one_step(z)

    def at(place: Array) -> Array:
        return moved(one_step, z, jnp.broadcast_to(place, (len(z), 2)), patch)

    return lax.map(at, places(count, patch)).mean(0)


def _cut(x: Array, corners: Array, size: tuple[int, int]) -> Array:  # b h w c, b 2
    def one(x: Array, corner: Array) -> Array:
        return lax.dynamic_slice(x, (*corner, 0), (*size, x.shape[-1]))

    return jax.vmap(one)(x, corners)
