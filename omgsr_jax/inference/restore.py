"""Inference (Fig. 5 (b) of the paper) as one function of weights and images, from uint8 to uint8.

Nothing between its first and its last line leaves the device.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from ..generator import OMGSR, AnyVAE
from ..models.vae import Posterior
from . import colour, strips
from .canvases import Canvas, Stage
from .layout import SPATIAL
from .resizing import resized
from .tiling import Tiling, in_tiles

CHECKED = ("encode", "predict", "decode")


@dataclass(frozen=True)
class Restoration:
    """What one compiled program does."""

    canvas: Canvas
    batch: int
    color: str
    stored: str = "uint8"  # the result's dtype: uint8, uint16, or float32 in [0, 1]
    given: str = "uint8"  # that of the images
    sampled: bool = False  # from the VAE's posterior, in place of its mode
    truncates: bool = False  # to 8 bits behind every step, as the published script does
    tiling: Tiling = Tiling()
    tiles_at_once: int = 1  # of each image


class Restored(NamedTuple):
    images: Array  # b h w 3
    finite: Array  # b 3: whether what the stages `CHECKED` gave is


def restore(
    model: OMGSR,
    images: Array,
    how: Restoration,
    sizes: Array | None = None,
    seed: Array | None = None,
) -> Restored:
    """Low-quality images, enlarged and restored in one step.

    Args:
        images: b h w 3 in the canvas's source extent.
        sizes: b 3 2: the heights and widths of each image's `Stage`, where they share a canvas.
        seed: 2 numbers (uint32), where the posterior is sampled.
    """
    canvas, stage = how.canvas, Stage.of(how.canvas, sizes)
    vae = _vae(model, canvas, stage)
    source = resized(_levels(images), stage.source, stage.process, canvas.padded)
    source = _by_rows(jnp.clip(source, 0, 1), canvas)
    posterior = vae.encode(source * 2 - 1)
    z_l = model.vae.scale(posterior.mean if seed is None else _sampled(posterior, seed))
    z_p = in_tiles(
        model.one_step,
        z_l,
        canvas.latents if sizes is None else _padded(stage, canvas) // canvas.downsampling,
        how.tiling.weights(canvas.tile),
        at_once=how.tiles_at_once,
        spread=lambda tiles: _by_rows(tiles, canvas, axis=0),
    )
    restored = vae.decode(model.vae.unscale(z_p)).astype(jnp.float32)
    finite = jnp.stack([jnp.isfinite(x).all((1, 2, 3)) for x in (z_l, z_p, restored)], axis=-1)
    return Restored(_finished(restored, source, how, stage), finite)


def _vae(model: OMGSR, canvas: Canvas, stage: Stage) -> Any:
    """The VAE itself, or another way to walk through its layers that gives the same."""
    if not canvas.shared and not canvas.strip:
        return model.vae
    box = _padded(stage, canvas) if canvas.shared else None
    return strips.walk(model.vae, canvas.padded, box, canvas.strip)


def _padded(stage: Stage, canvas: Canvas) -> Array:  # b 2
    """The sizes of images with their reflected margins."""
    return -(-stage.process // canvas.multiple) * canvas.multiple


def _levels(images: Array) -> Array:
    """Stored pixels to fp32 in [0, 1]."""
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    return images.astype(jnp.float32) / jnp.iinfo(images.dtype).max


def _sampled(posterior: Posterior, seed: Array) -> Array:
    """The same noise for a latent pixel whatever the canvas is."""
    _, h, w, c = posterior.mean.shape
    key = jax.random.wrap_key_data(seed, impl="threefry2x32")
    noise = jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), (w * c,)))
    deviation = jnp.exp(0.5 * posterior.logvar)
    return posterior.mean + deviation * noise(jnp.arange(h)).reshape(h, w, c)


def _by_rows(x: Array, canvas: Canvas, axis: int = 1) -> Array:
    """`x` with an axis divided among the devices that share an image's work."""
    if not canvas.by_rows:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*[None] * axis, SPATIAL))


def _finished(image: Array, source: Array, how: Restoration, stage: Stage) -> Array:
    """Colours aligned, in the size asked for, rounded once."""
    canvas, sizes = how.canvas, stage.process if how.canvas.shared else None
    image = jnp.clip(image * 0.5 + 0.5, 0, 1)
    if sizes is None:
        image, source = (x[:, : stage.process[0], : stage.process[1]] for x in (image, source))
    if how.truncates:
        image = _truncated(image)
    if how.color != "none":
        image = colour.align(image, source, how.color, sizes)
        image = _truncated(image) if how.truncates else image
    if canvas.shared or tuple(stage.process) != tuple(stage.target):
        image = jnp.clip(resized(image, stage.process, stage.target, canvas.extent.target), 0, 1)
    if how.stored == "float32":
        return image
    dtype = jnp.dtype(how.stored)
    return jnp.round(image * jnp.iinfo(dtype).max).astype(dtype)


def _truncated(image: Array) -> Array:
    """As it is after being stored in 8 bits without rounding."""
    return jnp.floor(image * 255) / 255
