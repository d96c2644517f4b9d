"""Image files, opened: named formats only, the header checked before a pixel is decoded."""

import functools
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from etils import epath
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError

# Pillow knows more, and some of it starts other programs (an EPS reaches Ghostscript).
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "AVIF", "HEIF", "GIF", "PPM", "JPEG2000")
_ORIENTATION = 0x0112  # EXIF
_TIFF_BITS = 258
# No file needs more than 16 bytes for a pixel, and this for everything else that it says.
_BYTES_A_PIXEL, _BYTES_BESIDES = 16, 2**28


class DamagedImageError(InputError):
    """A file that should hold an image, and cannot be read or decoded."""


@dataclass(frozen=True)
class Header:
    """What an image file says of itself."""

    size: tuple[int, int]  # height, width, as displayed
    bits: int  # of a channel, at least 8


@functools.cache
def formats() -> tuple[str, ...]:
    """Those of the formats that can be read here: HEIF takes a package, AVIF a recent Pillow."""
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def open_image(
    source: str | os.PathLike[str] | bytes,
    name: str | None = None,
    *,
    most_pixels: int | None = None,
) -> Iterator[Image.Image]:
    """An image file whose header is read, and nothing else; the block decodes.

    Whatever goes wrong, in the block too, is a DamagedImageError that names the file.

    Args:
        source: a path, an address that epath knows, or the content of a file.
        name: for messages; by default the path.
        most_pixels: the largest image to take; Pillow has a limit of its own.
    """
    if name is None:
        name = "the image" if isinstance(source, bytes) else os.fspath(source)
    try:
        with _stream(source, name) as stream:
            if not stream.read(1):
                raise DamagedImageError(f"{name} is empty")
            stream.seek(0)
            with _opened(stream) as image:
                if most_pixels and image.width * image.height > most_pixels:
                    raise DamagedImageError(
                        f"{name} has {image.width} x {image.height} px; the limit is "
                        f"{most_pixels / 1e6:.0f} megapixels"
                    )
                yield image
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DamagedImageError(f"{name} is not an image that can be read here") from error
    except Image.DecompressionBombError as error:
        raise DamagedImageError(f"{name} is too large to be opened safely: {error}") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and more
        raise DamagedImageError(f"{name} is damaged: {error}") from error


def header(path: str | os.PathLike[str]) -> Header:
    """What a file says of itself, without decoding it."""
    with open_image(path) as image:
        width, height = image.size
        bits = bits_of(image)  # first: asking for EXIF may decode
        lying = _may_have_exif(image) and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        return Header((width, height) if lying else (height, width), bits)


def _may_have_exif(image: Image.Image) -> bool:
    """Pillow decodes a PNG to see whether EXIF follows its pixels: its chunks say that, too."""
    if image.format != "PNG" or "exif" in image.info:
        return True
    stream = image.fp  # type: ignore[attr-defined]
    before, position, kind = stream.tell(), 8, b""
    while kind != b"eXIf":
        stream.seek(position)
        length, kind = stream.read(4), stream.read(4)
        if len(kind) < 4 or kind == b"IEND":
            break
        position += 12 + int.from_bytes(length, "big")
    stream.seek(before)
    return kind == b"eXIf"


def bits_of(image: Image.Image) -> int:
    """Bits of a channel in the file. Ask before decoding: Pillow makes 8 bits of 16-bit colour."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return 16
    if image.format == "PNG":
        tiles = getattr(image, "tile", None)  # how the pixels are stored, until they are decoded
        return 16 if tiles and ";16" in str(tiles[0][3]) else 8
    if image.format == "TIFF" and hasattr(image, "tag_v2"):
        return max(8, *image.tag_v2.get(_TIFF_BITS, (8,)))
    return 8


def upright(image: Image.Image) -> Image.Image:
    """The image turned the way its EXIF orientation says."""
    return ImageOps.exif_transpose(image)


def content(image: Image.Image) -> bytes:
    """The bytes of the file of an image that is not decoded yet."""
    stream = image.fp  # type: ignore[attr-defined]
    before, size = stream.tell(), stream.seek(0, io.SEEK_END)
    if size > _BYTES_BESIDES + _BYTES_A_PIXEL * image.width * image.height:
        raise ValueError(f"{size} bytes are too many for {image.width} x {image.height} px")
    stream.seek(0)
    data: bytes = stream.read()
    stream.seek(before)
    return data


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file, or a DamagedImageError that says why there is none."""
    name = os.fspath(path)
    with _stream(path, name) as stream:
        try:
            return stream.read()
        except OSError as error:
            raise DamagedImageError(f"{name} cannot be read: {error.strerror or error}") from error


def _stream(source: str | os.PathLike[str] | bytes, name: str) -> BinaryIO:
    """A file to read. Opening a pipe or a device could wait for ever: they are refused."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        if "://" in os.fspath(source):
            return io.BytesIO(epath.Path(source).read_bytes())
        mode = os.stat(source).st_mode
        if stat.S_ISREG(mode):
            return open(source, "rb")
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise DamagedImageError(f"{name} cannot be read: {reason}") from error
    kind = "a directory" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
    raise DamagedImageError(f"{name} is {kind}, not an image")


def _opened(stream: BinaryIO) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(stream, formats=formats())
