"""What the published scripts of OMGSR's relatives do that is not correct, in one place.

All of them truncate to 8 bits, and overlap tiles by the same number of latents also where tiles are
smaller. osediff and pisa-sr go from file to file as OMGSR's v2 does, with tiles of their own, and
take a map of no more pixels than a tile in one piece. The tiles of osediff and hypir-sd2 are off
centre. osediff leaves a result larger than asked for that was enlarged beyond it; hypir-sd2 rounds
down how much beyond. Its VAE in tiles is not reproduced: here it works in one piece.
"""

from dataclasses import replace

import numpy as np

from ..errors import InputError
from ..quirks import COMMITS
from .canvases import Stage
from .options import require_whole_scale
from .pictures import Picture
from .published import SCRIPTS, PublishedSizes, PublishedTiling, Script
from .sizes import Enlargement, Size, process_size
from .tiling import Tiling, blend_weights


class CentredTiling(PublishedTiling):
    def weights(self, tile: Size) -> np.ndarray:
        return blend_weights(tile)


class SquareTiling(PublishedTiling):
    """A map that is longer than a tile is always cut."""

    def shape(self, latents: Size, side: int) -> Size:
        return Tiling.shape(self, latents, side)


class _LargeTiles(Script):
    """Tiles of one and a half process sizes, which overlap by a third."""

    _overlap = 3

    @property
    def _side(self) -> int:
        return 3 * self.process_size // 2 // self.downsampling


class OSEDiffScript(_LargeTiles):
    name = "osediff"

    def reduced(
        self, result: Picture, source: Picture, sizes: PublishedSizes, color: str
    ) -> Picture:
        return result


class PisaScript(_LargeTiles):
    name = "pisa-sr"

    @property
    def tiling(self) -> PublishedTiling:
        return CentredTiling(self._side // self._overlap)

    def _require_tiles(self, processed: Size) -> None:
        """The script fails where a tile is smaller than its weights are."""
        latents = processed[0] // self.downsampling, processed[1] // self.downsampling
        if self.tiling.shape(latents, self._side) not in (latents, (self._side,) * 2):
            raise InputError(
                f"the published script fails at {processed[1]} x {processed[0]} px, where its "
                f"tiles are smaller than {self._side} latents: ask for another scale, or no quirks"
            )


class HypirScript(Script):
    name = "hypir-sd2"

    @property
    def tiling(self) -> PublishedTiling:
        return SquareTiling(self._side // self._overlap)

    def sizes(self, source: Size, enlargement: Enlargement) -> PublishedSizes:
        factor, least = int(require_whole_scale(enlargement)), self.process_size
        asked_for = source[0] * factor, source[1] * factor
        process_size(asked_for, least)  # which refuses what is too large
        short = min(asked_for)
        height, width = (
            least if side == short else int(side * (least / short)) for side in asked_for
        )
        processed = (height, width) if short <= least else asked_for
        return PublishedSizes(source, asked_for, processed, asked_for, asked_for)

    def stages(self, source: Size, enlargement: Enlargement) -> list[Stage]:
        sizes = self.sizes(source, enlargement)
        return [Stage(source, sizes.processed, sizes.output)]

    def enlarged(self, picture: Picture, sizes: PublishedSizes) -> Picture:
        return replace(picture, values=replace(picture, alpha=None, grey=False).pixels(8))


_OF_RELATIVES = {script.name: script for script in (OSEDiffScript, PisaScript, HypirScript)}


def script_of(quirks: str, recipe: str) -> type[Script]:
    """The script that quirks name, which must be one of the model's recipe."""
    own = [recipe] if recipe in _OF_RELATIVES else [*COMMITS]
    if quirks not in own:
        raise InputError(
            f"the quirks of {quirks} are not those of the code that this model was published with: "
            f"say {' or '.join(own)}"
        )
    return (SCRIPTS | _OF_RELATIVES)[quirks]
