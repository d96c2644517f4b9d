"""From an opened image to its pixels, whatever the file's own way of storing them.

Training, evaluation and upscaling decode here, so that a file looks the same to all of them.
"""

import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageCms

from . import exif_bombs, png_file, tiff_planes
from .opening import DamagedImageError, bits_of, content, is_decoded

_PHOTOMETRIC, _EXTRA_SAMPLES, _BITS, _SAMPLE_FORMAT, _PLANES = 262, 338, 258, 339, 284  # TIFF
_WHITE_IS_ZERO, _PREMULTIPLIED, _SIGNED, _SEPARATE = 0, 1, 2, 2
_YCBCR_SUBSAMPLING, _SUBFILE, _REDUCED = 530, 254, 1
_MOST_PREVIEWS = 8
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
_PNG_GREY_ALPHA = 4


@dataclass(frozen=True)
class Decoded:
    """The pixels of a file, upright."""

    pixels: np.ndarray  # h w c, uint8 or uint16: grey, grey and alpha, RGB, or RGBA; c of 1 .. 4
    is_srgb: bool = False  # colours were converted, so the file's profile is not theirs
    notes: tuple[str, ...] = ()  # what the reader may want to know: sentences that name the file

    def is_transparent(self) -> bool:
        """Somewhere, a little."""
        has_alpha = self.pixels.shape[-1] in (2, 4)
        return has_alpha and bool(self.pixels[..., -1].min() < np.iinfo(self.pixels.dtype).max)

    def rgb_over_white(self) -> np.ndarray:
        """h w 3, uint8. What is transparent lies over white."""
        pixels = self.pixels
        if pixels.dtype == np.uint16:
            pixels = np.rint(pixels / np.float32(257)).astype(np.uint8)
        colour = pixels[..., : 1 if pixels.shape[-1] < 3 else 3]
        rgb = colour.repeat(3, axis=-1) if colour.shape[-1] == 1 else colour
        if pixels.shape[-1] in (1, 3):
            return np.ascontiguousarray(rgb)
        image = Image.fromarray(np.concatenate([rgb, pixels[..., -1:]], axis=-1))
        white = Image.new("RGBA", image.size, "white")
        return np.array(Image.alpha_composite(white, image).convert("RGB"))


def decode(image: Image.Image, name: str) -> Decoded:
    """The pixels of an image that is open; `name` is for messages."""
    _require_still(image, name)
    _require_levels(image, name)
    in_file = not is_decoded(image)
    if in_file and image.mode in ("RGB", "RGBA") and _tag(image, _PLANES) == _SEPARATE:
        decoded = Decoded(_straight_if_said(tiff_planes.read(image, content(image)), image))
    elif in_file and image.mode in ("RGB", "RGBA") and bits_of(image) == 16:
        decoded = Decoded(_deep_colour(image, name))
    else:
        decoded = _from_modes(_loaded(image), name)
    exif_bombs.refuse(image)
    turned = image.format == "TIFF"  # PIL and OpenCV do that with these
    orientation = 1 if turned else image.getexif().get(ExifTags.Base.Orientation, 1)
    pixels = np.ascontiguousarray(_upright(decoded.pixels, orientation))
    return Decoded(pixels, decoded.is_srgb, decoded.notes)


def _loaded(image: Image.Image) -> Image.Image:
    if image.format != "PNG" or is_decoded(image):
        image.load()
        return image
    png_file.prepare(image)
    stream = image.fp  # type: ignore[attr-defined]
    image.load()
    if not stream.closed:  # it is, if PIL itself opened the file
        png_file.require_whole(image, stream)
    return image


def _require_still(image: Image.Image, name: str) -> None:
    """Phones' JPEGs (MPO) carry a second image for depth, and TIFFs a small one for a preview."""
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return
    if image.format == "TIFF":
        shown = image.tell()
        pages = [page for page in range(_MOST_PREVIEWS + 1) if _is_page(image, page)]
        image.seek(shown)
        if len(pages) < 2:
            return
    raise DamagedImageError(f"{name} has several frames or pages; expected a still image")


def _is_page(image: Image.Image, number: int) -> bool:
    try:
        image.seek(number)
    except EOFError:
        return False
    return not image.tag_v2.get(_SUBFILE, 0) & _REDUCED  # type: ignore[attr-defined]


def _require_levels(image: Image.Image, name: str) -> None:
    """What the numbers in a file mean must be known: whole numbers from black to white."""
    if image.mode == "YCbCr" and image.format == "TIFF" and _is_subsampled(image):
        raise DamagedImageError(
            f"{name} has subsampled YCbCr pixels without compression; save it with compression or "
            "as RGB"
        )
    if image.mode == "F":
        raise DamagedImageError(
            f"{name} has floating-point pixels, which have no defined range; save it with 8 or 16 "
            "bits per channel"
        )
    signed = _SIGNED in _tag(image, _SAMPLE_FORMAT, ())
    if signed or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise DamagedImageError(
            f"{name} has {'signed' if signed else '32-bit'} pixels; expected 8 or 16 bits per "
            "channel, unsigned"
        )


def _is_subsampled(image: Image.Image) -> bool:
    return _tag(image, _YCBCR_SUBSAMPLING, (2, 2)) != (1, 1)


def _tag(image: Image.Image, tag: int, default: Any = None) -> Any:
    return getattr(image, "tag_v2", {}).get(tag, default)


def _deep_colour(image: Image.Image, name: str) -> np.ndarray:
    """16 bits in several channels, which PIL reads as 8."""
    pixels = _interleaved(content(image), image, name)
    transparency = image.info.get("transparency")
    if image.mode == "RGB" and pixels.shape[-1] > 3:
        pixels = pixels[..., :3]  # a further channel that is no alpha
    if image.mode == "RGB" and isinstance(transparency, tuple):
        pixels = _with_key(pixels, transparency)
    return _straight_if_said(pixels, image)


def _interleaved(data: bytes, image: Image.Image, name: str) -> np.ndarray:
    log = cv2.utils.logging
    before = log.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_SILENT)  # it prints what is wrong, and tells it to nobody
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        log.setLogLevel(before)
    channels = len(image.getbands())
    if found is None or found.dtype != np.uint16 or found.ndim != 3:
        raise DamagedImageError(f"{name} is damaged: its 16-bit pixels cannot be decoded")
    pixels = found[..., [2, 1, 0, 3][: found.shape[-1]]]
    if image.format == "PNG" and data[25] == _PNG_GREY_ALPHA:  # its header's colour type
        return pixels[..., [0, -1]]
    if found.shape[-1] < channels:
        raise DamagedImageError(f"{name} is damaged: its alpha channel cannot be decoded")
    return pixels


def _from_modes(image: Image.Image, name: str) -> Decoded:
    if image.mode in _DEEP_GREY or image.mode == "I":
        return Decoded(_deep_grey(image))
    if image.mode in ("CMYK", "YCCK"):
        return _from_cmyk(image, name)
    if image.mode == "LAB":
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        return Decoded(np.asarray(_to_srgb(image, lab)), is_srgb=True)
    return Decoded(_plain(image))


def _deep_grey(image: Image.Image) -> np.ndarray:
    pixels = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)[..., None]
    bits = _tag(image, _BITS, (16,))
    if bits == (12,):
        pixels = np.rint(pixels * (65535 / 4095)).astype(np.uint16)
    if _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        pixels = 65535 - pixels
    key = image.info.get("transparency")
    return _with_key(pixels, (key,)) if isinstance(key, int) else pixels


def _with_key(pixels: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
    """With an alpha channel: one colour is transparent, as a PNG may say."""
    opaque = (pixels != np.array(key)).any(axis=-1, keepdims=True)
    return np.concatenate([pixels, opaque.astype(pixels.dtype) * 65535], axis=-1)


def _straight_if_said(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Where colours were multiplied with their alpha: the colours themselves."""
    if _tag(image, _EXTRA_SAMPLES) != (_PREMULTIPLIED,):
        return pixels
    peak = np.iinfo(pixels.dtype).max
    colour, alpha = pixels[..., :-1].astype(np.float64), pixels[..., -1:].astype(np.float64)
    colour = np.rint(np.clip(colour * peak / np.maximum(alpha, 1), 0, peak))
    return np.concatenate([colour.astype(pixels.dtype), pixels[..., -1:]], axis=-1)


def _plain(image: Image.Image) -> np.ndarray:
    """8 bits with 1 to 4 channels."""
    see_through = "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    grey = image.mode in ("1", "L", "LA", "La")
    mode = ("L" if grey else "RGB") + ("A" if see_through else "")
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _from_cmyk(image: Image.Image, name: str) -> Decoded:
    """RGB in sRGB, through the file's own profile if that can be used."""
    notes: tuple[str, ...] = ()
    if icc := image.info.get("icc_profile"):
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            return Decoded(np.asarray(_to_srgb(image, profile)), is_srgb=True)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            notes = (
                f"{name}: its CMYK profile cannot be used; the colours are those of plain CMYK",
            )
    return Decoded(np.asarray(image.convert("RGB")), is_srgb=True, notes=notes)


def _to_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    srgb = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    assert converted is not None  # as it was not asked to work in place
    return converted


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF's eight orientations: mirrored, turned, or both."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
