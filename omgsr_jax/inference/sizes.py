"""How large: the output, what the networks work on, and how that is cut to tiles."""

import math
from dataclasses import dataclass

from ..errors import InputError

Size = tuple[int, int]  # height, width

DEFAULT_SCALE = 4.0
LARGEST_SCALE = 8.0
STAGE_SCALE = 4.0  # what one pass enlarges at most; 8x is 4x, then 2x
MOST_PIXELS = 100_000_000
MOST_ELONGATED = 100  # how many times as long as wide
LONGEST_SIDE = math.isqrt(MOST_PIXELS * MOST_ELONGATED)


@dataclass(frozen=True)
class Enlargement:
    """How much larger: exactly one of a factor, the longest side, or the size itself."""

    scale: float | None = None
    longest_side: int | None = None
    size: Size | None = None

    def __post_init__(self) -> None:
        given = [self.scale, self.longest_side, self.size]
        if sum(value is not None for value in given) != 1:
            raise InputError("give one of scale, longest_side and size")
        if self.scale is not None and not 1 <= self.scale <= LARGEST_SCALE:
            raise InputError(f"scale must be within 1 .. {LARGEST_SCALE:g}, not {self.scale:g}")
        for side in self.size or (self.longest_side,):
            if side is not None and not 1 <= side <= LONGEST_SIDE:
                what = "both sides of size" if self.size else "longest_side"
                raise InputError(f"{what} must be within 1 .. {LONGEST_SIDE}, not {side}")

    @classmethod
    def asked(
        cls,
        scale: float | None = None,
        longest_side: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> "Enlargement":
        """As users say it: `size` is width and height; without any of the three, 4 times."""
        if scale is None and longest_side is None and size is None:
            scale = DEFAULT_SCALE
        return cls(scale, longest_side, size and (size[1], size[0]))

    def of(self, source: Size) -> Size:
        """The output's size for an input's."""
        height, width = source
        if max(source) > MOST_ELONGATED * min(source):
            raise InputError(
                f"{width} x {height} px is too narrow a strip: at most {MOST_ELONGATED} times as "
                "long as wide can be restored"
            )
        if self.size is not None:
            target = self.size
        elif self.longest_side is not None:
            factor = self.longest_side / max(source)
            target = (_rounded(height * factor), _rounded(width * factor))
        else:
            assert self.scale is not None
            target = (_rounded(height * self.scale), _rounded(width * self.scale))
        factor = max(target[0] / height, target[1] / width)
        if factor > LARGEST_SCALE and min(source) > 1:
            raise InputError(
                f"{width} x {height} px to {target[1]} x {target[0]} px is {factor:.1f} times as "
                f"large; at most {LARGEST_SCALE:g} times is possible"
            )
        return target


def _rounded(value: float) -> int:
    return max(1, math.floor(value + 0.5))


def stages(source: Size, target: Size) -> list[Size]:
    """The sizes to go through: the target alone, or four times the source before it."""
    height, width = source
    if max(target[0] / height, target[1] / width) <= STAGE_SCALE:
        return [target]
    return [(_rounded(height * STAGE_SCALE), _rounded(width * STAGE_SCALE)), target]


def process_size(target: Size, least: int) -> Size:
    """What the networks work on: the target, or as much more as its short side lacks to `least`."""
    short = min(target)
    if short >= least:
        size = target
    else:
        size = (
            max(least, _rounded(target[0] * least / short)),
            max(least, _rounded(target[1] * least / short)),
        )
    if size[0] * size[1] > MOST_PIXELS:
        raise InputError(
            f"{target[1]} x {target[0]} px would be restored at {size[1]} x {size[0]} px, as the "
            f"model needs {least} px on the short side; the limit is {MOST_PIXELS / 1e6:.0f} "
            "megapixels. Crop the image or ask for less."
        )
    return size


def padded(size: Size, multiple: int) -> Size:
    height, width = size
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple
