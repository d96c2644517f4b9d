"""Image files: reading all that they hold, and writing it whole or not at all."""

import io
import os
from dataclasses import replace

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageCms

from .. import files
from ..errors import InputError
from . import deep_files
from .formats import SAVING, require_suffix
from .pictures import Picture, from_array
from .sizes import MOST_PIXELS

_OPAQUE = ("JPEG", "BMP")
_DEEP = ("PNG", "TIFF")
_ORIENTED = (ExifTags.Base.Orientation, ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength)


def read(path: str | os.PathLike[str]) -> Picture:
    """The picture in a file, upright."""
    with files.open_image(path, most_pixels=MOST_PIXELS) as image:
        return _picture(image, os.fspath(path))


def decode(data: bytes, name: str = "the image") -> Picture:
    """The picture in a file's bytes; `name` is for messages."""
    with files.open_image(data, name, most_pixels=MOST_PIXELS) as image:
        return _picture(image, name)


def _require_usable(image: Image.Image, name: str) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # phones' JPEGs carry a second image for depth
        raise InputError(f"{name} has {frames} frames; only still images can be upscaled")
    if image.mode in ("F", "I") and image.format != "PNG":
        raise InputError(f"{name} has {image.mode} pixels; expected 8 or 16 bits per channel")


def from_pil(image: Image.Image) -> Picture:
    """An image that PIL has opened or made, upright."""
    _require_usable(image, "the image")
    if files.bits_of(image) == 16:
        return from_array(np.asarray(image).astype(np.uint16))
    buffer = io.BytesIO()
    image = image.convert("RGB") if image.mode in ("HSV", "LAB", "YCbCr", "CMYK") else image
    exif = image.getexif().tobytes() if len(image.getexif()) else b""
    image.save(buffer, "PNG", compress_level=1, exif=exif)
    return decode(buffer.getvalue())


def _picture(image: Image.Image, name: str) -> Picture:
    _require_usable(image, name)
    deep = files.bits_of(image) == 16
    data = files.content(image) if deep and not image.mode.startswith("I") else b""
    image.load()
    icc, exif = image.info.get("icc_profile"), image.getexif()
    if deep:
        picture = _deep(image, data, exif.get(ExifTags.Base.Orientation, 1), name)
    else:
        if image.mode in ("CMYK", "YCCK"):
            image, icc = _from_cmyk(image, icc), None
        picture = from_array(_plain(files.upright(image)))
    for tag in _ORIENTED:
        exif.pop(tag, None)
    return replace(picture, icc=icc, exif=exif.tobytes() if len(exif) else None)


def _plain(image: Image.Image) -> np.ndarray:
    """8 bits with 1 to 4 channels, whatever the file's own way of saying it."""
    see_through = "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    if image.mode in ("1", "L", "LA", "La"):
        return np.asarray(image.convert("LA" if see_through else "L"))
    return np.asarray(image.convert("RGBA" if see_through else "RGB"))


def _from_cmyk(image: Image.Image, icc: bytes | None) -> Image.Image:
    """RGB in sRGB, through the file's own profile if that can be used."""
    if icc:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            converted = ImageCms.profileToProfile(
                image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
        except ImageCms.PyCMSError:
            pass
    return image.convert("RGB")


def _deep(image: Image.Image, data: bytes, orientation: int, name: str) -> Picture:
    """16 bits per channel, which PIL holds in grey images only."""
    if image.mode.startswith("I"):
        pixels: np.ndarray = np.asarray(image).astype(np.uint16)[..., None]
    else:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if found is None or found.dtype != np.uint16 or found.ndim != 3:
            raise InputError(f"{name} is damaged: its 16-bit pixels cannot be decoded")
        order = [2, 1, 0, 3][: found.shape[-1]]
        pixels = found[..., order]
        if image.format == "PNG" and data[25] == 4:  # the header's colour type: grey with alpha
            pixels = pixels[..., [0, -1]]
    return from_array(np.ascontiguousarray(_upright(pixels, orientation)))


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF's eight orientations: mirrored, turned, or both."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def write(path: str | os.PathLike[str], picture: Picture) -> None:
    """Writes in the format of the path's suffix, with all of the picture that it can hold."""
    files.write_bytes(path, encode(picture, require_suffix(path)))


def encode(picture: Picture, suffix: str) -> bytes:
    name, options = SAVING[suffix]
    if name in _OPAQUE:
        picture = picture.opaque()
    if picture.bits == 16 and name in _DEEP:
        if name == "TIFF" and picture.alpha is not None:
            picture = replace(picture, grey=False)  # few programs read grey TIFFs with alpha
        writer = deep_files.png if name == "PNG" else deep_files.tiff
        return writer(picture.pixels(16), icc=picture.icc, exif=picture.exif)
    image = picture.image()
    if name == "HEIF" and image.mode in ("L", "LA"):
        image = image.convert("RGB" if image.mode == "L" else "RGBA")
    kept = {"icc_profile": picture.icc, "exif": picture.exif} if name != "BMP" else {}
    buffer = io.BytesIO()
    try:
        image.save(buffer, name, **options, **{k: v for k, v in kept.items() if v})
    except (OSError, ValueError) as error:
        raise InputError(
            f"{image.width} x {image.height} px cannot be written as {name}: {error}"
        ) from error
    return buffer.getvalue()
