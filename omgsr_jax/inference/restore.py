"""Inference (Fig. 5 (b) of the paper) as one function of weights and images, from uint8 to uint8.

Nothing between its first and its last line leaves the device. Its three parts are compiled each by
itself (see programs.py): so the backbone is compiled once, whatever the sizes of images are.

There are two ways from an image to what the networks see, and back (`resizing`):

omgsr    enlarged once, as PIL does it, and clipped. Beyond its edges the image is mirrored. The
         result gets the colours of what the networks saw, and is reduced if that was more than was
         asked for.
hypir    enlarged to the size asked for, as PyTorch does it, with all that it overshoots; then, if
         that is less than the networks need, with antialiasing. Beyond its edges is mid-grey. The
         result is reduced to the size asked for, and gets its colours there.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from ..generator import OMGSR
from ..model_cards import RESIZING
from ..models import shifts
from ..models.vae import Posterior
from . import colour, strips
from .canvases import Canvas, Stage
from .layout import SPATIAL
from .resizing import resized
from .sizes import Size
from .tiling import Tiles, Tiling, in_tiles


@dataclass(frozen=True)
class Encoding:
    canvas: Canvas
    batch: int
    given: str = "uint8"  # the images' dtype: uint8, uint16, or float32 in [0, 1]
    sampled: bool | None = False  # from the posterior, not its mode; None: said when it runs
    resizing: str = RESIZING

    def __str__(self) -> str:
        return f"encode {self.canvas}"


@dataclass(frozen=True)
class Prediction:
    tile: Size
    batch: int  # tiles
    shifts: int = 1  # see `predict`

    def __str__(self) -> str:
        return f"predict {self.tile[1]}x{self.tile[0]}"


@dataclass(frozen=True)
class Decoding:
    canvas: Canvas
    batch: int
    color: str | None  # None: said when it runs
    stored: str = "uint8"  # the result's dtype, as for what is given
    truncates: bool = False  # to 8 bits behind every step, as the published script does
    resizing: str = RESIZING

    @property
    def source(self) -> Size:
        """Height and width of the canvas of what gives the colours."""
        return self.canvas.extent.target if self.resizing == "hypir" else self.canvas.padded

    def __str__(self) -> str:
        return f"decode {self.canvas}"


Program = Encoding | Prediction | Decoding


@dataclass(frozen=True)
class Restoration:
    """How images on a canvas are restored."""

    encoding: Encoding
    decoding: Decoding
    tiling: Tiling = field(default_factory=Tiling)
    tiles_at_once: int = 1  # of each image
    shifts: int = 1  # see `predict`

    @property
    def canvas(self) -> Canvas:
        return self.encoding.canvas

    @property
    def batch(self) -> int:
        return self.encoding.batch

    @property
    def tiles(self) -> Tiles:
        return Tiles(self.canvas.tile, self.tiling, self.tiles_at_once)

    @property
    def prediction(self) -> Prediction:
        return Prediction(self.canvas.tile, self.batch * self.tiles_at_once, self.shifts)

    def tiles_of(self, stages: Iterable[Stage]) -> int:
        """How many tiles lie on the largest of some images."""
        return max(self.tiles.on(self.canvas.latents_of(stage)) for stage in stages)

    def runs(self, stages: Iterable[Stage]) -> dict[Program, int]:
        """Its programs, and how often each of them runs for some images."""
        turns = -(-self.tiles_of(stages) // self.tiles_at_once)
        return {self.encoding: 1, self.prediction: turns, self.decoding: 1}


class Encoded(NamedTuple):
    source: Array  # b h w 3, fp32 in [0, 1]: what gives the result its colours
    z_l: Array
    finite: Array  # b 1: whether z_l is


class Restored(NamedTuple):
    images: Array  # b h w 3
    finite: Array  # b 2: whether what the backbone gave is, and what the decoder gave


def restore(model: OMGSR, images: Array, how: Restoration) -> Array:
    """Low-quality images (b h w 3), enlarged and restored in one step, on a canvas of their own."""
    source, z_l, _ = _apart(encode(model, images, how.encoding))
    z_p = in_tiles(
        lambda tiles: _apart(predict(model, _apart(tiles), how.prediction)), z_l, how.tiles
    )
    return decode(model, _apart(z_p), source, how.decoding).images


def _apart(values: Any) -> Any:
    """The compiler does not join what lies before with what lies behind: so the parts add in the
    same order as by themselves."""
    return jax.lax.optimization_barrier(values)


def encode(
    model: OMGSR,
    images: Array,
    how: Encoding,
    sizes: Array | None = None,
    seed: Array | None = None,
    samples: Array | None = None,
) -> Encoded:
    """Images to z_L.

    Args:
        images: b h w 3 in the canvas's source extent.
        sizes: b 3 2: the heights and widths of each image's `Stage`, where they share a canvas.
        seed: 2 numbers (uint32), where the posterior is sampled.
        samples: whether it is, where that is said when the program runs.
    """
    canvas, stage = how.canvas, Stage.of(how.canvas, sizes)
    enlarged = {"omgsr": _once_enlarged, "hypir": _twice_enlarged}[how.resizing]
    source, seen = enlarged(_levels(images), canvas, stage)
    posterior = _vae(model, canvas, stage).encode(seen * 2 - 1)
    latents = posterior.mean if seed is None else _sampled(posterior, seed)
    if samples is not None:
        latents = jnp.where(samples, latents, posterior.mean)
    z_l = model.vae.scale(latents)
    return Encoded(source, z_l, _finite(z_l)[:, None])


def predict(model: OMGSR, z_l: Array, how: Prediction) -> Array:
    """z_L to z_P, or to the mean of several, each from latents that lie elsewhere in the
    backbone's patches (`shifts`)."""
    one_step = partial(model.one_step, t=model.mid_timestep(z_l))
    return shifts.averaged(one_step, z_l, how.shifts, model.patch)


def decode(
    model: OMGSR,
    z_p: Array,
    source: Array,
    how: Decoding,
    sizes: Array | None = None,
    color: Array | None = None,
) -> Restored:
    """z_P to images in the colours of `source`, in the size asked for, rounded once.

    `color` is a number of `COLORS`, where that is said when the program runs.
    """
    canvas, stage = how.canvas, Stage.of(how.canvas, sizes)
    image = _vae(model, canvas, stage).decode(model.vae.unscale(z_p)).astype(jnp.float32)
    finite = jnp.stack([_finite(z_p), _finite(image)], axis=-1)
    method = color if how.color is None else how.color
    assert method is not None, "which colours was not said"
    finish = {"omgsr": _coloured_and_reduced, "hypir": _reduced_and_coloured}[how.resizing]
    image = finish(image * 0.5 + 0.5, source, stage, how, method)
    return Restored(_stored(image, how.stored), finite)


def _once_enlarged(images: Array, canvas: Canvas, stage: Stage) -> tuple[Array, Array]:
    source = resized(images, stage.source, stage.process, canvas.padded)
    source = _by_rows(jnp.clip(source, 0, 1), canvas)
    return source, source


def _twice_enlarged(images: Array, canvas: Canvas, stage: Stage) -> tuple[Array, Array]:
    asked_for, extent = stage.target, canvas.extent.target
    source = resized(images, stage.source, asked_for, extent, antialias=False)
    seen = _fitted(source, asked_for, stage.process, canvas.padded, canvas.shared)
    rows, columns = (jnp.arange(length) for length in canvas.padded)
    height, width = (jnp.asarray(stage.process)[..., axis, None] for axis in (0, 1))
    inside = (rows < height)[..., :, None, None] & (columns < width)[..., None, :, None]
    return source, _by_rows(jnp.where(inside, seen, 0.5), canvas)


def _coloured_and_reduced(
    image: Array, source: Array, stage: Stage, how: Decoding, method: str | Array
) -> Array:
    canvas = how.canvas
    image = jnp.clip(image, 0, 1)
    if not canvas.shared:
        image, source = (x[:, : stage.process[0], : stage.process[1]] for x in (image, source))
    if how.truncates:
        image = _truncated(image)
    if how.color != "none":
        image = colour.align(image, source, method, stage.process if canvas.shared else None)
        image = _truncated(image) if how.truncates else image
    if canvas.shared or tuple(stage.process) != tuple(stage.target):
        image = jnp.clip(resized(image, stage.process, stage.target, canvas.extent.target), 0, 1)
    return image


def _reduced_and_coloured(
    image: Array, source: Array, stage: Stage, how: Decoding, method: str | Array
) -> Array:
    canvas = how.canvas
    if not canvas.shared:
        image = image[:, : stage.process[0], : stage.process[1]]
    extent = canvas.extent.target
    image = _fitted(image, stage.process, stage.target, extent, canvas.shared)
    image = colour.align(image, source, method, stage.target if canvas.shared else None)
    return _truncated(image) if how.truncates else image


def _fitted(x: Array, old: Any, new: Any, canvas: Size, shared: bool) -> Array:
    """`resized`, where there is more to do than to pad with anything."""
    if shared or tuple(old) != tuple(new):
        return resized(x, old, new, canvas)
    margins = [(0, after - before) for after, before in zip(canvas, x.shape[1:3], strict=True)]
    return jnp.pad(x, ((0, 0), *margins, (0, 0)))


def _vae(model: OMGSR, canvas: Canvas, stage: Stage) -> Any:
    """The VAE itself, or another way to walk through its layers that gives the same."""
    if not canvas.shared and not canvas.strip:
        return model.vae
    box = -(-stage.process // canvas.multiple) * canvas.multiple if canvas.shared else None
    return strips.walk(model.vae, canvas.padded, box, canvas.strip)


def _finite(x: Array) -> Array:  # b h w c -> b
    return jnp.isfinite(x).all((1, 2, 3))


def _levels(images: Array) -> Array:
    """Stored pixels to fp32 in [0, 1]."""
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    return images.astype(jnp.float32) / jnp.iinfo(images.dtype).max


def _stored(image: Array, dtype: str) -> Array:
    if dtype == "float32":
        return image
    return jnp.round(image * jnp.iinfo(dtype).max).astype(dtype)


def _truncated(image: Array) -> Array:
    """As it is after being stored in 8 bits without rounding."""
    return jnp.floor(image * 255) / 255


def _sampled(posterior: Posterior, seed: Array) -> Array:
    """The same noise for a latent pixel whatever the canvas is."""
    _, h, w, c = posterior.mean.shape
    key = jax.random.wrap_key_data(seed, impl="threefry2x32")
    noise = jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), (w * c,)))
    deviation = jnp.exp(0.5 * posterior.logvar)
    return posterior.mean + deviation * noise(jnp.arange(h)).reshape(h, w, c)


def _by_rows(x: Array, canvas: Canvas) -> Array:  # b h w c
    """`x` with its rows divided among the devices that share an image's work."""
    if not canvas.by_rows:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(None, SPATIAL))
