"""TIFFs whose channels lie apart: each channel is read as a grey image of its own.

Neither PIL nor OpenCV reads them right with 16 bits, or with colours multiplied by their alpha. A
directory that names one channel's strips or tiles alone is put behind the file's own bytes.
"""

import io
import struct
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

_PLACES = {273: 279, 324: 325}  # where strips or tiles lie: their lengths
# Width, length, compression, rows of a strip, orientation, predictor, a tile's width and length.
_COMMON = (256, 257, 259, 278, 274, 317, 322, 323)
_AS_ONE = {262: [1], 277: [1]}  # black is zero, one channel
_BITS, _SAMPLES = 258, 277
_LONG = 4


def read(image: Image.Image, data: bytes) -> np.ndarray:
    """h w c, uint8 or uint16, upright: an image that is open and not decoded, and its file."""
    order = "<" if data[:2] == b"II" else ">"
    tags = image.tag_v2  # type: ignore[attr-defined]
    planes = []
    for channel in range(len(image.getbands())):
        fields = {tag: [tags[tag]] for tag in _COMMON if tag in tags} | _AS_ONE
        fields[_BITS] = [tags[_BITS][0]]
        for place, lengths in _PLACES.items():
            if place in tags:
                fields |= {
                    tag: _share(tags[tag], channel, tags[_SAMPLES]) for tag in (place, lengths)
                }
        with Image.open(io.BytesIO(_with_directory(data, fields, order)), formats=["TIFF"]) as grey:
            plane = np.asarray(grey)
            planes.append(plane.astype(plane.dtype.newbyteorder("=")))
    return np.stack(planes, axis=-1)


def _share(values: Sequence[int], channel: int, channels: int) -> list[int]:
    each = len(values) // channels
    return [*values[channel * each : (channel + 1) * each]]


def _with_directory(data: bytes, fields: Mapping[int, Sequence[int]], order: str) -> bytes:
    """The file with another directory in place of its own; `order` is struct's, of the bytes."""
    data += b"\0" * (len(data) % 2)
    beyond_at = len(data) + 2 + 12 * len(fields) + 4
    entries, beyond = struct.pack(f"{order}H", len(fields)), b""
    for tag, values in sorted(fields.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            packed, beyond = struct.pack(f"{order}I", beyond_at + len(beyond)), beyond + packed
        entries += struct.pack(f"{order}HHI", tag, _LONG, len(values)) + packed
    head = data[:4] + struct.pack(f"{order}I", len(data))
    return head + data[8:] + entries + b"\0\0\0\0" + beyond
