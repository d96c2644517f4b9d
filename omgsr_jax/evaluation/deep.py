"""LPIPS and DISTS: distances between the deep features of an output and its reference.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018;
Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity", TPAMI 2022. Both
see whole images at their own size, as in pyiqa.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from .. import perceptual
from ..losses.dists import dists
from ..losses.lpips import lpips
from .errors import UnavailableError

Distance = Callable[[Any, Array, Array], Array]  # networks, images in [-1, 1] (b h w 3) -> b

# The networks of `perceptual.NETWORKS` that a distance looks through, and the distance.
DISTANCES: dict[str, tuple[tuple[str, ...], Distance]] = {
    "lpips": (("alexnet", "lpips_alex"), lambda n, x, y: lpips(x, y, n.alexnet, n.lpips_alex)),
    "lpips_vgg": (("vgg", "lpips_vgg"), lambda n, x, y: lpips(x, y, n.vgg, n.lpips_vgg)),
    "dists": (("vgg", "dists"), lambda n, x, y: dists(x, y, n.vgg, n.dists)),
}


def prepare(
    name: str, directory: str | Path
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:  # uint8 b h w 3 twice -> b
    """A distance, through networks that `omgsr convert --perceptual` wrote to `directory`."""
    parts, distance = DISTANCES[name]
    absent = sorted(set(parts) - set(perceptual.read_card(directory).configs))
    if absent:
        raise UnavailableError(f"{directory} has no {', '.join(absent)}")
    graph, state = nnx.split(perceptual.read(directory, parts))
    scored = jax.jit(partial(_score, distance, graph))
    return lambda sr, hr: np.asarray(scored(state, sr, hr))


def _score(
    distance: Distance, graph: nnx.GraphDef, state: nnx.State, sr: Array, hr: Array
) -> Array:
    networks = nnx.merge(graph, state)

    def one(pair: tuple[Array, Array]) -> Array:
        x, y = (image[None].astype(jnp.float32) / 127.5 - 1 for image in pair)  # 1 h w 3
        return distance(networks, x, y)[0]

    with jax.default_matmul_precision("highest"):
        return jax.lax.map(one, (sr, hr))  # VGG's maps of a batch would take gigabytes
