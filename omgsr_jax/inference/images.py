"""Image files to pictures with all that they hold, and back: whole or not at all."""

import io
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

from PIL import Image

from .. import files
from ..errors import InputError
from ..files import decoding
from . import deep_files
from .formats import SAVING, require_suffix
from .pictures import Picture, from_array
from .sizes import MOST_PIXELS

_OPAQUE = ("JPEG", "BMP")
_DEEP = ("PNG", "TIFF")


def read(path: str | os.PathLike[str]) -> Picture:
    """The picture in a file, upright."""
    with files.open_image(path, most_pixels=MOST_PIXELS) as image:
        return _picture(image, os.fspath(path))


def decode(data: bytes | BinaryIO, name: str = "the image") -> Picture:
    """The picture in a file's bytes, or in a file that is open; `name` is for messages."""
    with files.open_image(data, name, most_pixels=MOST_PIXELS) as image:
        return _picture(image, name)


def from_pil(image: Image.Image, name: str = "the image") -> Picture:
    """An image that PIL has opened or made, upright. Opened and not decoded yet, it is as its file:
    PIL itself makes 8 bits of 16-bit colour."""
    with files.explained(name):
        files.require_at_most(image, MOST_PIXELS, name)
        return _picture(image, name)


def _picture(image: Image.Image, name: str) -> Picture:
    decoded = decoding.decode(image, name)
    metadata, notes = files.metadata_of(image, name)
    if decoded.is_srgb:
        metadata = replace(metadata, icc=None)
    picture = from_array(decoded.pixels)
    return replace(picture, metadata=metadata, notes=(*decoded.notes, *notes))


def write(path: str | os.PathLike[str], picture: Picture) -> Sequence[str]:
    """Writes in the format of the path's suffix, with all of the picture that it can hold; returns
    notes on what it cannot."""
    data, notes = encode(picture, require_suffix(path), os.fspath(path))
    files.write_bytes(path, data)
    return notes


def encode(picture: Picture, suffix: str, name: str = "the image") -> tuple[bytes, Sequence[str]]:
    """A file's bytes, and notes on what it cannot hold; `name` is for those."""
    kind, options = SAVING[suffix]
    if kind in _OPAQUE:
        picture = picture.opaque()
    if kind in ("TIFF", "HEIF") and picture.grey and (picture.alpha is not None or kind == "HEIF"):
        picture = replace(picture, grey=False)  # few programs read grey TIFFs with alpha
    metadata, notes = files.fitting(picture.metadata, kind, grey=picture.grey, name=name)
    if kind == "TIFF":
        return deep_files.tiff(picture.pixels(), metadata), notes
    if kind == "PNG" and picture.bits == 16:
        return deep_files.png(picture.pixels(), metadata), notes
    image, buffer = picture.bare_image(), io.BytesIO()
    try:
        image.save(buffer, kind, **options, **files.pillow_options(metadata, kind))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name}: {image.width} x {image.height} px cannot be written as {kind} ({error}); "
            ".png and .tif take any size"
        ) from error
    return buffer.getvalue(), notes
