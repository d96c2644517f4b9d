"""Which formats of image files there are. Imports PIL when it is asked: see `omgsr --help`."""

import functools
import os
from pathlib import Path

from ..errors import InputError

# Suffix -> (PIL's name, how it is saved). What PIL has no encoder for is not offered.
SAVING: dict[str, tuple[str, dict]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 95}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".bmp": ("BMP", {}),
    ".avif": ("AVIF", {"quality": 90, "subsampling": "4:4:4"}),
    ".heic": ("HEIF", {"quality": 90}),
    ".heif": ("HEIF", {"quality": 90}),
}


@functools.cache
def suffixes() -> tuple[str, ...]:
    """The suffixes of files that can be read and written here."""
    from PIL import Image

    from .. import files

    return tuple(s for s in files.suffixes() if SAVING[s][0] in Image.SAVE)


def require_suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in suffixes():
        raise InputError(
            f"{path}: cannot write {suffix or 'a name without a suffix'}; expected one of "
            f"{' '.join(suffixes())}"
        )
    return suffix


def suffix_of_format(name: str) -> str:
    """What `--format` means: "png" and ".PNG" are ".png"."""
    suffix = f".{name.lstrip('.').lower()}"
    if suffix not in suffixes():
        raise InputError(f"format must be one of {' '.join(suffixes())}, not {name!r}")
    return suffix
