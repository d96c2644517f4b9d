"""JPEG, WebP, BMP and AVIF: what cameras and programs write, and what may stand around it."""

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

from .images import HEIGHT, WIDTH, Case, noise, orientated, smooth
from .profiles import cmyk_profile

_SOI = b"\xff\xd8"


def saved(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    grey = pixels.shape[-1] == 1
    image = Image.fromarray(pixels[..., 0] if grey else np.ascontiguousarray(pixels))
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    return saved(pixels, "JPEG", **{"quality": 95, "subsampling": 0} | options)


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def with_segments(data: bytes, *segments: bytes) -> bytes:
    return _SOI + b"".join(segments) + data.removeprefix(_SOI)


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[ExifTags.Base.Orientation] = orientation
    return found


def cases() -> Iterator[Case]:
    yield from _jpegs()
    yield from _segments()
    yield from _cmyk()
    yield from _webps()
    yield from _bmps()
    yield from _avifs()


def _jpegs() -> Iterator[Case]:
    ways: dict[str, dict] = {
        "444": {},
        "422": {"subsampling": 1},
        "420": {"subsampling": 2},
        "progressive": {"progressive": True},
        "optimised": {"optimize": True},
        "restarts": {"restart_marker_blocks": 1},
        "rgb": {"keep_rgb": True},
        "coarse": {"quality": 60},
        "dpi": {"dpi": (300, 150)},
        "comment": {"comment": b"hello"},
    }
    for name, options in ways.items():
        yield Case(f"{name}.jpg", jpeg(smooth(), **options), smooth(), 8)
        yield Case(f"{name}-grey.jpeg", jpeg(smooth(1), **options), smooth(1), 8)
    for orientation in range(1, 9):
        stored = orientated(smooth(), orientation)
        data = jpeg(stored, exif=exif(orientation))
        yield Case(f"turned{orientation}.jpg", data, smooth(), 4)
    first, second = (Image.fromarray(smooth()[..., order]) for order in ([0, 1, 2], [2, 1, 0]))
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second], quality=95, subsampling=0)
    yield Case("two-images.jpg", buffer.getvalue(), smooth(), 4)


def _segments() -> Iterator[Case]:
    """What may stand before or behind the pixels and changes none of them."""
    data = jpeg(smooth())
    xmp = b"http://ns.adobe.com/xap/1.0/\0"
    turned = xmp + b'<rdf:Description tiff:Orientation="6"/>'
    around = {
        "exif-empty": segment(0xE1, b"Exif\0\0"),
        "exif-broken": segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        "exif-lies": segment(
            0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x0f\1\2\0\xff\xff\xff\x7f" * 9
        ),
        "xmp": segment(0xE1, xmp + b"<x/>"),
        "xmp-broken": segment(0xE1, xmp + b"\0\xff\0"),
        "icc-broken": segment(0xE2, b"ICC_PROFILE\0\1\1" + b"x" * 200),
        "icc-part-missing": segment(0xE2, b"ICC_PROFILE\0\1\3" + b"x" * 200),
        "photoshop-broken": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\xff\xff\xff\xff"),
        "unknown": segment(0xEB, b"who knows"),
        "fill": b"\xff" * 9 + segment(0xEB, b"x"),
        "comments": segment(0xFE, b"x" * 60_000) * 20,
    }
    for name, segments in around.items():
        notes = ("colour profile is damaged",) if name == "icc-broken" else ()
        notes += ("are not UTF-8",) if name == "xmp-broken" else ()
        yield Case(f"segment-{name}.jpg", with_segments(data, segments), smooth(), 4, notes=notes)
    stored = jpeg(orientated(smooth(), 6))
    yield Case("turned-xmp.jpg", with_segments(stored, segment(0xE1, turned)), smooth(), 4)
    yield Case("behind-the-end.jpg", data + b"\0" * 5000, smooth(), 4)
    yield Case("called-png.png", data, smooth(), 4)
    yield Case("called-tiff.tif", data, smooth(), 4)


def _cmyk() -> Iterator[Case]:
    ink = np.full((HEIGHT, WIDTH, 4), 255, np.uint8)
    ink[..., :3] = 255 - smooth()
    ink[..., 3] = 0
    image, buffer = Image.fromarray(ink, "CMYK"), io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0)
    yield Case("cmyk.jpg", buffer.getvalue(), smooth(), 4)
    parts = [segment(0xE2, b"ICC_PROFILE\0\1\1" + part) for part in (b"no", b"x" * 300)]
    for number, part in enumerate(parts):
        yield Case(
            f"cmyk-broken-profile{number}.jpg",
            with_segments(buffer.getvalue(), part),
            smooth(),
            4,
            notes=("CMYK profile cannot be used",),
        )
    profile, colours = cmyk_profile()
    corner = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    corner[:, : WIDTH // 2, 0] = 255
    buffer = io.BytesIO()
    Image.fromarray(corner, "CMYK").save(buffer, "JPEG", quality=100, icc_profile=profile)
    shown = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    shown[:, : WIDTH // 2], shown[:, WIDTH // 2 :] = colours[1, 0, 0, 0], colours[0, 0, 0, 0]
    yield Case("cmyk-profile.jpg", buffer.getvalue(), shown, 4)


def _webps() -> Iterator[Case]:
    opaque = noise(4).copy()
    opaque[..., 3] = np.maximum(opaque[..., 3], 1)
    yield Case("lossless.webp", saved(noise(3), "WEBP", lossless=True), noise(3))
    yield Case("lossless-alpha.webp", saved(opaque, "WEBP", lossless=True), opaque)
    yield Case("lossy.webp", saved(smooth(), "WEBP", quality=95), smooth(), 8)
    for orientation in range(1, 9):
        stored = orientated(noise(3), orientation)
        data = saved(stored, "WEBP", lossless=True, exif=exif(orientation).tobytes())
        yield Case(f"turned{orientation}.webp", data, noise(3))
    data = saved(noise(3), "WEBP", lossless=True, xmp=b"<x/>", icc_profile=b"no profile")
    damaged = ("colour profile is damaged",)
    yield Case("around.webp", data, noise(3), notes=damaged)
    yield Case("behind-the-end.webp", data + bytes(5000), noise(3), notes=damaged)


def _bmps() -> Iterator[Case]:
    yield Case("rgb.bmp", saved(noise(3), "BMP"), noise(3))
    grey = noise(1)
    yield Case("grey.bmp", saved(grey, "BMP"), grey)
    bits = noise(1, 1)
    buffer = io.BytesIO()
    Image.fromarray(bits[..., 0] * np.uint8(255)).convert("1").save(buffer, "BMP")
    yield Case("bits.bmp", buffer.getvalue(), bits * np.uint8(255))
    head = struct.pack("<2sIHHI", b"BM", 54 + 3 * HEIGHT * WIDTH, 0, 0, 54)
    head += struct.pack("<IiiHHIIiiII", 40, WIDTH, -HEIGHT, 1, 24, 0, 0, 2835, 2835, 0, 0)
    yield Case("downward.bmp", head + noise(3)[..., ::-1].tobytes(), noise(3))
    five = (noise(3, 5)).astype(np.uint16)
    packed = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).astype("<u2")
    head = struct.pack("<2sIHHI", b"BM", 54 + 2 * HEIGHT * WIDTH, 0, 0, 54)
    head += struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 16, 0, 0, 0, 0, 0, 0)
    shown = np.rint(five / 31 * 255).astype(np.uint8)
    yield Case("fifteen-bits.bmp", head + packed[::-1].tobytes(), shown, 1)


def _avifs() -> Iterator[Case]:
    options: dict = {"quality": 98, "subsampling": "4:4:4"}
    yield Case("lossy.avif", saved(smooth(), "AVIF", **options), smooth(), 4)
    alpha = np.concatenate([smooth(), smooth(4)[..., 3:]], axis=-1)
    yield Case("alpha.avif", saved(alpha, "AVIF", **options), alpha, 4)
    for orientation in (3, 6):
        stored = orientated(smooth(), orientation)
        data = saved(stored, "AVIF", **options, exif=exif(orientation).tobytes())
        yield Case(f"turned{orientation}.avif", data, smooth(), 4)
