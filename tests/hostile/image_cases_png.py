"""PNG: every colour type and depth, transparent colours, orders of lines, and further chunks."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

from .images import Case, noise, orientated, widened, with_key
from .pngs import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, Chunk, png

KINDS = (
    *((f"grey{bits}", GREY, 1, bits) for bits in (1, 2, 4, 8, 16)),
    *((f"rgb{bits}", RGB, 3, bits) for bits in (8, 16)),
    *((f"grey-alpha{bits}", GREY_ALPHA, 2, bits) for bits in (8, 16)),
    *((f"rgba{bits}", RGBA, 4, bits) for bits in (8, 16)),
)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>1</tiff:Orientation></x:xmpmeta>'


def exif(orientation: int = 1, **more: str) -> bytes:
    found = Image.Exif()
    found[ExifTags.Base.Orientation] = orientation
    for name, value in more.items():
        found[ExifTags.Base[name]] = value
    return found.tobytes().removeprefix(b"Exif\0\0")


def text(kind: bytes, keyword: bytes, content: bytes) -> Chunk:
    between = {b"tEXt": b"\0", b"zTXt": b"\0\0", b"iTXt": b"\0\0\0\0\0"}[kind]
    return kind, keyword + between + (zlib.compress(content) if kind == b"zTXt" else content)


def cases() -> Iterator[Case]:
    yield from _kinds()
    yield from _palettes()
    yield from _keys()
    yield from _layouts()
    yield from _orientations()
    yield from _chunks()


def _kinds() -> Iterator[Case]:
    for name, colour, channels, bits in KINDS:
        samples = noise(channels, bits)
        shown = widened(samples, bits)
        for interlaced in (False, True):
            data = png(samples, colour, bits, interlaced=interlaced)
            yield Case(f"{name}{'-interlaced' if interlaced else ''}.png", data, shown)


def _palettes() -> Iterator[Case]:
    for bits in (1, 2, 4, 8):
        samples, count = noise(1, bits, seed=1), 2**bits
        colours = np.random.default_rng(bits).integers(0, 256, (count, 3), np.uint8)
        table = (b"PLTE", colours.tobytes())
        shown = colours[samples[..., 0]]
        yield Case(f"palette{bits}.png", png(samples, PALETTE, bits, before=[table]), shown)
        alpha = np.random.default_rng(bits).integers(1, 256, count, np.uint8)
        few = alpha.copy()
        few[count // 2 :] = 255  # what the chunk does not name is opaque
        for what, levels, stored in (("", alpha, alpha), ("-few", few, few[: count // 2])):
            data = png(samples, PALETTE, bits, before=[table, (b"tRNS", stored.tobytes())])
            rgba = np.concatenate([shown, levels[samples]], axis=-1)
            yield Case(f"palette{bits}-alpha{what}.png", data, rgba)


def _keys() -> Iterator[Case]:
    for bits in (1, 2, 4, 8, 16):
        samples = noise(1, min(bits, 2), seed=2).astype(np.uint16 if bits == 16 else np.uint8)
        samples = samples * (16_000 if bits == 16 else 1)
        key = int(samples[0, 0, 0])
        data = png(samples, GREY, bits, before=[(b"tRNS", struct.pack(">H", key))])
        yield Case(f"grey{bits}-key.png", data, with_key(samples, (key,), bits))
    for bits in (8, 16):
        samples = noise(3, 1, seed=3).astype(np.uint16 if bits == 16 else np.uint8)
        samples = samples * (40_000 if bits == 16 else 200)
        key = tuple(map(int, samples[0, 0]))
        data = png(samples, RGB, bits, before=[(b"tRNS", struct.pack(">HHH", *key))])
        yield Case(f"rgb{bits}-key.png", data, with_key(samples, key, bits))


def _layouts() -> Iterator[Case]:
    for filter_type in range(1, 5):
        for name, colour, channels, bits in KINDS:
            if bits >= 8 and (bits == 16 or filter_type == 4):
                samples = noise(channels, bits, seed=filter_type)
                data = png(samples, colour, bits, filter_type=filter_type)
                yield Case(f"{name}-filter{filter_type}.png", data, samples)
    yield Case("parts.png", png(noise(3), RGB, parts=40), noise(3))
    yield Case("parts-deep.png", png(noise(3, 16), RGB, 16, parts=40), noise(3, 16))
    for height, width in ((1, 1), (1, 40), (40, 1), (3, 2), (2, 3)):
        samples = np.resize(noise(3), (height, width, 3))
        yield Case(f"size-{height}x{width}.png", png(samples, RGB), samples)
        samples = np.resize(noise(3, 16), (height, width, 3))
        yield Case(f"size-{height}x{width}-deep.png", png(samples, RGB, 16), samples)


def _orientations() -> Iterator[Case]:
    for orientation in range(1, 9):
        for bits in (8, 16):
            shown = noise(3, bits)
            stored = orientated(shown, orientation)
            chunk = [(b"eXIf", exif(orientation))]
            for place, late in (("", False), ("-late", True)):
                data = png(stored, RGB, bits, **{"after" if late else "before": chunk})
                yield Case(f"turned{orientation}-{bits}{place}.png", data, shown)
    said = XMP.replace(b">1<", b">6<")
    for place in ("before", "after"):
        data = png(
            orientated(noise(3), 6), RGB, **{place: [text(b"iTXt", b"XML:com.adobe.xmp", said)]}
        )
        yield Case(f"turned-xmp-{place}.png", data, noise(3))


def _chunks() -> Iterator[Case]:
    """What a file may say besides, right or wrong, changes no pixel."""
    density = struct.pack(">IIB", 11811, 11811, 1)
    harmless: dict[str, list[Chunk]] = {
        "gamma": [(b"gAMA", struct.pack(">I", 45455))],
        "chroma": [(b"cHRM", struct.pack(">8I", *[31270, 32900, 64000, 33000] * 2))],
        "srgb": [(b"sRGB", b"\0")],
        "background": [(b"bKGD", b"\0\xff\0\xff\0\xff")],
        "time": [(b"tIME", b"\x07\xe8\1\1\1\1\1")],
        "bits": [(b"sBIT", b"\5\6\5")],
        "density": [(b"pHYs", density)],
        "aspect": [(b"pHYs", struct.pack(">IIB", 1, 2, 0))],
        "density-zero": [(b"pHYs", struct.pack(">IIB", 0, 0, 1))],
        "density-endless": [(b"pHYs", struct.pack(">IIB", 2**32 - 1, 2**32 - 1, 1))],
        "unknown": [(b"prVt", b"anything")],
        "text": [text(kind, b"Title", b"words") for kind in (b"tEXt", b"zTXt", b"iTXt")],
        "xmp": [text(b"iTXt", b"XML:com.adobe.xmp", XMP)],
        "xmp-broken": [text(b"iTXt", b"XML:com.adobe.xmp", b"\xff\xfe<x")],
        "exif-empty": [(b"eXIf", b"II*\0\x08\0\0\0\0\0\0\0\0\0")],
        "icc-no-name": [(b"iCCP", b"\0\0" + zlib.compress(b"no profile"))],
        "hdr": [(b"cICP", b"\x01\x0d\x00\x01")],
    }
    said = {"icc-no-name": ("colour profile is damaged",), "xmp-broken": ("are not UTF-8",)}
    for name, chunks in harmless.items():
        for bits in (8, 16):
            data = png(noise(3, bits), RGB, bits, before=chunks)
            notes = said.get(name, ())
            yield Case(f"chunk-{name}-{bits}.png", data, noise(3, bits), notes=notes)
    many = [text(b"tEXt", b"Comment", b"%d" % i) for i in range(500)]
    yield Case("chunk-many.png", png(noise(3), RGB, after=many), noise(3))
    data = png(noise(3), RGB)
    yield Case("behind-the-end.png", data + b"PK\3\4 an archive" * 50, noise(3))
    yield Case("called-jpeg.jpg", data, noise(3))
    yield Case("CAPITALS.PNG", data, noise(3))
