"""Image files, opened: named formats only, the header checked before a pixel is decoded."""

import functools
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from etils import epath
from PIL import Image, UnidentifiedImageError

from .. import buckets
from ..errors import InputError
from . import exif_bombs

# Pillow knows more, and some of it starts other programs (an EPS reaches Ghostscript).
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "AVIF", "HEIF", "GIF", "PPM", "JPEG2000")
_ORIENTATION = 0x0112  # EXIF
_TIFF_BITS = 258
# No file needs more than 16 bytes for a pixel, and this for everything else that it says.
_BYTES_A_PIXEL, _BYTES_BESIDES = 16, 2**28
_MOST_READS = 2**17
_MOST_BYTES = 2**30  # of a file whose header is not looked at
_LATE_EXIF = (b"XML:com.adobe.xmp", b"Raw profile type exif")  # PNG's keywords for it
_LONGEST_REASON = 200


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
    source: str | os.PathLike[str] | bytes | BinaryIO,
    name: str | None = None,
    *,
    most_pixels: int | None = None,
) -> Iterator[Image.Image]:
    """An image file whose header is read, and nothing else; the block decodes.

    Whatever goes wrong, in the block too, is a DamagedImageError that names the file.

    Args:
        source: a path, an address that epath knows, the content of a file, or a file that is open
            for reading bytes. That is read from its beginning, stays open, and stands afterwards
            where it stood.
        name: for messages; by default the path.
        most_pixels: the largest image to take; Pillow has a limit of its own.
    """
    if name is None:
        name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "the image"
    with explained(name), _stream(source, name) as stream:
        if not stream.read(1):
            raise DamagedImageError(f"{name} is empty")
        stream.seek(0)
        bounded = _Bounded(stream)
        exif_bombs.refuse_in_jpeg(bounded)
        with Image.open(bounded, formats=formats()) as image:  # type: ignore[arg-type]
            if most_pixels:
                require_at_most(image, most_pixels, name)
            bounded.allow(image.width * image.height)
            yield image


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Whatever goes wrong with an image in the block is a DamagedImageError that names it."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DamagedImageError(f"{name} is not an image that can be read here") from error
    except Image.DecompressionBombError as error:
        raise DamagedImageError(f"{name} is too large to be opened safely: {error}") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and more
        reason = str(error) or type(error).__name__
        raise DamagedImageError(f"{name} is damaged: {reason[:_LONGEST_REASON]}") from error


def require_at_most(image: Image.Image, most_pixels: int, name: str) -> None:
    if image.width * image.height > most_pixels:
        raise DamagedImageError(
            f"{name} has {image.width} x {image.height} px; the limit is "
            f"{most_pixels / 1e6:.0f} megapixels"
        )


def header(source: str | os.PathLike[str] | bytes, name: str | None = None) -> Header:
    """What a file says of itself, without decoding it."""
    with open_image(source, name) as image:
        width, height = image.size
        bits = bits_of(image)  # first: asking for EXIF may decode
        # Pillow turns TIFFs itself, and says so from the start.
        if image.format == "TIFF" or not _may_have_exif(image):
            return Header((height, width), bits)
        if image.format == "PNG" and "exif" not in image.info:
            image.load()  # it may follow the pixels
        exif_bombs.refuse(image)
        lying = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        return Header((width, height) if lying else (height, width), bits)


def _may_have_exif(image: Image.Image) -> bool:
    """Pillow decodes a PNG to see whether EXIF follows its pixels: its chunks say that, too."""
    if image.format != "PNG" or "exif" in image.info:
        return True
    stream = image.fp  # type: ignore[attr-defined]
    before, position, found = stream.tell(), 8, False
    while not found:
        stream.seek(position)
        chunk = stream.read(8 + len(_LATE_EXIF[1]))
        kind, text = chunk[4:8], chunk[8:]
        if not kind.isalpha() or kind == b"IEND":  # or nothing that is a chunk
            break
        found = kind == b"eXIf" or (kind.lower().endswith(b"txt") and text.startswith(_LATE_EXIF))
        position += 12 + int.from_bytes(chunk[:4], "big")
    stream.seek(before)
    return found


def is_decoded(image: Image.Image) -> bool:
    """Whether the pixels are those in memory, not those of a file that is still to be decoded."""
    return not getattr(image, "tile", None)


def bits_of(image: Image.Image) -> int:
    """Bits of a channel. In a file that is not decoded yet they are those of the file: Pillow makes
    8 bits of 16-bit colour."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return 16
    if is_decoded(image):
        return 8
    if image.format == "PNG":
        tiles = image.tile  # type: ignore[attr-defined]
        return 16 if ";16" in str(tiles[0][3]) else 8
    if image.format == "TIFF":
        bits = image.tag_v2.get(_TIFF_BITS, (8,))  # type: ignore[attr-defined]
        return max(8, *bits)
    return 8


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
            if stream.seek(0, io.SEEK_END) > _MOST_BYTES:
                raise DamagedImageError(f"{name} has more bytes than any image that can be read")
            stream.seek(0)
            return stream.read()
        except OSError as error:
            raise DamagedImageError(f"{name} cannot be read: {error.strerror or error}") from error


@contextmanager
def _stream(source: str | os.PathLike[str] | bytes | BinaryIO, name: str) -> Iterator[BinaryIO]:
    if isinstance(source, (str, os.PathLike)):
        with _file(source, name) as stream:
            yield stream
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield io.BytesIO(source)
    elif isinstance(source, io.TextIOBase):
        raise InputError(f"{name} is a file opened as text; open it with mode 'rb'")
    elif not source.seekable():
        yield io.BytesIO(source.read(_MOST_BYTES))
    else:
        before = source.tell()
        try:
            source.seek(0)
            yield source
        finally:
            source.seek(before)


def _file(source: str | os.PathLike[str], name: str) -> BinaryIO:
    """A file to read. Opening a pipe or a device could wait for ever: they are refused."""
    if buckets.is_remote(source):
        return _downloaded(source, name)
    try:
        mode = os.stat(source).st_mode
        if stat.S_ISREG(mode):
            return open(source, "rb")
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise DamagedImageError(f"{name} cannot be read: {reason}") from error
    kind = "a directory" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
    raise DamagedImageError(f"{name} is {kind}, not an image")


def _downloaded(source: str | os.PathLike[str], name: str) -> BinaryIO:
    buckets.require(source)
    try:
        return io.BytesIO(epath.Path(source).read_bytes())
    except Exception as error:
        raise DamagedImageError(f"{name} cannot be read: {buckets.reason(error)}") from error


class _Bounded:
    """A file that is not read without end: gigabytes may lie behind a few bytes of header."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._bytes, self._reads = _BYTES_BESIDES, _MOST_READS
        self.seek, self.tell, self.close = stream.seek, stream.tell, lambda: None

    @property
    def closed(self) -> bool:
        return self._stream.closed

    def allow(self, pixels: int) -> None:
        """The header is known, and so many pixels are to be read."""
        self._bytes = _BYTES_BESIDES + _BYTES_A_PIXEL * pixels
        self._reads = _MOST_READS + pixels

    def read(self, size: int = -1) -> bytes:
        most = self._bytes + 1
        data = self._stream.read(most if size is None or size < 0 else min(size, most))
        self._bytes, self._reads = self._bytes - len(data), self._reads - 1
        if self._bytes < 0 or self._reads < 0:
            raise ValueError("it says more besides its pixels than can be read safely")
        return data
