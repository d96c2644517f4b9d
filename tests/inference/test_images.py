"""What a file holds survives: depth, grey, alpha, profile, EXIF, orientation."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from omgsr_jax.errors import InputError
from omgsr_jax.files import Metadata
from omgsr_jax.inference import deep_files, formats, images
from omgsr_jax.inference.pictures import from_array

from .conftest import photo

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def test_8_bit_png_is_kept_exactly(tmp_path):
    path, pixels = tmp_path / "a.png", photo(9, 13)
    Image.fromarray(pixels).save(path, icc_profile=SRGB, exif=_exif())
    picture = images.read(path)
    images.write(tmp_path / "b.png", picture)
    with Image.open(tmp_path / "b.png") as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)
        assert image.info["icc_profile"] == SRGB
        assert image.getexif()[ExifTags.Base.Make] == "Camera"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_are_kept_exactly(tmp_path, suffix, channels):
    pixels = np.random.default_rng(0).integers(0, 2**16, (7, 11, channels), np.uint16)
    path = tmp_path / f"a{suffix}"
    images.write(path, from_array(pixels))
    picture = images.read(path)
    assert picture.bits == 16
    assert picture.grey == (channels < 3 and (suffix, channels) != (".tiff", 2))
    np.testing.assert_array_equal(replace(picture, grey=channels < 3).pixels(), pixels)
    if channels in (1, 3):  # read by somebody else's decoder
        theirs = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(theirs.reshape(7, 11, -1)[..., ::-1], pixels)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_carry_the_profile(tmp_path, suffix):
    pixels = np.zeros((4, 4, 3), np.uint16)
    path = tmp_path / f"a{suffix}"
    images.write(path, replace(from_array(pixels), metadata=Metadata(icc=SRGB)))
    assert images.read(path).metadata.icc == SRGB


def test_16_bit_files_of_other_programs_are_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2**16, (6, 5, 3), np.uint16)
    for name in ("a.png", "a.tif"):
        cv2.imwrite(str(tmp_path / name), pixels[..., ::-1])
        np.testing.assert_array_equal(images.read(tmp_path / name).pixels(), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_removed(tmp_path, orientation):
    upright = Image.fromarray(photo(6, 10))
    # What a camera that was held this way stores: the inverse of what a viewer does.
    inverse = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = upright if inverse is None else upright.transpose(Image.Transpose(inverse))
    stored.save(tmp_path / "a.png", exif=_exif(orientation))
    picture = images.read(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels(), np.asarray(upright))
    exif = Image.Exif()
    exif.load(picture.metadata.exif)
    assert ExifTags.Base.Orientation not in exif
    assert exif[ExifTags.Base.Make] == "Camera"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bit_orientation_is_that_of_8_bits(tmp_path, orientation):
    pixels = photo(6, 10)
    Image.fromarray(pixels).save(tmp_path / "8.png", exif=_exif(orientation))
    deep = deep_files.png(
        pixels.astype(np.uint16) * 257, metadata=Metadata(exif=_exif(orientation).tobytes())
    )
    (tmp_path / "16.png").write_bytes(deep)
    shallow, deep = images.read(tmp_path / "8.png"), images.read(tmp_path / "16.png")
    np.testing.assert_array_equal(deep.pixels(8), shallow.pixels(8))


def test_palette_and_its_transparency(tmp_path):
    image = Image.fromarray(photo(8, 8)).quantize(8)
    image.save(tmp_path / "a.png", transparency=0)
    picture = images.read(tmp_path / "a.png")
    expected = np.asarray(Image.open(tmp_path / "a.png").convert("RGBA"))
    np.testing.assert_array_equal(picture.pixels(), expected)
    assert picture.alpha is not None


def test_grey_jpeg_stays_grey(tmp_path):
    Image.fromarray(photo(8, 8)[..., 0]).save(tmp_path / "a.jpg")
    picture = images.read(tmp_path / "a.jpg")
    assert picture.grey
    images.write(tmp_path / "b.jpg", picture)
    assert Image.open(tmp_path / "b.jpg").mode == "L"


def test_cmyk_becomes_rgb_without_its_profile(tmp_path):
    image = Image.fromarray(photo(8, 8)).convert("CMYK")
    image.save(tmp_path / "a.jpg", quality=95)
    picture = images.read(tmp_path / "a.jpg")
    assert picture.metadata.icc is None
    theirs = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
    np.testing.assert_array_equal(picture.pixels(), theirs)


def test_formats_without_alpha_get_white(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    images.write(tmp_path / "a.bmp", from_array(pixels))
    assert np.asarray(Image.open(tmp_path / "a.bmp")).min() == 255


@pytest.mark.parametrize("suffix", [s for s in formats.suffixes() if s not in (".heic", ".heif")])
def test_every_suffix_is_written_and_read(tmp_path, suffix):
    pixels = photo(96, 128)
    path = tmp_path / f"a{suffix}"
    images.write(path, replace(from_array(pixels), metadata=Metadata(SRGB, _exif().tobytes())))
    picture = images.read(path)
    # Lossy formats at high quality stay within a few steps on average.
    assert np.abs(picture.pixels().astype(int) - pixels).mean() < 6
    if suffix != ".bmp":
        assert picture.metadata.icc == SRGB
        assert picture.metadata.exif


def test_phones_jpegs_with_a_second_image_are_read(tmp_path):
    first, second = Image.fromarray(photo(8, 8)), Image.fromarray(photo(8, 8, seed=1))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    assert images.read(tmp_path / "a.jpg").size == (8, 8)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omgsr_jax.files.writing._create", full)
    with pytest.raises(InputError, match="No space left"):
        images.write(tmp_path / "a.png", from_array(photo()))
    assert list(tmp_path.iterdir()) == []
