"""What PIL does not see of a PNG: missing lines, a missing palette, and what a colour key means."""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

_FIRST, _HEADER, _PART = 8, 8, 2**16
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# Of Adam7: first row and column, steps down and across.
_PASSES = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
)


def prepare(image: Image.Image) -> None:
    """Of an image that is not decoded yet."""
    if image.mode == "P" and not image.palette:
        raise ValueError("it has no palette")
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int):
        # PIL makes 8 bits of 2 or 4 bits of grey, and not of the grey that is transparent.
        stored = image.tile[0][3]  # type: ignore[attr-defined]
        image.info["transparency"] = key * {"L;2": 85, "L;4": 17}.get(stored, 1)


def require_whole(image: Image.Image, stream: BinaryIO) -> None:
    """PIL leaves lines at zero that the file does not hold. Only then are they counted."""
    if np.asarray(image.crop((0, image.height - 1, image.width, image.height))).any():
        return
    stream.seek(_FIRST + _HEADER)
    head = stream.read(13)
    if not _holds(stream, _expected(head)):
        raise ValueError("some of its lines are missing")


def _expected(head: bytes) -> int:
    width, height = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:8], "big")
    bits = head[8] * _CHANNELS[head[9]]
    passes = _PASSES if head[12] else ((0, 0, 1, 1),)
    sizes = [(-(-(height - y) // dy), -(-(width - x) // dx)) for y, x, dy, dx in passes]
    return sum(rows * (1 + -(-columns * bits // 8)) for rows, columns in sizes if columns > 0)


def _holds(stream: BinaryIO, length: int) -> bool:
    """Whether so many bytes of pixels can be inflated."""
    inflater = zlib.decompressobj()
    for data in _pixel_data(stream):
        while data and length > 0 and not inflater.eof:
            length -= len(inflater.decompress(data, _PART))
            data = inflater.unconsumed_tail
    return length <= 0


def _pixel_data(stream: BinaryIO) -> Iterator[bytes]:
    stream.seek(_FIRST)
    while (head := stream.read(_HEADER))[4:].isalpha() and head[4:] != b"IEND":
        size = int.from_bytes(head[:4], "big")
        if head[4:] == b"IDAT":
            yield stream.read(size)
            size = 0
        stream.seek(size + 4, 1)
