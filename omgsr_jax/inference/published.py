"""What the published inference script does that is not correct, in one place.

It floors sizes to multiples of 8, keeps 8 bits between all steps and truncates to them
(`restore.Restoration.truncates`), and weighs tiles by a Gaussian that is off centre. The time that
FLUX is told is its process's (`process.FlowMatching.as_published`).
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..errors import InputError
from .options import require_whole_scale
from .pictures import Picture
from .sizes import MOST_PIXELS, Enlargement, Size
from .tiling import Tiling, blend_weights


@dataclass(frozen=True)
class PublishedTiling(Tiling):
    """The weights are off centre by half a row, and a map of no more pixels than a tile is taken in
    one piece."""

    def shape(self, latents: Size, side: int) -> Size:
        if latents[0] * latents[1] <= side**2:
            return latents
        return super().shape(latents, side)

    def weights(self, tile: Size) -> np.ndarray:
        return blend_weights(tile, tile[0] / 2)


@dataclass(frozen=True)
class PublishedSizes:
    """The sizes that the script goes through."""

    enlarged: Size  # before the integer factor
    upscaled: Size
    processed: Size  # floored to multiples of 8, or of what the model can take
    output: Size

    @classmethod
    def of(cls, source: Size, scale: float, least: int, multiple: int = 8) -> "PublishedSizes":
        factor = int(scale)
        floor, short = least // factor, min(source)
        is_small = short < floor
        enlarged = (
            (int(floor / short * source[0]), int(floor / short * source[1])) if is_small else source
        )
        upscaled = (enlarged[0] * factor, enlarged[1] * factor)
        processed = (upscaled[0] - upscaled[0] % multiple, upscaled[1] - upscaled[1] % multiple)
        if min(processed) < multiple or upscaled[0] * upscaled[1] > MOST_PIXELS:
            raise InputError(
                f"{source[1]} x {source[0]} px would be restored at {upscaled[1]} x {upscaled[0]} "
                "px by the published script, which is beyond its reach here"
            )
        output = (source[0] * factor, source[1] * factor) if is_small else processed
        return cls(enlarged, upscaled, processed, output)


@dataclass(frozen=True)
class Script:
    """The script's way from file to file."""

    process_size: int
    multiple: int  # what the networks need the sides of images to be multiples of

    def sizes(self, source: Size, enlargement: Enlargement) -> PublishedSizes:
        scale, multiple = require_whole_scale(enlargement), max(8, self.multiple)
        return PublishedSizes.of(source, scale, self.process_size, multiple)

    @staticmethod
    def enlarged(picture: Picture, sizes: PublishedSizes) -> Picture:
        """In 8 bits, at the size that the networks work on."""
        image = Image.fromarray(replace(picture, alpha=None, grey=False).pixels(8))
        for goal in (sizes.enlarged, sizes.upscaled):
            image = image.resize(goal[::-1], Image.Resampling.BICUBIC)
        image = image.resize(sizes.processed[::-1], Image.Resampling.LANCZOS)
        return replace(picture, values=np.asarray(image))

    @staticmethod
    def reduced(picture: Picture, sizes: PublishedSizes) -> Picture:
        """The result of what was enlarged beyond what was asked for."""
        if sizes.output == sizes.processed:
            return picture
        image = Image.fromarray(picture.values)
        image = image.resize(sizes.output[::-1], Image.Resampling.BICUBIC)
        return replace(picture, values=np.asarray(image))
