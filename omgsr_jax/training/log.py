"""What a run writes for people: scalars and pictures, for TensorBoard and for plain tools.

    workdir/metrics.jsonl          every scalar, a JSON line for each logged step
    workdir/images/                pictures as PNG
    workdir/events.out.tfevents.*  the same for TensorBoard

In a bucket each start of a run has metrics-TIME-NUMBER.jsonl and events of its own (appended.py).
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
from etils import epath
from PIL import Image

from .. import buckets, files
from ..errors import InputError
from .appended import Appended, File, Objects

METRICS = "metrics.jsonl"
_PART = "metrics-{}-{:04d}.jsonl"  # in a bucket, by the time of the start in milliseconds


class Log:
    """Appends to the files in `workdir`; only the first process writes."""

    def __init__(self, workdir: str | Path):
        self.folder = epath.Path(workdir)
        self._active = jax.process_index() == 0
        if not self._active:
            return
        with self._failures_told():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lines, self._events = self._opened(time.time())

    def _opened(self, now: float) -> tuple[Appended, Appended]:
        """For the lines and for TensorBoard."""
        events = f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}"
        version = _record(_field(3, b"brain.Event:2"))
        if buckets.is_remote(self.folder):
            return (
                Objects(lambda number: self.folder / _PART.format(int(1000 * now), number)),
                Objects(lambda number: self.folder / f"{events}.{number:04d}", version),
            )
        lines = File(Path(self.folder / METRICS))
        lines.end_line()
        records = File(Path(self.folder / events))
        records.write(version)
        return lines, records

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
            self._events.write(_record(_integer(2, step) + _field(5, summary)))
            self._events.flush()

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
            self._events.write(_record(_integer(2, step) + _field(5, summary)))
            self._events.flush()

    def sync(self) -> None:
        """Everything is written, so that no checkpoint is ahead of the log."""
        if self._active:
            with self._failures_told():
                self._lines.sync()
                self._events.sync()

    def close(self) -> None:
        if self._active:
            for written in (self._lines, self._events):
                with suppress(buckets.failures(self.folder)):  # it has been told of already
                    written.close()

    @contextmanager
    def _failures_told(self) -> Iterator[None]:
        try:
            yield
        except buckets.failures(self.folder) as error:
            raise InputError(
                f"the log in {self.folder} cannot be written: {buckets.reason(error)}. The "
                "checkpoints are untouched; the same command goes on from the last one"
            ) from error


def read(workdir: str | Path) -> dict[int, dict[str, float]]:
    """The scalars by step; where a resumed run repeated a step, those of the repetition."""
    found: dict[int, dict[str, float]] = {}
    buckets.require(workdir)
    folder = epath.Path(workdir)
    paths = sorted(folder.glob("metrics-*.jsonl")) or [folder / METRICS]
    try:
        lines = [line for path in paths for line in path.read_bytes().splitlines()]
    except buckets.failures(folder) as error:
        raise InputError(f"{paths[-1]} cannot be read: {buckets.reason(error)}") from error
    for line in lines:
        try:
            values = json.loads(line)
            step = values.pop("step")
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
            continue  # a killed process may have left half a line
        found.setdefault(step, {}).update(values)
    return found


def _record(event: bytes) -> bytes:
    event = _double(1, time.time()) + event
    length = struct.pack("<Q", len(event))
    return length + _checksum(length) + event + _checksum(event)


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
