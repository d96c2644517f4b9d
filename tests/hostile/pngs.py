"""PNG files by hand: every colour type and depth, and whatever else may stand in one."""

import itertools
import struct
import zlib
from collections.abc import Sequence

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6

Chunk = tuple[bytes, bytes]


def png(
    samples: np.ndarray,  # h w c
    colour: int,
    bits: int = 8,
    *,
    before: Sequence[Chunk] = (),
    after: Sequence[Chunk] = (),
    filter_type: int = 0,
    parts: int = 1,
    interlaced: bool = False,
    size: tuple[int, int] | None = None,
) -> bytes:
    """`before` and `after` are chunks around the pixels; `size` is a lie about height and width."""
    height, width = size or samples.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    passes = _adam7(samples) if interlaced else [samples]
    lines = b"".join(_lines(part, bits, filter_type) for part in passes)
    data = zlib.compress(lines)
    cuts = [len(data) * i // parts for i in range(parts + 1)]
    pixels = [(b"IDAT", data[a:b]) for a, b in itertools.pairwise(cuts)]
    return assemble([(b"IHDR", head), *before, *pixels, *after, (b"IEND", b"")])


def assemble(chunks: Sequence[Chunk]) -> bytes:
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _adam7(samples: np.ndarray) -> list[np.ndarray]:
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4))
    starts += ((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    parts = [samples[top::down, left::across] for top, left, down, across in starts]
    return [part for part in parts if part.size]


def _lines(samples: np.ndarray, bits: int, filter_type: int) -> bytes:
    rows = packed(samples, bits)
    step = max(1, samples.shape[-1] * bits // 8)
    above = np.zeros_like(rows[0])
    out = b""
    for row in rows:
        left = np.concatenate([np.zeros(step, np.uint8), row[:-step]])
        corner = np.concatenate([np.zeros(step, np.uint8), above[:-step]])
        guess = (0 * row, left, above, _mean(left, above), _paeth(left, above, corner))[filter_type]
        out += bytes([filter_type]) + (row - guess).tobytes()
        above = row
    return out


def packed(samples: np.ndarray, bits: int, order: str = ">") -> np.ndarray:
    """Rows of bytes: samples of 1 to 16 bits, filled up to whole bytes."""
    flat = samples.reshape(len(samples), -1)
    if bits == 16:
        return np.frombuffer(flat.astype(f"{order}u2").tobytes(), np.uint8).reshape(len(flat), -1)
    if bits == 8:
        return flat.astype(np.uint8)
    each = (flat[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(each.reshape(len(flat), -1).astype(np.uint8), axis=1)


def _mean(left: np.ndarray, above: np.ndarray) -> np.ndarray:
    return ((left.astype(int) + above) // 2).astype(np.uint8)


def _paeth(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    a, b, c = (part.astype(int) for part in (left, above, corner))
    by_a, by_b, by_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    near = np.where(by_b <= by_c, b, c)
    return np.where((by_a <= by_b) & (by_a <= by_c), a, near).astype(np.uint8)
