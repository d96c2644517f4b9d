"""The search for the mid-timestep t_m at which noisy latents z_t are most like those of LQ images.

Three criteria have been published (docs/timestep.md compares them). Each is a mean over images and
over the noise eps of a function of z_H = E(x_H), z_L = E(x_L) and z_t = a z_H + b eps. As eps is
independent of the images and E[eps^2] = 1, every such mean follows from three numbers of an image:
the search samples no noise, and after encoding, 1000 timesteps cost next to nothing.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from .. import files
from ..errors import InputError
from ..models.pixel_vae import PixelVAE
from ..models.vae import VAE
from ..process import Process
from .picture import Panel, draw

Encode = Callable[[Array], Array]  # images (b h w 3, in [-1, 1]) to latents
Curve = Callable[["Moments", Array, Array], Array]

RESAMPLES = 1000
_CHUNK = 256  # images whose curves are held at once
_CEILING = 1e30  # stands for the infinite SNR of a z_t without noise, which has no mean


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Moments:
    """What a search has to know of an image: means over its latents, one number an image."""

    power: Array  # of z_H^2
    error: Array  # of (z_L - z_H)^2
    cross: Array  # of (z_L - z_H) z_H


def moments(encode: Encode, x_l: Array, x_h: Array) -> Moments:
    """Those of a batch of pairs (b h w 3)."""
    z_h, z_l = encode(x_h), encode(x_l)  # b h/8 w/8 c
    gap, axes = z_l - z_h, tuple(range(1, z_h.ndim))
    return Moments(jnp.square(z_h).mean(axes), jnp.square(gap).mean(axes), (gap * z_h).mean(axes))


def _eq9(m: Moments, a: Array, b: Array) -> Array:
    """The mean of (z_L - z_t)^2, where z_L - z_t = (z_L - z_H) + (1 - a) z_H - b eps."""
    rest = 1 - a
    return m.error + 2 * rest * m.cross + jnp.square(rest) * m.power + jnp.square(b)


def _august(m: Moments, a: Array, b: Array) -> Array:
    """How far the mean of (z_t - z_H)^2 is from that of (z_L - z_H)^2."""
    return jnp.abs(jnp.square(1 - a) * m.power + jnp.square(b) - m.error)


def _snr(m: Moments, a: Array, b: Array) -> Array:
    """How far SNR(z_t) is from SNR(z_L), whose noise is z_L - z_H."""
    return jnp.abs(jnp.square(a / b) * m.power - m.power / m.error)


CRITERIA: dict[str, Curve] = {"eq9": _eq9, "august": _august, "snr": _snr}
TITLES = {
    "eq9": "Eq. 9 as printed: |z_L - z_t|^2",
    "august": "August code: | |z_t - z_H|^2 - |z_L - z_H|^2 |",
    "snr": "SNR: | SNR(z_t) - SNR(z_L) |",
}


@dataclass(frozen=True)
class Optimum:
    """Where one criterion is smallest."""

    timestep: int
    error: float  # standard error of `timestep`: bootstrap over images
    curve: np.ndarray  # the criterion at every timestep, inf where it is not defined


@dataclass(frozen=True)
class Search:
    """What a search found, by the criteria's names, and the moments' means that decided it."""

    images: int
    moments: dict[str, float]
    optima: dict[str, Optimum]

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "moments": self.moments,
            "optima": {
                name: {
                    "timestep": found.timestep,
                    "standard_error": found.error,
                    "curve": [float(v) if np.isfinite(v) else None for v in found.curve],
                }
                for name, found in self.optima.items()
            },
        }


def encoder(vae: VAE | PixelVAE) -> Encode:
    """A VAE's posterior modes, scaled, as a jitted function of images."""
    graph, state = nnx.split(vae)

    @jax.jit
    def encode(state: nnx.State, images: Array) -> Array:
        return nnx.merge(graph, state).latents(images)

    return partial(encode, jax.device_put(state))


def search(
    encode: Encode,
    process: Process,
    batches: Iterable[tuple[Any, Any]],
    *,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Search:
    """The optimal mid-timestep by each criterion.

    Args:
        encode: images to scaled latents, such as `encoder(vae)`.
        process: the noise process whose timesteps are searched.
        batches: pairs of low- and high-quality images of one size (b h w 3, in [-1, 1]); they are
            taken one batch at a time and not kept.
        seed: of the bootstrap.
        progress: called with the number of images done.
    """
    found: list[Moments] = []
    done = 0
    for x_l, x_h in batches:
        found.append(jax.tree.map(np.asarray, moments(encode, x_l, x_h)))
        done += len(x_h)
        if progress:
            progress(done)
    if not found:
        raise InputError("there are no images to search the mid-timestep with")
    images = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    _check(images)
    means = np.array(_mean_curves(process, images, seed), np.float64)  # criteria resamples+1 t
    means[means > 0.99 * _CEILING] = np.inf  # the mean of ceilings is one but for rounding
    optima = {
        name: Optimum(
            timestep=int(curves[0].argmin()),
            error=float(curves[1:].argmin(-1).std()),
            curve=curves[0],
        )
        for name, curves in zip(CRITERIA, means, strict=True)
    }
    return Search(done, {k: float(v.mean()) for k, v in vars(images).items()}, optima)


def _check(images: Moments) -> None:
    if not all(np.isfinite(values).all() for values in vars(images).values()):
        raise InputError("some images have latents that are not finite; is the VAE whole?")
    same = int((np.asarray(images.error) == 0).sum())
    if same:
        raise InputError(
            f"{same} of {len(images.error)} pairs have the same latents on both sides: degrade the "
            "low-quality images, or leave these out"
        )


def _mean_curves(process: Process, images: Moments, seed: int) -> Array:
    """Means of every criterion at every timestep: over the images, and over their resamples."""
    count = len(images.power)
    rng = np.random.default_rng(seed)
    shares = np.full(count, 1 / count)
    resamples = rng.multinomial(count, shares, RESAMPLES)
    weights = np.concatenate([np.ones((1, count)), resamples]).astype(np.float32) / count

    lacking = -count % _CHUNK  # repeats the last image, with weight 0
    chunks = jax.tree.map(
        lambda values: np.pad(values, (0, lacking), "edge").reshape(-1, _CHUNK), images
    )
    weights = np.pad(weights, ((0, 0), (0, lacking))).reshape(len(weights), -1, _CHUNK)
    return _accumulate(process, chunks, weights.transpose(1, 0, 2))


@partial(jax.jit, static_argnums=0)
def _accumulate(process: Process, chunks: Moments, weights: Array) -> Array:
    """All timesteps, criteria and resamples at once, one chunk of images after the other."""
    t = jnp.arange(process.timesteps)
    one, none = jnp.ones(len(t)), jnp.zeros(len(t))
    a, b = process.noised(one, none, t), process.noised(none, one, t)

    def add(total: Array, chunk: tuple[Moments, Array]) -> tuple[Array, None]:
        images, weight = chunk
        columns = jax.tree.map(lambda values: values[:, None], images)
        curves = jnp.stack([curve(columns, a, b) for curve in CRITERIA.values()])  # criteria n t
        curves = jnp.minimum(curves, _CEILING)
        means = jnp.einsum("rn,cnt->crt", weight, curves, precision=jax.lax.Precision.HIGHEST)
        return total + means, None

    start = jnp.zeros((len(CRITERIA), weights.shape[1], len(t)))
    return jax.lax.scan(add, start, (chunks, weights))[0]


def write(found: Search, folder: str | Path, *, chosen: str) -> None:
    """timestep.json and timestep.svg in `folder`, each complete or absent."""
    folder = Path(folder)
    texts = {
        "timestep.json": json.dumps(found.to_json() | {"chosen": chosen}, indent=1) + "\n",
        "timestep.svg": draw(
            [
                Panel(TITLES[name], optimum.curve, optimum.timestep, optimum.error)
                for name, optimum in found.optima.items()
            ],
            f"{found.images} images",
        ),
    }
    for name, text in texts.items():
        files.write_text(folder / name, text)
