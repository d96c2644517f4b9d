"""A labelled picture of input and output side by side."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .pictures import Picture, from_array, resize

_GAP = 8


def side_by_side(source: Picture, result: Picture) -> Picture:
    """The input, enlarged bicubically to the output's size, beside the output."""
    height, width = result.size
    enlarged = np.clip(resize(source.opaque().rgb, result.size), 0, 1)
    texts = (
        f"input {source.size[1]} x {source.size[0]}, bicubic",
        f"restored {width} x {height}",
    )
    font = ImageFont.load_default(size=max(10, min(28, width // 24)))
    strip = int(font.size * 1.8)  # type: ignore[union-attr]
    sheet = Image.new("RGB", (2 * width + _GAP, height + strip), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (rgb, text) in enumerate(zip((enlarged, result.opaque().rgb), texts, strict=True)):
        left = i * (width + _GAP)
        sheet.paste(Image.fromarray(np.round(rgb * 255).astype(np.uint8)), (left, strip))
        draw.text((left + 4, strip // 5), text, fill="black", font=font)
    return from_array(np.asarray(sheet))
