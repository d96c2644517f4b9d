"""What restoring an image gives, and what it took."""

from dataclasses import dataclass, field

from ..errors import InputError
from .pictures import Picture
from .sizes import Size


@dataclass
class Work:
    """What it took to restore an image."""

    seconds: dict[str, float] = field(default_factory=dict)
    latent_tiles: int = 0
    strips: int = 1  # of the VAE's widest maps
    canvas_size: Size | None = None  # what was computed, in the last stage

    def with_more(self, more: "Work") -> "Work":
        seconds = {
            step: self.seconds.get(step, 0) + more.seconds.get(step, 0)
            for step in self.seconds | more.seconds
        }
        tiles, strips = self.latent_tiles + more.latent_tiles, max(self.strips, more.strips)
        return Work(seconds, tiles, strips, more.canvas_size)


class NotFiniteError(InputError):
    """A stage gave NaN or infinity for one of the images: their `index`."""

    def __init__(self, stage: str, index: int, name: str | None = None):
        super().__init__(
            f"{f'{name}: ' if name else ''}what the model's {stage} stage gives is not finite (NaN "
            "or infinity): its weights are damaged, or too large for this precision. Try precision "
            "fp32, or convert the model again."
        )
        self.stage, self.index = stage, index


@dataclass(frozen=True)
class Upscaled:
    """A result, and what it took."""

    picture: Picture
    process_size: Size  # what the networks worked on, in the last stage
    work: Work = field(default_factory=Work)
