"""What users call an image."""

import os
import warnings
from typing import Any

from PIL import Image

from ..files import LeftOutWarning
from . import images, pictures
from .pictures import Picture


def picture_of(image: Any) -> Picture:
    """From a path, a PIL image, bytes, an open file, or an array."""
    if isinstance(image, Picture):
        return image
    if isinstance(image, (str, os.PathLike)):
        picture = images.read(image)
    elif isinstance(image, Image.Image):
        picture = images.from_pil(image)
    elif isinstance(image, (bytes, bytearray, memoryview)) or hasattr(image, "read"):
        picture = images.decode(image)
    else:
        picture = pictures.from_array(image)
    for note in picture.notes:
        warnings.warn(note, LeftOutWarning, stacklevel=4)
    return picture


def name_of(image: Any, index: int, count: int) -> str:
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    return f"image {index + 1} of {count}"
