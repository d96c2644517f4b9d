"""Writers for 16 bits per channel, which PIL cannot write in colour: PNG and TIFF."""

import struct
import zlib

import numpy as np

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels
_SHORT, _LONG, _UNDEFINED = 3, 4, 7  # TIFF's field types
_CODES = {_SHORT: "H", _LONG: "I", _UNDEFINED: "B"}


def png(pixels: np.ndarray, *, icc: bytes | None = None, exif: bytes | None = None) -> bytes:
    """A PNG of uint16 pixels (h w c, with 1 to 4 channels: grey, alpha, RGB, RGBA)."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR_TYPES[channels], 0, 0, 0)
    lines = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    up = np.diff(lines, axis=0, prepend=np.zeros_like(lines[:1]))  # filter 2: minus the line above
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), up], axis=1)
    chunks = [(b"IHDR", header)]
    if icc:
        chunks.append((b"iCCP", b"icc\0\0" + zlib.compress(icc)))
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b"")]
    return _PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def tiff(pixels: np.ndarray, *, icc: bytes | None = None, exif: bytes | None = None) -> bytes:
    """A little-endian TIFF of uint16 pixels in one deflated strip.

    EXIF would have to become tags of the file itself; it is not carried over here.
    """
    height, width, channels = pixels.shape
    strip = zlib.compress(pixels.astype("<u2").tobytes(), 6)
    fields = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [16] * channels),
        (259, _SHORT, [8]),  # deflate
        (262, _SHORT, [2 if channels >= 3 else 1]),  # RGB, or grey with black at 0
        (273, _LONG, [8]),  # the strip follows the header
        (277, _SHORT, [channels]),
        (278, _LONG, [height]),
        (279, _LONG, [len(strip)]),
        (284, _SHORT, [1]),  # channels interleaved
        *([(338, _SHORT, [2])] if channels in (2, 4) else []),  # alpha, not premultiplied
        *([(34675, _UNDEFINED, list(icc))] if icc else []),
    ]
    strip += b"\0" * (len(strip) % 2)
    directory_at = 8 + len(strip)
    beyond_at = directory_at + 2 + 12 * len(fields) + 4
    entries, beyond = b"", b""
    for tag, kind, values in fields:
        packed = struct.pack(f"<{len(values)}{_CODES[kind]}", *values)
        if len(packed) > 4:
            value = struct.pack("<I", beyond_at + len(beyond))
            beyond += packed + b"\0" * (len(packed) % 2)
        else:
            value = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind, len(values)) + value
    head = b"II*\0" + struct.pack("<I", directory_at)
    return head + strip + struct.pack("<H", len(fields)) + entries + b"\0\0\0\0" + beyond
