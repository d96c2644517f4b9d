"""What is special about a recipe's way from pixels to pixels, as its card says it."""

from dataclasses import dataclass

from ..converted import ModelCard
from ..model_cards import RESIZING
from .options import require_resizing
from .tiling import Tiling


@dataclass(frozen=True)
class Overlapping(Tiling):
    """Tiles that overlap by a number of latents, small ones by half."""

    overlap: int

    def stride(self, length: int) -> int:
        return length - min(self.overlap, length // 2)


@dataclass(frozen=True)
class Way:
    """Attributes:
    resizing: see `restore`.
    tile_size, tile_overlap: of the backbone's tiles, in pixels; by default the process size, and
        half of a tile.
    recipe: whose name says which published script is the model's own.
    """

    resizing: str = RESIZING
    tile_size: int | None = None
    tile_overlap: int | None = None
    recipe: str = ""

    def __post_init__(self) -> None:
        require_resizing(self.resizing)

    @classmethod
    def of(cls, card: ModelCard) -> "Way":
        return cls(card.resizing, card.tile_size, card.tile_overlap, card.origin.recipe)

    def tiling(self, downsampling: int) -> Tiling:
        if self.tile_overlap is None:
            return Tiling()
        return Overlapping(self.tile_overlap // downsampling)


PLAIN = Way()
