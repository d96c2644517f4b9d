"""TIFF files by hand: every way of storing pixels that programs use."""

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from .pngs import packed

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
SHORT, LONG, RATIONAL, BYTE, ASCII, UNDEFINED = 3, 4, 5, 1, 2, 7
_CODES = {SHORT: "H", LONG: "I", BYTE: "B", ASCII: "B", UNDEFINED: "B", RATIONAL: "I"}
RAW, DEFLATE, PACKBITS = 1, 8, 32773

Fields = Mapping[int, tuple[int, Sequence[int]]]  # tag: type, values


def tiff(
    samples: np.ndarray,  # h w c
    photometric: int,
    bits: int = 8,
    *,
    order: str = "<",
    compression: int = RAW,
    rows: int | None = None,
    tile: int | None = None,
    planar: bool = False,
    predictor: bool = False,
    fields: Fields | None = None,
) -> bytes:
    """One page. `rows` of a strip, or the side of a `tile`; `fields` are added or replaced."""
    height, width, channels = samples.shape
    planes = [samples[..., i : i + 1] for i in range(channels)] if planar else [samples]
    blocks = [block for plane in planes for block in _blocks(plane, rows or height, tile)]
    stored = [_compressed(_stored(b, bits, order, predictor), compression) for b in blocks]
    found: dict[int, tuple[int, Sequence[int]]] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [bits] * channels),
        259: (SHORT, [compression]),
        262: (SHORT, [photometric]),
        277: (SHORT, [channels]),
        284: (SHORT, [2 if planar else 1]),
    }
    if predictor:
        found[317] = (SHORT, [2])
    if tile:
        found |= {322: (SHORT, [tile]), 323: (SHORT, [tile])}
    else:
        found[278] = (LONG, [rows or height])
    return assemble([(found | dict(fields or {}), stored)], order, tiled=bool(tile))


def assemble(
    pages: Sequence[tuple[Fields, Sequence[bytes]]], order: str = "<", *, tiled: bool = False
) -> bytes:
    """Pages of fields and of blocks of pixels."""
    out = (b"II*\0" if order == "<" else b"MM\0*") + b"\0\0\0\0"
    link = 4
    for fields, blocks in pages:
        places = []
        for block in blocks:
            places.append(len(out))
            out += block + b"\0" * (len(block) % 2)
        where, lengths = (324, 325) if tiled else (273, 279)
        known = {where: (LONG, places), lengths: (LONG, [len(block) for block in blocks])}
        out = out[:link] + struct.pack(f"{order}I", len(out)) + out[link + 4 :]
        directory, link_in_it = _directory(known | dict(fields), len(out), order)
        link = len(out) + link_in_it
        out += directory
    return out


def _directory(fields: Fields, at: int, order: str) -> tuple[bytes, int]:
    entries, beyond = b"", b""
    beyond_at = at + 2 + 12 * len(fields) + 4
    for tag, (kind, values) in sorted(fields.items()):
        value = struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)
        if len(value) > 4:
            place = struct.pack(f"{order}I", beyond_at + len(beyond))
            beyond += value + b"\0" * (len(value) % 2)
            value = place
        count = len(values) // 2 if kind == RATIONAL else len(values)
        entries += struct.pack(f"{order}HHI", tag, kind, count) + value.ljust(4, b"\0")
    head = struct.pack(f"{order}H", len(fields)) + entries
    return head + b"\0\0\0\0" + beyond, len(head)


def _blocks(plane: np.ndarray, rows: int, tile: int | None) -> list[np.ndarray]:
    height, width, channels = plane.shape
    if not tile:
        return [plane[top : top + rows] for top in range(0, height, rows)]
    full = np.zeros((-(-height // tile) * tile, -(-width // tile) * tile, channels), plane.dtype)
    full[:height, :width] = plane
    return [
        full[top : top + tile, left : left + tile]
        for top in range(0, full.shape[0], tile)
        for left in range(0, full.shape[1], tile)
    ]


def _stored(block: np.ndarray, bits: int, order: str, predictor: bool) -> bytes:
    if predictor:
        block = np.diff(block, axis=1, prepend=np.zeros_like(block[:, :1]))
    return packed(block, bits, order).tobytes()


def _compressed(data: bytes, compression: int) -> bytes:
    if compression == DEFLATE:
        return zlib.compress(data)
    if compression == PACKBITS:  # literal runs alone
        parts = [data[i : i + 128] for i in range(0, len(data), 128)]
        return b"".join(bytes([len(part) - 1]) + part for part in parts)
    return data
