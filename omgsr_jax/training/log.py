"""What a run writes for people: scalars and pictures, for TensorBoard and for plain tools.

    workdir/metrics.jsonl          every scalar, a JSON line for each logged step
    workdir/images/                pictures as PNG
    workdir/events.out.tfevents.*  the same for TensorBoard

TensorBoard's format is records with checksums around small protocol buffers; writing it takes less
than depending on TensorFlow.
"""

import io
import json
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from .. import files
from ..errors import InputError

METRICS = "metrics.jsonl"


class Log:
    """Appends to the files in `workdir`; only the first process writes."""

    def __init__(self, workdir: str | Path):
        self.folder = Path(workdir)
        self._active = jax.process_index() == 0
        if not self._active:
            return
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        with self._failures_told():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lines = (self.folder / METRICS).open("ab+")
            self._end_line()
            self._events = (self.folder / name).open("ab")
            self._record(_field(3, b"brain.Event:2"))

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if not self._active:
            return
        summary = b"".join(
            _field(1, _field(1, name.encode()) + _float(2, value)) for name, value in values.items()
        )
        with self._failures_told():
            self._lines.write(json.dumps({"step": step, **values}).encode() + b"\n")
            self._lines.flush()
            self._record(_integer(2, step) + _field(5, summary))

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """`picture` is h w 3, uint8."""
        if not self._active:
            return
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "png")
        path = self.folder / "images" / f"{name}-{step:07d}.png"
        files.write_bytes(path, buffer.getvalue())
        h, w, channels = picture.shape
        image = _integer(1, h) + _integer(2, w) + _integer(3, channels)
        image += _field(4, buffer.getvalue())
        summary = _field(1, _field(1, name.encode()) + _field(4, image))
        with self._failures_told():
            self._record(_integer(2, step) + _field(5, summary))

    def close(self) -> None:
        if self._active:
            with suppress(OSError):  # a full disk has been told of already
                self._lines.close()
            with suppress(OSError):
                self._events.close()

    @contextmanager
    def _failures_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"the log in {self.folder} cannot be written: {error.strerror or error}. The "
                "checkpoints are untouched; the same command goes on from the last one"
            ) from error

    def _end_line(self) -> None:
        """A killed process may have left half a line: what comes next is not to be part of it."""
        if size := self._lines.seek(0, os.SEEK_END):
            self._lines.seek(size - 1)
            if self._lines.read(1) != b"\n":
                self._lines.write(b"\n")

    def _record(self, event: bytes) -> None:
        event = _double(1, time.time()) + event
        length = struct.pack("<Q", len(event))
        self._events.write(length + _checksum(length) + event + _checksum(event))
        self._events.flush()


def read(workdir: str | Path) -> dict[int, dict[str, float]]:
    """The scalars by step; where a resumed run repeated a step, those of the repetition."""
    found: dict[int, dict[str, float]] = {}
    path = Path(workdir) / METRICS
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    for line in lines:
        try:
            values = json.loads(line)
            step = values.pop("step")
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
            continue  # a killed process may have left half a line
        found.setdefault(step, {}).update(values)
    return found


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _float(number: int, value: float) -> bytes:
    return _varint(number << 3 | 5) + struct.pack("<f", value)


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # Castagnoli's polynomial
        table.append(value)
    return table


_TABLE = _crc_table()


def _checksum(content: bytes) -> bytes:
    """The masked CRC-32C of a record."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
