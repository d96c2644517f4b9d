"""HTML pages that are one file: pictures and figures inside it, no request to anywhere."""

import base64
import io
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from PIL import Image

LONGEST_SIDE = 16383  # px of a WebP


def filled(template: str, blanks: Mapping[str, str]) -> str:
    """A template of this folder with its {{BLANKS}}."""
    page = files(__package__).joinpath(template).read_text(encoding="utf-8")
    # In one pass: a folder may be called {{DATA}}.
    return re.sub(r"\{\{([A-Z_]+)\}\}", lambda blank: blanks[blank[1]], page)


def embedded(data: Mapping[str, Any]) -> str:
    """For a script element of JSON."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")  # which would let a file's name end the element


def data_uri(image: Image.Image, **how: Any) -> str:
    """`how` are Pillow's options."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **{"quality": 92, "method": 4, **how})
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
