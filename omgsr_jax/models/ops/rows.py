"""One image on several devices in training: each has some of a map's rows, or of the tokens.

What is said here XLA spreads to all that lies between: it exchanges the rows which a convolution
sees beyond its own, and adds up what norms and losses count. Where no devices share an image,
nothing is done.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec

BATCH_AXES = ("data", "fsdp")
SPATIAL = "spatial"
_ANY = PartitionSpec.UNCONSTRAINED


def devices(axis: str = SPATIAL) -> int:
    """How many share an image, or another axis of training's mesh.

    At inference a program divides rows at its ends and takes large maps in strips by itself; its
    meshes have no `fsdp`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    in_training = set(BATCH_AXES) <= set(mesh.axis_names)
    return mesh.shape.get(axis, 1) if in_training else 1


def by_rows(x: Array) -> Array:  # b h ..., b n ...
    """`x` with its second axis divided, if all devices get something of it."""
    return _laid_out(x, SPATIAL) if 1 < devices() <= x.shape[1] else x


def undivided(x: Array) -> Array:  # b h ..., b n ...
    """`x` with all of its second axis on each device."""
    return _laid_out(x, None) if devices() > 1 else x


def gathered(kernel: Array) -> Array:
    """All of a convolution's kernel on each device, where these share an image.

    XLA adds up the products of divided channels more than once if rows are divided too: what comes
    out is a multiple of what should.
    """
    return lax.with_sharding_constraint(kernel, PartitionSpec()) if devices() > 1 else kernel


def _laid_out(x: Array, axis: str | None) -> Array:
    spec = PartitionSpec(_ANY, axis, *(_ANY,) * (x.ndim - 2))
    return lax.with_sharding_constraint(x, spec)


def joined(first: Array, second: Array) -> Array:  # b m ..., b n ... -> b m+n ...
    """Two sequences as one: one after the other, or where devices share them share by share.

    So each device joins what it has. Attention does not ask in which order tokens stand, and what
    belongs to them is joined like them.
    """
    return dealt((first, second), 1, _shares(first.shape[1], second.shape[1]))


def parted(both: Array, m: int) -> tuple[Array, Array]:  # b m+n ... -> b m ..., b n ...
    """The inverse of `joined`, for a first sequence of `m` tokens."""
    shares = _shares(m, both.shape[1] - m)
    split = both.reshape(len(both), shares, -1, *both.shape[2:])
    first, second = jnp.split(split, [m // shares], axis=2)
    shape = len(both), -1, *both.shape[2:]
    return first.reshape(shape), second.reshape(shape)


def _shares(m: int, n: int) -> int:
    count = devices()
    return 1 if m % count or n % count else count


def dealt(parts: Sequence[Array], axis: int, shares: int) -> Array:
    """The parts beside each other along an axis: first a share of each, then the next of each."""
    before, after = parts[0].shape[:axis], parts[0].shape[axis + 1 :]
    split = [part.reshape(*before, shares, -1, *after) for part in parts]
    return jnp.concatenate(split, axis=axis + 1).reshape(*before, -1, *after)
