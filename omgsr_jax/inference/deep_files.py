"""Writers for what PIL cannot write: PNG with 16 bits per channel, and TIFF with 8 or 16.

A TIFF of ours says how its own pixels are stored, and of its source only what describes the
photograph.
"""

import struct
import zlib

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from ..files import Metadata

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels
_INCHES = 0.0254  # in metres
_LONG, _BYTE, _UNDEFINED = 4, 1, 7  # TIFF's field types
_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


def png(pixels: np.ndarray, metadata: Metadata | None = None) -> bytes:
    """A PNG of uint16 pixels (h w c, with 1 to 4 channels: grey, alpha, RGB, RGBA)."""
    data = metadata or Metadata()
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR_TYPES[channels], 0, 0, 0)
    lines = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    up = np.diff(lines, axis=0, prepend=np.zeros_like(lines[:1]))  # filter 2: minus the line above
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), up], axis=1)
    chunks = [(b"IHDR", header)]
    if data.icc:
        chunks.append((b"iCCP", b"icc\0\0" + zlib.compress(data.icc)))
    if data.dpi:
        across, down = (round(dots / _INCHES) for dots in data.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", across, down, 1)))
    if data.exif:
        chunks.append((b"eXIf", data.exif.removeprefix(b"Exif\0\0")))
    if data.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + data.xmp))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b"")]
    return _PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def tiff(pixels: np.ndarray, metadata: Metadata | None = None) -> bytes:
    """A little-endian TIFF of uint8 or uint16 pixels in one deflated strip."""
    height, width, channels = pixels.shape
    strip = zlib.compress(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes(), 6)
    fields = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    _describe(fields, metadata or Metadata())
    for tag in (256, 257, 273, 278, 279):
        fields.tagtype[tag] = _LONG
    fields[256], fields[257] = width, height
    fields[258] = (8 * pixels.dtype.itemsize,) * channels
    fields[259] = 8  # deflate
    fields[262] = 2 if channels >= 3 else 1  # RGB, or grey with black at 0
    fields[273] = 0  # the strip follows the directory: this is counted from its end
    fields[277] = channels
    fields[278] = height
    fields[279] = len(strip)
    fields[284] = 1  # channels interleaved
    if channels in (2, 4):
        fields[338] = 2  # alpha, not premultiplied
    return b"II*\0" + struct.pack("<I", 8) + fields.tobytes(8) + strip


def _describe(fields: TiffImagePlugin.ImageFileDirectory_v2, data: Metadata) -> None:
    exif = Image.Exif()
    exif.load(data.exif or b"")
    for tag in exif:
        fields[tag] = exif.get_ifd(tag) if tag in _DIRECTORIES else exif[tag]
    for tag, value, kind in ((700, data.xmp, _BYTE), (34675, data.icc, _UNDEFINED)):
        if value:
            fields.tagtype[tag] = kind
            fields[tag] = value
    if data.dpi:
        fields[282], fields[283], fields[296] = *data.dpi, 2  # to the inch
