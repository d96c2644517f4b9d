"""TensorBoard's files, read back by a reader of their own."""

import io
import struct

import numpy as np
from PIL import Image

from omgsr_jax.training import log


def _records(content):
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        assert content[8:12] == log._checksum(content[:8])
        record = content[12 : 12 + length]
        assert content[12 + length : 16 + length] == log._checksum(record)
        yield record
        content = content[16 + length :]


def _varint(content):
    value, shift = 0, 0
    for i, byte in enumerate(content):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, content[i + 1 :]
    raise AssertionError("cut off")


def _fields(content):
    """The fields of a protocol buffer: number -> list of values."""
    found = {}
    while content:
        tag, content = _varint(content)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, content = _varint(content)
        elif kind == 2:
            length, content = _varint(content)
            value, content = content[:length], content[length:]
        else:
            size, code = {5: (4, "<f"), 1: (8, "<d")}[kind]
            (value,) = struct.unpack(code, content[:size])
            content = content[size:]
        found.setdefault(number, []).append(value)
    return found


def test_checksum_is_the_published_one_of_crc32c():
    """RFC 3720, B.4: 32 bytes of zeros have CRC-32C 0x8A9136AA; then TensorFlow's mask."""
    crc = 0x8A9136AA
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert log._checksum(bytes(32)) == struct.pack("<I", masked)


def test_scalars_and_pictures_come_back_from_every_file(tmp_path):
    written = log.Log(tmp_path)
    picture = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    written.scalars(300, {"ldr": 0.25, "time/step": 2.0})
    written.image(300, "validation", picture)
    written.close()
    (events,) = tmp_path.glob("events.out.tfevents.*")
    version, scalars, image = map(_fields, _records(events.read_bytes()))
    assert version[3] == [b"brain.Event:2"]
    assert scalars[2] == [300]
    values = [_fields(value) for value in _fields(scalars[5][0])[1]]
    assert {v[1][0]: v[2][0] for v in values} == {b"ldr": 0.25, b"time/step": 2.0}
    (value,) = (_fields(value) for value in _fields(image[5][0])[1])
    content = _fields(value[4][0])
    assert (content[1], content[2]) == ([4], [5])
    np.testing.assert_array_equal(Image.open(io.BytesIO(content[4][0])), picture)
    assert log.read(tmp_path) == {300: {"ldr": 0.25, "time/step": 2.0}}


def test_half_a_line_of_a_killed_process_is_passed_over(tmp_path):
    (tmp_path / log.METRICS).write_text('{"step": 1, "a": 1}\n{"step": 2, "a"')
    assert log.read(tmp_path) == {1: {"a": 1}}
