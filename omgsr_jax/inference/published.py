"""What the published inference scripts do that is not correct, in one place.

Both keep 8 bits between all steps and truncate to them (`restore.Decoding.truncates`), weigh tiles
by a Gaussian that is off centre, and overlap them by a share of the process size also where tiles
are smaller. v2 (8996613) floors sizes to multiples of 8. v1 (86297b2) pads with black to multiples
of the process size; small images it cannot write, and here they get the size that it means. The
time that FLUX is told is its process's (`process.FlowMatching.as_published`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from PIL import Image

from ..errors import InputError
from . import colour
from .canvases import Stage
from .options import require_whole_scale
from .pictures import Picture
from .sizes import MOST_PIXELS, Enlargement, Size, padded
from .tiling import Tiling, blend_weights

_FLOOR = 8


@dataclass(frozen=True)
class PublishedTiling(Tiling):
    """The weights are off centre by half a row, the overlap is a constant, and a map of no more
    pixels than a tile is taken in one piece."""

    overlap: int

    def shape(self, latents: Size, side: int) -> Size:
        if latents[0] * latents[1] <= side**2:
            return latents
        return super().shape(latents, side)

    def stride(self, length: int) -> int:
        return max(1, length - self.overlap)  # below 1 only on maps in one piece

    def weights(self, tile: Size) -> np.ndarray:
        return blend_weights(tile, tile[0] / 2)


@dataclass(frozen=True)
class PublishedSizes:
    """The sizes that a script goes through."""

    enlarged: Size  # before the integer factor
    upscaled: Size
    processed: Size  # what the networks see
    kept: Size  # of that
    output: Size

    @classmethod
    def of(
        cls, source: Size, scale: float, least: int, fit: Callable[[Size], tuple[Size, Size]]
    ) -> "PublishedSizes":
        """`fit` says what of an upscaled image is processed, and kept."""
        factor = int(scale)
        floor, short = least // factor, min(source)
        is_small = short < floor
        enlarged = (
            (int(floor / short * source[0]), int(floor / short * source[1])) if is_small else source
        )
        upscaled = (enlarged[0] * factor, enlarged[1] * factor)
        processed, kept = fit(upscaled)
        if min(processed) < 1 or max(map(_pixels, (processed, upscaled))) > MOST_PIXELS:
            raise InputError(
                f"{source[1]} x {source[0]} px would be restored at {upscaled[1]} x {upscaled[0]} "
                "px by the published script, which is beyond its reach here"
            )
        output = (source[0] * factor, source[1] * factor) if is_small else kept
        return cls(enlarged, upscaled, processed, kept, output)


@dataclass(frozen=True)
class Script:
    """The way of v2's script from file to file."""

    process_size: int
    downsampling: int  # pixels behind a latent, per side
    patch: int  # latents that the backbone takes together, per side

    name = "v2"
    _overlap = 2  # this part of the process size

    @property
    def _side(self) -> int:
        return self.process_size // self.downsampling

    @property
    def tiling(self) -> PublishedTiling:
        return PublishedTiling(self._side // self._overlap)

    def sizes(self, source: Size, enlargement: Enlargement) -> PublishedSizes:
        scale = require_whole_scale(enlargement)
        sizes = PublishedSizes.of(source, scale, self.process_size, self._fit)
        self._require_tiles(sizes.processed)
        return sizes

    def stages(self, source: Size, enlargement: Enlargement) -> list[Stage]:
        """One: what `enlarged` gives is processed as it is."""
        processed = self.sizes(source, enlargement).processed
        return [Stage(processed, processed, processed)]

    def color_on_device(self, color: str) -> str:
        return color

    def enlarged(self, picture: Picture, sizes: PublishedSizes) -> Picture:
        """In 8 bits, at the size that the networks work on."""
        image = _upscaled(picture, sizes)
        image = image.resize(sizes.processed[::-1], Image.Resampling.LANCZOS)
        return replace(picture, values=np.asarray(image))

    def reduced(
        self, result: Picture, source: Picture, sizes: PublishedSizes, color: str
    ) -> Picture:
        """The result of what was enlarged beyond what was asked for."""
        if sizes.output == sizes.kept:
            return result
        image = Image.fromarray(result.values)
        image = image.resize(sizes.output[::-1], Image.Resampling.BICUBIC)
        return replace(result, values=np.asarray(image))

    def _fit(self, upscaled: Size) -> tuple[Size, Size]:
        multiple = max(_FLOOR, self.downsampling)
        floored = (upscaled[0] - upscaled[0] % multiple, upscaled[1] - upscaled[1] % multiple)
        return floored, floored

    def _require_tiles(self, processed: Size) -> None:
        """The script does not end where a tile is no longer than the overlap, and FLUX takes tiles
        of the process size alone."""
        latents = processed[0] // self.downsampling, processed[1] // self.downsampling
        tiling, whole = self.tiling, (self._side,) * 2
        tile = tiling.shape(latents, self._side)
        ends = tile == latents or min(tile) > tiling.overlap
        if not ends or (self.patch > 1 and tile != whole):
            height, width = processed
            raise InputError(
                f"the published script fails at {width} x {height} px, where its tiles are not of "
                f"{self.process_size} x {self.process_size} px: ask for another scale, or no quirks"
            )


class FirstScript(Script):
    """v1's, which gives the networks more pixels than it keeps: colours are those of the kept."""

    name = "v1"
    _overlap = 4

    def color_on_device(self, color: str) -> str:
        return "none"

    def enlarged(self, picture: Picture, sizes: PublishedSizes) -> Picture:
        height, width = sizes.upscaled
        values = np.zeros((*sizes.processed, 3), np.uint8)
        values[:height, :width] = np.asarray(_upscaled(picture, sizes))
        return replace(picture, values=values)

    def reduced(
        self, result: Picture, source: Picture, sizes: PublishedSizes, color: str
    ) -> Picture:
        height, width = sizes.kept
        kept = replace(result, values=result.values[:height, :width])
        if color != "none":
            of_source = np.asarray(_upscaled(source, sizes))
            kept = replace(kept, values=_aligned(kept.values, of_source, color))
        return super().reduced(kept, source, sizes, color)

    def _fit(self, upscaled: Size) -> tuple[Size, Size]:
        return padded(upscaled, self.process_size), upscaled


SCRIPTS = {script.name: script for script in (FirstScript, Script)}


def _upscaled(picture: Picture, sizes: PublishedSizes) -> Image.Image:
    image = Image.fromarray(replace(picture, alpha=None, grey=False).pixels(8))
    for goal in (sizes.enlarged, sizes.upscaled):
        image = image.resize(goal[::-1], Image.Resampling.BICUBIC)
    return image


def _aligned(image: np.ndarray, source: np.ndarray, color: str) -> np.ndarray:
    """In 8 bits, truncated."""
    image_levels, source_levels = (
        jnp.asarray(values[None], jnp.float32) / 255 for values in (image, source)
    )
    (aligned,) = np.asarray(colour.align(image_levels, source_levels, color))
    return np.floor(aligned * 255).astype(np.uint8)


def _pixels(size: Size) -> int:
    return size[0] * size[1]
