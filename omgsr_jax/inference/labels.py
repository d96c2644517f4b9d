"""Labelled pictures side by side, such as input and output."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .pictures import Picture, from_array, resize
from .sizes import Size

_GAP = 8


def side_by_side(source: Picture, result: Picture) -> Picture:
    """The input, enlarged bicubically to the output's size, beside the output."""
    return row(
        {
            f"input {_wxh(source.size)}, bicubic": bicubic(source, result.size),
            f"restored {_wxh(result.size)}": result,
        }
    )


def bicubic(source: Picture, size: Size) -> Picture:
    """What enlarging alone gives, in 8 bits."""
    rgb = np.clip(resize(source.opaque().rgb, size), 0, 1)
    return from_array(np.round(rgb * 255).astype(np.uint8))


def row(panels: Mapping[str, Picture]) -> Picture:
    """Pictures of one size beside one another, each under its label."""
    height, width = next(iter(panels.values())).size
    font = ImageFont.load_default(size=max(10, min(28, width // 24)))
    strip = int(font.size * 1.8)  # type: ignore[union-attr]
    sheet = Image.new("RGB", (len(panels) * (width + _GAP) - _GAP, height + strip), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (text, picture) in enumerate(panels.items()):
        left = i * (width + _GAP)
        sheet.paste(Image.fromarray(picture.on_screen()), (left, strip))
        draw.text((left + 4, strip // 5), text, fill="black", font=font)
    return from_array(np.asarray(sheet))


def _wxh(size: Size) -> str:
    return f"{size[1]} x {size[0]}"
