"""Which shapes are compiled. Few canvases serve images of any sizes."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple, NoReturn

import numpy as np

from ..errors import InputError
from .sizes import Size, padded

MOST_CANVASES = 4
_WASTE = 1.3  # how much larger than an image a canvas may be before a better one is considered


class Stage(NamedTuple):
    """The heights and widths of one pass: of one image (Size), or arrays of many (b 2)."""

    source: Any  # as it comes
    process: Any  # what the networks work on
    target: Any  # as it goes

    @classmethod
    def of(cls, canvas: "Canvas", sizes: Any | None) -> "Stage":
        """Those of a canvas that is one image's own, or of `sizes` (b 3 2)."""
        return canvas.extent if sizes is None else cls(*(sizes[:, i] for i in range(3)))

    def within(self, other: "Stage") -> bool:
        return all(np.less_equal(a, b).all() for a, b in zip(self, other, strict=True))


@dataclass(frozen=True)
class Canvas:
    """A shape that is compiled: that of one size of image, or one that several sizes share."""

    extent: Stage
    tile: Size  # what the backbone sees at once, in latents
    multiple: int  # of pixels, that the networks need
    downsampling: int  # pixels behind a latent, per side
    shared: bool = False
    strip: int = 0  # the pixels of a strip of rows, where the VAE does not take all rows at once
    by_rows: bool = False  # whether all devices work on one image

    @property
    def padded(self) -> Size:
        return padded(self.extent.process, self.multiple)

    @property
    def latents(self) -> Size:
        return self.latents_of(self.extent)

    def latents_of(self, stage: Stage) -> Size:
        """Of an image on this canvas."""
        height, width = padded(stage.process, self.multiple)
        return height // self.downsampling, width // self.downsampling

    @property
    def strips(self) -> int:
        """Of the VAE, at the resolution of the image."""
        height, width = self.padded
        return 1 if not self.strip else -(-height // max(self.strip // width, 1))

    def __str__(self) -> str:
        height, width = self.padded
        return f"{width}x{height}"


Make = Callable[[Stage, bool], Canvas]  # a size's own canvas, or one that several share (True)


class Canvases:
    """The canvases of a loaded model."""

    def __init__(self, make: Make):
        self._make = make
        self._choosing = threading.Lock()
        self._canvases: list[Canvas] = []
        self._placed: dict[Stage, Canvas] = {}
        self._settled = False

    def settle(self, extents: Iterable[Stage]) -> list[Canvas]:
        """From now on there are these, and no others. What fits none of them is refused."""
        with self._choosing:
            self._canvases = [self._make(extent, True) for extent in extents]
            self._settled = True
            return self._canvases

    def plan(self, stages: Iterable[Stage]) -> None:
        """Chooses canvases for images of these sizes, beside those that there are already."""
        with self._choosing:
            if self._settled:
                return
            wanted = Counter(stage for stage in stages if self._close(stage) is None)
            if room := max(0, MOST_CANVASES - len(self._canvases)):
                self._canvases += merged(wanted, room, self._make)

    def place(self, stage: Stage) -> Canvas:
        """The canvas for an image of this size.

        Once chosen it stays, so that an image's result never depends on what came in between.
        """
        with self._choosing:
            if self._settled:  # and nothing is remembered of sizes that come and go
                return self._fitting(stage) or self._refuse(stage)
            if stage not in self._placed:
                self._placed[stage] = self._close(stage) or self._choose(stage)
            return self._placed[stage]

    def own(self, stage: Stage) -> Canvas:
        """The canvas of this size alone; `place` gives it from now on."""
        with self._choosing:
            canvas = self._make(stage, False)
            self._placed[stage] = canvas
            return canvas

    def _choose(self, stage: Stage) -> Canvas:
        if len(self._canvases) < MOST_CANVASES:
            canvas = self._make(stage, False)
        elif fitting := self._fitting(stage):
            return fitting
        else:  # more than was planned: canvases that soon serve everything
            larger = Stage(*((_power_of_two(size[0]), _power_of_two(size[1])) for size in stage))
            canvas = replace(self._make(larger, True), tile=self._make(stage, True).tile)
        self._canvases.append(canvas)
        return canvas

    def _refuse(self, stage: Stage) -> NoReturn:
        largest = max(self._canvases, key=_area).extent.process
        sizes = [f"{width} x {height} px" for height, width in (*stage, largest)]
        raise InputError(
            f"{sizes[0]} to {sizes[2]} is computed at {sizes[1]}, and at most {sizes[3]} are taken "
            "here; ask for less"
        )

    def _close(self, stage: Stage) -> Canvas | None:
        """A canvas that wastes little."""
        best = self._fitting(stage)
        area = stage.process[0] * stage.process[1]
        return best if best is not None and _area(best) <= _WASTE * area else None

    def _fitting(self, stage: Stage) -> Canvas | None:
        own = self._make(stage, False)
        if own in self._canvases:
            return own
        fitting = (
            canvas
            for canvas in self._canvases
            if canvas.shared and canvas.tile == own.tile and stage.within(canvas.extent)
        )
        return min(fitting, key=_area, default=None)


def merged(sizes: dict[Stage, int], room: int, make: Make) -> list[Canvas]:
    """Canvases, joined until they are few enough, each time the two that waste the least.

    Args:
        sizes: and how many images there are of each.
    """
    clusters = {make(stage, False): count for stage, count in sizes.items()}

    def together(a: Canvas, b: Canvas) -> Canvas:
        sides = (np.maximum(x, y).tolist() for x, y in zip(a.extent, b.extent, strict=True))
        return replace(make(Stage(*map(tuple, sides)), True), tile=a.tile)

    def waste(a: Canvas, b: Canvas) -> float:
        both = _area(together(a, b))
        return sum(clusters[c] * (both - _area(c)) for c in (a, b))

    while len(clusters) > room:
        pairs = [(a, b) for a, b in combinations(clusters, 2) if a.tile == b.tile]
        if not pairs:
            break
        a, b = min(pairs, key=lambda pair: waste(*pair))
        count = clusters.pop(a) + clusters.pop(b)
        both = together(a, b)
        clusters[both] = clusters.get(both, 0) + count
    return list(clusters)


def _area(canvas: Canvas) -> int:
    height, width = canvas.padded
    return height * width


def _power_of_two(length: int) -> int:
    return 1 << (length - 1).bit_length()
