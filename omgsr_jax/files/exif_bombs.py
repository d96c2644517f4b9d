"""EXIF data that claim more than there is memory for, found before Pillow reads them.

Pillow copies every value that EXIF names, and all of them may name the same bytes.
"""

import struct
from typing import Protocol

from PIL import Image

_MOST = 2**24  # bytes
_BOMB = f"its EXIF data are a bomb: they claim more than {_MOST >> 20} MB"
_HEAD = b"Exif\0\0"
_DIRECTORIES = (0x8769, 0x8825, 0xA005)  # tags that name further directories
_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # of TIFF's types
_AS_TEXT = "Raw profile type exif"  # as ImageMagick writes it: three lines, then in hexadecimal
_JPEG, _APP1 = b"\xff\xd8", 0xE1
_BEFORE_PIXELS = {*range(0xC0, 0xD0), *range(0xDB, 0xF0), 0xFE}  # markers with a length


class Stream(Protocol):
    def read(self, size: int) -> bytes: ...
    def seek(self, offset: int) -> object: ...


def refuse(image: Image.Image) -> None:
    """Of an image that is open: call this before asking for its EXIF data."""
    exif = image.info.get("exif") or b""  # pillow-heif sets None
    if not exif and (text := image.info.get(_AS_TEXT)):
        exif = bytes.fromhex("".join(text.split("\n")[3:]))
    _refuse(exif)


def refuse_in_jpeg(stream: Stream) -> None:
    """Pillow reads a JPEG's when it opens the file, from all segments that hold some."""
    exif, start = b"", stream.read(2)
    while start == _JPEG and len(head := stream.read(4)) == 4:
        if head[0] != 0xFF or head[1] not in _BEFORE_PIXELS:
            break
        data = stream.read(max(0, int.from_bytes(head[2:], "big") - 2))
        if head[1] == _APP1 and data.startswith(_HEAD):
            exif += data.removeprefix(_HEAD)
    stream.seek(0)
    _refuse(exif)


def _refuse(exif: bytes) -> None:
    if len(exif) > _MOST or _claimed(exif) > _MOST:
        raise ValueError(_BOMB)


def _claimed(exif: bytes) -> int:
    """Bytes that the values of all directories take."""
    exif = exif.removeprefix(_HEAD)
    order = "<" if exif[:2] == b"II" else ">"
    total, waiting, seen = 0, [4], set()
    while waiting:  # places of pointers to directories: the first, and those that it names
        place = waiting.pop()
        start = int.from_bytes(exif[place : place + 4], "little" if order == "<" else "big")
        if start in seen or start + 2 > len(exif):
            continue
        seen.add(start)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
            tag, kind, length = struct.unpack_from(f"{order}HHI", exif, entry)
            size = length * _SIZES.get(kind, 1)
            total += size if size <= len(exif) else 0  # what is not there is not copied
            if tag in _DIRECTORIES:
                waiting.append(entry + 8)
    return total
