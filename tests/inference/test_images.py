"""What a file holds survives: depth, grey, alpha, profile, EXIF, orientation."""

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

import omgsr_jax
from omgsr_jax.errors import InputError
from omgsr_jax.files import Metadata
from omgsr_jax.inference import deep_files, formats, images
from omgsr_jax.inference import upscaler as upscaler_module
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


_XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:title="a"/></x:xmpmeta>'
_KINDS = {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF", ".webp": "WEBP"}


def _with_all(path, kind: str) -> None:
    """A file that says all that it can."""
    exif = _exif()
    if kind != "TIFF":
        exif[ExifTags.Base.PhotometricInterpretation] = 6  # must not get anywhere
    for directory, values in (
        (ExifTags.IFD.Exif, {0x9003: "2024:05:01 12:00:00", 0xA002: 10}),
        (ExifTags.IFD.GPSInfo, {1: "N"}),
    ):
        exif.get_ifd(directory).update(values)
        if kind == "TIFF":  # Pillow writes these there only if they are entries, too
            exif[directory] = 0
    options = {"icc_profile": SRGB, "exif": exif, "xmp": _XMP, "dpi": (300, 150)}
    if kind == "WEBP":
        exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = 300.0, 150.0
    if kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", _XMP.decode())
    if kind == "TIFF":
        exif[700] = _XMP
    Image.fromarray(photo(8, 8)).save(path, kind, **options)


@pytest.mark.parametrize("bits", [8, 16])
def test_resolution_xmp_exif_and_profile_go_from_every_format_to_every_other(tmp_path, bits):
    for source, kind in _KINDS.items():
        _with_all(tmp_path / f"a{source}", kind)
        picture = replace(images.read(tmp_path / f"a{source}"), bits=bits)
        for goal in _KINDS:
            assert images.write(tmp_path / f"b{goal}", picture) == []
            kept = images.read(tmp_path / f"b{goal}").metadata
            names = f"{source} to {goal}"
            np.testing.assert_allclose(kept.dpi, (300, 150), atol=0.02, err_msg=names)
            assert b'dc:title="a"' in kept.xmp, names
            assert b"Orientation" not in kept.xmp, names
            assert kept.icc == SRGB, names
            exif = Image.Exif()
            exif.load(kept.exif)
            assert exif[ExifTags.Base.Make] == "Camera", names
            assert exif.get_ifd(ExifTags.IFD.Exif) == {0x9003: "2024:05:01 12:00:00"}, names
            assert exif.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N", names
            with Image.open(tmp_path / f"b{goal}") as image:
                assert ExifTags.Base.Orientation not in image.getexif(), names


def test_a_profile_for_other_pixels_is_left_out_with_a_note(tmp_path):
    picture = replace(from_array(photo(8, 8)[..., :1]), metadata=Metadata(icc=SRGB))
    [note] = images.write(tmp_path / "a.png", picture)
    assert "a.png: the colour profile is not for grey pixels and is left out" in note
    assert images.read(tmp_path / "a.png").metadata.icc is None


def test_what_is_too_long_for_a_jpeg_is_left_out_with_a_note(tmp_path):
    picture = replace(from_array(photo(8, 8)), metadata=Metadata(xmp=b"x" * 70_000))
    [note] = images.write(tmp_path / "a.jpg", picture)
    assert "70000 bytes of XMP are too many for a JPEG" in note


def _saved(image: Image.Image, kind: str) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    buffer.seek(5)
    return buffer


def test_images_that_pil_has_opened_are_as_their_files():
    deep = np.random.default_rng(0).integers(0, 2**16, (6, 5, 3), np.uint16)
    for data in (deep_files.png(deep), deep_files.tiff(deep)):
        picture = images.from_pil(Image.open(io.BytesIO(data)))
        assert picture.bits == 16
        np.testing.assert_array_equal(picture.pixels(), deep)
        decoded = Image.open(io.BytesIO(data))
        decoded.load()  # PIL has made 8 bits of it
        picture = images.from_pil(decoded)
        assert picture.bits == 8
        assert np.abs(picture.pixels().astype(int) - deep / 257).max() <= 1
    grey = deep[..., :1]
    for data in (deep_files.png(grey), deep_files.tiff(grey)):
        for load in (False, True):
            image = Image.open(io.BytesIO(data))
            if load:
                image.load()
            picture = images.from_pil(image)
            np.testing.assert_array_equal(picture.pixels(), grey)
    pixels = photo(6, 5)
    for image in (
        Image.fromarray(pixels),
        Image.open(_saved(Image.fromarray(pixels), "PNG")),
        Image.open(_saved(Image.fromarray(pixels), "TIFF")).copy(),
    ):
        np.testing.assert_array_equal(images.from_pil(image).pixels(), pixels)


def test_bytes_and_open_files_are_read_and_files_stay_open(tmp_path):
    pixels = photo(6, 5)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    for source in (data, bytearray(data), memoryview(data)):
        np.testing.assert_array_equal(upscaler_module.picture_of(source).pixels(), pixels)
    with open(tmp_path / "a.png", "rb") as file, io.BytesIO(data) as memory:
        for source in (file, memory):
            for position in (0, 7, len(data)):
                source.seek(position)
                found = upscaler_module.picture_of(source)
                np.testing.assert_array_equal(found.pixels(), pixels)
                assert not source.closed
                assert source.tell() == position
    with (
        open(tmp_path / "a.png", encoding="latin-1") as text,
        pytest.raises(InputError, match="opened as text; open it with mode 'rb'"),
    ):
        upscaler_module.picture_of(text)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((3, 64, 48), np.uint8), r"For c h w give array.transpose\(1, 2, 0\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"For a batch call upscale_batch\(list\(array\)\)"),
        (np.zeros((0, 8, 3), np.uint8), "not an image"),
        (np.zeros((8, 8, 5), np.uint8), "1, 2, 3 or 4 channels"),
        (np.zeros(8, np.uint8), "not an image"),
        (np.zeros((1, 1, 1, 8, 8)), "not an image"),
        (np.uint8(3), "not an image"),
        (np.zeros((8, 8, 3), np.int64), r"give array.astype\(numpy.uint8\)"),
        (np.zeros((8, 8), bool), r"uint8, uint16 or float, not bool"),
        (np.zeros((8, 8), complex), r"uint8, uint16 or float, not complex128"),
        (np.full((8, 8, 3), 200.0), "For 0 .. 255 use uint8"),
        (np.full((8, 8, 3), -1.0), r"For -1 .. 1 give array / 2 \+ 0.5"),
        (np.full((8, 8, 3), np.nan), "192 NaN or infinity"),
        (np.array([[object()]]), "not object"),
        ([[1, 2], [3]], "list is no array of pixels"),
        (None, "not an image"),
        (7, "not an image"),
        (b"", "is empty"),
        (b"text", "is not an image that can be read"),
        (io.BytesIO(), "is empty"),
        ("gone.png", "gone.png cannot be read: No such file"),
        ("", "cannot be read"),
        ("zero\0byte.png", "cannot be read"),
        (Image.new("F", (4, 4)), "floating-point pixels"),
        (Image.new("I", (4, 4)), "32-bit pixels"),
    ],
    ids=lambda part: part if isinstance(part, str) and part.isascii() else type(part).__name__,
)
def test_what_is_no_image_is_an_input_error_with_a_hint(wrong, message):
    with pytest.raises(InputError, match=message):
        upscaler_module.picture_of(wrong)


def test_every_mode_of_pil_is_taken_or_refused_in_a_sentence():
    for mode in Image.MODES:
        image = Image.new(mode, (4, 3))
        try:
            assert images.from_pil(image).size == (3, 4), mode
        except InputError as error:
            assert "the image has" in str(error), mode  # noqa: PT017


def test_input_errors_are_public_and_value_errors():
    assert issubclass(omgsr_jax.InputError, ValueError)
    assert omgsr_jax.InputError is InputError
