"""Folders that do not fit say so before anything is computed."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from omgsr_jax.evaluation import PairError
from omgsr_jax.evaluation.pairs import Pair, find_pairs, in_batches, read_opaque
from tests.evaluation.images import save

GREY = np.full((24, 32, 3), 99, np.uint8)


def write_16bit_png(path, height, width):
    """RGB of 16 bits per channel, which Pillow cannot write."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    rows = b"".join(b"\0" + b"\x12\x34" * 3 * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def error(*args, **options):
    with pytest.raises(PairError) as caught:
        find_pairs(*args, **options)
    return str(caught.value)


def test_pairs_are_found_by_name_whatever_the_suffix(tmp_path):
    sr = save(tmp_path / "sr", {"b.png": GREY, "a.jpg": GREY, "notes.png": GREY})
    (sr / "notes.png").rename(sr / "notes.txt")
    hr = save(tmp_path / "hr", {"a.png": GREY, "b.webp": GREY})
    lr = save(tmp_path / "lr", {"a.png": GREY[:6, :8], "b.png": GREY[:6, :8]})
    pairs = find_pairs(sr, hr, lr)
    assert [(p.name, p.sr.name, p.hr.name, p.lr.name) for p in pairs] == [
        ("a", "a.jpg", "a.png", "a.png"),
        ("b", "b.png", "b.webp", "b.png"),
    ]
    assert pairs[0].size == (24, 32)


def test_missing_partners_are_all_named(tmp_path):
    sr = save(tmp_path / "sr", {"a.png": GREY, "extra.png": GREY})
    hr = save(tmp_path / "hr", {"a.png": GREY, "left.png": GREY})
    message = error(sr, hr)
    assert "1 output(s)" in message
    assert "extra" in message
    assert "1 reference(s)" in message
    assert "left" in message
    assert "extra" in error(sr, hr, subset=True)


def test_references_without_output_are_allowed_when_asked(tmp_path):
    sr = save(tmp_path / "sr", {"a.png": GREY})
    hr = save(tmp_path / "hr", {"a.png": GREY, "b.png": GREY})
    assert "--subset" in error(sr, hr)
    assert [pair.name for pair in find_pairs(sr, hr, subset=True)] == ["a"]


def test_long_lists_are_cut(tmp_path):
    sr = save(tmp_path / "sr", {"a.png": GREY})
    hr = save(tmp_path / "hr", {f"{i}.png": GREY for i in range(9)} | {"a.png": GREY})
    assert "... and 4 more" in error(sr, hr)


def test_other_sizes_are_told_as_width_by_height(tmp_path):
    sr = save(tmp_path / "sr", {"a.png": GREY[:, :24]})
    hr = save(tmp_path / "hr", {"a.png": GREY})
    assert "a: the output is 24x24, the reference 32x24" in error(sr, hr)
    lr = save(tmp_path / "lr", {"a.png": GREY[:7, :8]})
    assert "a: the input is 8x7, no reduction of 32x24" in error(hr, hr, lr)


def test_16_bit_images_are_not_quietly_read_as_8_bit(tmp_path):
    sr = save(tmp_path / "sr", {"a.png": GREY})
    (tmp_path / "hr").mkdir()
    write_16bit_png(tmp_path / "hr" / "a.png", 24, 32)
    with Image.open(tmp_path / "hr" / "a.png") as image:
        assert image.mode == "RGB"  # that is why the header is read
    assert "the output has 8 bits per channel, the reference 16" in error(sr, tmp_path / "hr")
    assert "16 bits per channel; the metrics" in error(tmp_path / "hr", tmp_path / "hr")
    Image.fromarray(np.zeros((24, 32), np.uint16)).save(sr / "b.tif")
    assert "b: 16 bits" in error(sr, sr)


def test_folders_without_images_and_files_that_are_none(tmp_path):
    hr = save(tmp_path / "hr", {"a.png": GREY})
    (tmp_path / "empty").mkdir()
    assert "holds no images" in error(tmp_path / "empty", hr)
    assert "is not a folder" in error(tmp_path / "absent", hr)
    broken = save(tmp_path / "broken", {})
    (broken / "a.png").write_bytes(b"no image")
    assert "a.png is not an image that can be read here" in error(broken, hr)
    twice = save(tmp_path / "twice", {"a.png": GREY, "a.jpg": GREY})
    assert "both a.jpg and a.png" in error(twice, hr)


def test_images_are_read_upright_opaque_and_as_rgb(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(GREY).save(tmp_path / "turned.jpg", exif=exif)
    assert read_opaque(tmp_path / "turned.jpg").shape == (32, 24, 3)
    Image.fromarray(GREY[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_opaque(tmp_path / "grey.png"), GREY)
    clear = np.dstack([GREY, np.full((24, 32), 255, np.uint8)])
    Image.fromarray(clear).save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_opaque(tmp_path / "opaque.png"), GREY)
    clear[0, 0, 3] = 0
    Image.fromarray(clear).save(tmp_path / "clear.png")
    with pytest.raises(PairError, match="transparent"):
        read_opaque(tmp_path / "clear.png")


def test_batches_hold_one_size_and_are_drawn_as_they_are_used():
    drawn = []

    def stream():
        for i, height in enumerate([8, 8, 8, 9, 9]):
            drawn.append(i)
            yield Pair(str(i), np.zeros((height, 8, 3)), np.zeros((height, 8, 3)))

    batches = in_batches(stream(), 2)
    assert [pair.name for pair in next(batches)] == ["0", "1"]
    assert len(drawn) == 3
    assert [[pair.name for pair in batch] for batch in batches] == [["2"], ["3", "4"]]
