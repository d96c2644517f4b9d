"""Training images: finding and reading them; local paths, or addresses that epath knows."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from etils import epath
from PIL import Image

from .. import files
from ..errors import InputError
from ..files import DamagedImageError, decoding, write_image

__all__ = [
    "DamagedImageError",
    "decode_image",
    "list_images",
    "read_image",
    "signed",
    "write_image",
]

if TYPE_CHECKING:
    import jax

Levels = TypeVar("Levels", np.ndarray, "jax.Array")


def signed(levels: Levels) -> Levels:
    """uint8 as float32 in [-1, 1], as networks take images. Arrays of NumPy's or JAX's."""
    scaled = levels.astype(np.float32) * np.float32(2 / 255)
    # The limit changes nothing. Without it XLA makes one rounding of the product and the
    # difference, and a host's and a device's images are not the same to the last bit.
    return scaled.clip(max=2) - 1


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """h w 3 uint8 RGB, upright. Raises DamagedImageError, naming a file that cannot be decoded.

    Grey becomes RGB, 16 bits are scaled to 8, and whatever is transparent is laid over white.
    """
    with files.open_image(path) as image:
        return _rgb(image, os.fspath(path))


def decode_image(data: bytes, name: str = "the image") -> np.ndarray:
    """The same from a file's bytes. `name` is for messages."""
    with files.open_image(data, name) as image:
        return _rgb(image, name)


def list_images(
    source: str | os.PathLike[str], notify: Callable[[str], None] | None = None
) -> list[str]:
    """The images of a folder and its subfolders in sorted order, of a .txt list (a path a line,
    relative ones from the list's folder), or the one image itself.

    `notify` is told of the files of a folder that are passed over.
    """
    root = epath.Path(source)
    if root.suffix.lower() == files.LIST:
        return files.images_listed(root)
    if root.suffix.lower() in files.suffixes() and root.is_file():
        return [str(root)]
    if not root.exists():
        raise InputError(f"{source} does not exist; expected a folder of images or a .txt list")
    if not root.is_dir():
        raise InputError(f"{source} is neither a folder, a .txt list nor an image file")
    found = files.images_in(root)
    if not found.images:
        raise InputError(
            f"{source} holds no images; the known kinds are {' '.join(files.suffixes())}"
        )
    if notify and (mention := found.mention()):
        notify(mention)
    return found.images


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    decoded = decoding.decode(image, name)
    for note in decoded.notes:
        warnings.warn(note, files.LeftOutWarning, stacklevel=3)
    return decoded.rgb_over_white()
