import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from omgsr_jax.data.images import (
    DamagedImageError,
    decode_image,
    list_images,
    read_image,
    write_image,
)
from omgsr_jax.errors import InputError
from omgsr_jax.files import write_bytes
from tests.data.photos import synthetic_photo

PHOTO = synthetic_photo(24, 32)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_16_bit_rgb(levels):
    """Pillow cannot write these, so by hand: IHDR, one IDAT, IEND."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    h, w, _ = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def test_a_written_image_is_read_back(tmp_path):
    write_image(tmp_path / "new" / "photo.png", PHOTO)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "photo.png"), PHOTO)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["photo.png"]


def test_grey_becomes_rgb():
    image = decode_image(encoded(Image.fromarray(PHOTO[..., 0])))
    np.testing.assert_array_equal(image, np.repeat(PHOTO[..., :1], 3, axis=2))


def test_sixteen_bits_are_scaled_not_clipped():
    levels = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 85
    expected = np.rint(levels / 257).astype(np.uint8)
    grey = decode_image(encoded(Image.fromarray(levels)))
    np.testing.assert_array_equal(grey[..., 1], expected)
    rgb = decode_image(png_16_bit_rgb(np.repeat(levels[..., None], 3, axis=2)))
    # Pillow drops the low byte of 16-bit RGB: one level at most.
    assert np.abs(rgb[..., 1].astype(int) - expected).max() <= 1


def test_what_is_transparent_lies_over_white():
    alpha = np.zeros((24, 32, 1), np.uint8)
    alpha[:12] = 255
    image = decode_image(encoded(Image.fromarray(np.concatenate([PHOTO, alpha], axis=2))))
    np.testing.assert_array_equal(image[:12], PHOTO[:12])
    assert (image[12:] == 255).all()


def test_a_palette_image_with_transparency_is_read():
    palette = Image.fromarray(PHOTO).quantize(16)
    image = decode_image(encoded(palette, transparency=0))
    colours = np.asarray(palette.convert("RGB"))
    opaque = np.asarray(palette) != 0
    np.testing.assert_array_equal(image[opaque], colours[opaque])
    assert (image[~opaque] == 255).all()


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    image = decode_image(encoded(Image.fromarray(PHOTO), exif=exif))
    np.testing.assert_array_equal(image, np.rot90(PHOTO, -1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_file_is_named(tmp_path, kind):
    path = tmp_path / f"cut.{kind.lower()}"
    data = encoded(Image.fromarray(synthetic_photo(100, 100)), kind)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedImageError, match=str(path)):
        read_image(path)


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DamagedImageError, match=r"text\.png is not an image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(DamagedImageError, match=r"gone\.png cannot be read: No such file"):
        read_image(tmp_path / "gone.png")
    hdr = encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    with pytest.raises(DamagedImageError, match="floating-point pixels"):
        decode_image(hdr)


def test_a_folder_is_listed_with_its_subfolders_in_order(tmp_path):
    for name in ("b.PNG", "sub/a.jpg", "a.webp", "notes.md", ".hidden/c.png"):
        write_bytes(tmp_path / name, b"")
    names = [path.removeprefix(f"{tmp_path}/") for path in list_images(tmp_path)]
    assert names == ["a.webp", "b.PNG", "sub/a.jpg"]


def test_a_list_names_its_images(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("omgsr_jax.buckets.require", asked.append)
    for name in ("a.png", "sub/b.png"):
        write_bytes(tmp_path / name, b"")
    (tmp_path / "list.txt").write_text(f"# two\nsub/b.png\n\n{tmp_path}/a.png\ngs://bucket/c.png\n")
    expected = [f"{tmp_path}/sub/b.png", f"{tmp_path}/a.png", "gs://bucket/c.png"]
    assert list_images(tmp_path / "list.txt") == expected
    assert "gs://bucket/c.png" in asked


def test_what_cannot_be_listed_is_explained(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist; expected a folder"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no images; the known kinds are \.png"):
        list_images(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"model\.bin is neither a folder"):
        list_images(tmp_path / "model.bin")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match="is empty; expected a path on each line"):
        list_images(tmp_path / "empty.txt")
    (tmp_path / "list.txt").write_text("\n" + "".join(f"gone{i}.png\n" for i in range(7)))
    message = r"lists 7 of 7 files that do not exist:\n  line 2: .*gone0\.png(.|\n)*and 2 more"
    with pytest.raises(InputError, match=message):
        list_images(tmp_path / "list.txt")
