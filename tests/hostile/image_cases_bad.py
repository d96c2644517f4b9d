"""Files that no reader can or should open: each is refused in a sentence that names it."""

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from . import pngs, tiffs
from .image_cases_jpeg import jpeg, saved, segment, with_segments
from .image_cases_png import text
from .images import Case, noise, smooth
from .pngs import RGB, SIGNATURE, assemble, png

_NO_IMAGE = ("is not an image that can be read",)
_DAMAGED = ("is damaged",)
_TOO_LARGE = ("too large to be opened safely",)
SPARSE_BYTES = 3 * 2**30


def good() -> dict[str, bytes]:
    """One good file of each format, by suffix."""
    return {
        "png": png(noise(3), RGB),
        "jpg": jpeg(smooth()),
        "webp": saved(noise(3), "WEBP", lossless=True),
        "bmp": saved(noise(3), "BMP"),
        "tif": tiffs.tiff(noise(3), tiffs.RGB, compression=tiffs.DEFLATE),
        "avif": saved(smooth(), "AVIF"),
    }


def cases() -> Iterator[Case]:
    yield from _cut()
    yield from _sparse()
    yield from _not_images()
    yield from _lying_sizes()
    yield from _bombs()
    yield from _animated()
    yield from _special_files()
    yield from _broken_inside()


def _cut() -> Iterator[Case]:
    for suffix, data in good().items():
        yield Case(f"empty.{suffix}", b"", says=("is empty",))
        for share in (0.02, 0.2, 0.5, 0.8):
            part = data[: max(1, int(len(data) * share))]
            yield Case(f"cut{share * 100:.0f}.{suffix}", part, says=())
    deep = png(noise(3, 16), RGB, 16)
    yield Case("cut-deep.png", deep[: len(deep) // 2], says=_DAMAGED)
    deep = tiffs.tiff(noise(3, 16), tiffs.RGB, 16)
    yield Case("cut-deep.tif", deep[: len(deep) // 2], says=())
    for compression in (tiffs.RAW, tiffs.DEFLATE):
        data = tiffs.tiff(noise(3, 16), tiffs.RGB, 16, compression=compression)
        place = struct.pack("<HHII", 273, 4, 1, 8)
        gone = data.replace(place, struct.pack("<HHII", 273, 4, 1, 2**24))
        assert gone != data
        yield Case(f"pixels-elsewhere{compression}.tif", gone, says=_DAMAGED)


def _sparse() -> Iterator[Case]:
    """Three gigabytes of nothing, behind as much of a header as makes a reader go on."""
    endless_text = (
        SIGNATURE + assemble([(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))])[8:]
    )
    endless_text += struct.pack(">I", 2**31 - 1) + b"tEXt" + b"Comment\0"
    profile = tiffs.tiff(noise(3), tiffs.RGB, fields={34675: (tiffs.UNDEFINED, [0] * 8)})
    entry = struct.pack("<HHI", 34675, tiffs.UNDEFINED, 8)
    endless_profile = profile.replace(entry, struct.pack("<HHI", 34675, tiffs.UNDEFINED, 2**31))
    heads = {
        "nothing.png": b"",
        "nothing.jpg": b"",
        "nothing.tif": b"",
        "text.png": endless_text,
        "pixels.png": png(noise(3), RGB)[:60],
        "marker.jpg": b"\xff\xd8\xff\xe0",
        "start.jpg": jpeg(smooth())[:200],
        "profile.tif": endless_profile,
        "riff.webp": saved(noise(3), "WEBP")[:40],
        "brand.avif": saved(smooth(), "AVIF")[:300],
        "head.bmp": b"BM" + struct.pack("<IHHI", 2**31, 0, 0, 54) + struct.pack("<I", 2**30),
    }
    for name, head in heads.items():

        def make(path: Path, head: bytes = head) -> None:
            path.write_bytes(head)
            os.truncate(path, SPARSE_BYTES)

        yield Case(f"sparse-{name}", make, says=())


def _not_images() -> Iterator[Case]:
    contents = {
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
        "pdf": b"%PDF-1.7\n1 0 obj\n",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "html": b"<!DOCTYPE html><title>404</title>",
        "zip": b"PK\3\4" + bytes(60),
        "psd": b"8BPS\0\1" + bytes(40),
        "ico": b"\0\0\1\0\1\0\1\1\0\0\1\0\x18\0" + bytes(40),
        "fits": b"SIMPLE  =                    T" + bytes(60),
        "tga": b"\0\0\2" + bytes(9) + b"\1\0\1\0\x18\0\0\0\0",
        "text": b"a photograph of a cat\n",
        "nulls": bytes(5000),
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "msp": b"DanM" + bytes(60),
        "wmf": b"\xd7\xcd\xc6\x9a" + bytes(60),
    }
    contents["noise"] = np.random.default_rng(3).bytes(5000)
    for number, (name, content) in enumerate(contents.items()):
        suffix = ("png", "jpg", "tif")[number % 3]
        yield Case(f"is-{name}.{suffix}", content, says=_NO_IMAGE)


def _lying_sizes() -> Iterator[Case]:
    for side in (20_000, 65_535, 2**31 - 1):
        says = _TOO_LARGE if side < 2**31 - 1 else ()
        yield Case(f"side{side}.png", png(noise(3), RGB, size=(side, side)), says=says)
        yield Case(
            f"side{side}.tif",
            tiffs.tiff(noise(3), tiffs.RGB, fields={256: (4, [side]), 257: (4, [side])}),
            says=says,
        )
    frame = jpeg(smooth())
    at = frame.index(b"\xff\xc0") + 5
    yield Case("side65500.jpg", frame[:at] + b"\xff\xdc\xff\xdc" + frame[at + 4 :], says=_TOO_LARGE)
    yield Case("side0.jpg", frame[:at] + bytes(4) + frame[at + 4 :], says=())
    bitmap = saved(noise(3), "BMP")
    for side in (60_000, 2**30):
        lie = bitmap[:18] + struct.pack("<ii", side, side) + bitmap[26:]
        yield Case(f"side{side}.bmp", lie, says=_TOO_LARGE)
    for height, width in ((0, 8), (8, 0), (0, 0)):
        yield Case(f"size-{height}x{width}.png", png(noise(3), RGB, size=(height, width)), says=())
        lie = {256: (4, [width]), 257: (4, [height])}
        yield Case(
            f"size-{height}x{width}.tif", tiffs.tiff(noise(3), tiffs.RGB, fields=lie), says=()
        )
    yield Case("taller.png", png(noise(3), RGB, size=(500, 16)), says=_DAMAGED)
    yield Case("taller-deep.png", png(noise(3, 16), RGB, 16, size=(500, 16)), says=_DAMAGED)
    yield Case(
        "strip.png", png(np.zeros((1, 1200, 3), np.uint8), RGB), says=("too narrow a strip",)
    )


def _bombs() -> Iterator[Case]:
    bomb = bytes(2**27)
    small = zlib.compress(bomb, 9)
    for name, chunk in {
        "iccp": (b"iCCP", b"name\0\0" + small),
        "ztxt": (b"zTXt", b"Comment\0\0" + small),
        "itxt": (b"iTXt", b"Comment\0\1\0\0\0" + small),
        "xmp": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + small),
    }.items():
        for place in ("before", "after"):
            if (name, place) == ("iccp", "after"):
                continue  # Pillow reads no profile behind the pixels
            data = png(noise(3), RGB, **{place: [chunk]})
            yield Case(f"bomb-{name}-{place}.png", data, says=_DAMAGED)
    many = [text(b"zTXt", b"Comment%d" % i, bytes(2**20 - 100)) for i in range(80)]
    yield Case("bomb-texts.png", png(noise(3), RGB, before=many), says=_DAMAGED)
    exif = _exif_bomb(3_000, 2**17)
    yield Case("bomb-exif.png", png(noise(3), RGB, before=[(b"eXIf", exif)]), says=_DAMAGED)
    short = _exif_bomb(3_000, 2**15)
    hexadecimal = f"\nexif\n{len(short):8}\n{short.hex()}\n".encode()
    for place in ("before", "after"):
        chunk = text(b"zTXt", b"Raw profile type exif", hexadecimal)
        data = png(noise(3), RGB, **{place: [chunk]})
        yield Case(f"bomb-exif-as-text-{place}.png", data, says=_DAMAGED)
    webp = saved(noise(3), "WEBP", lossless=True, exif=exif)
    yield Case("bomb-exif.webp", webp, says=_DAMAGED)
    parts = [exif[at : at + 60_000] for at in range(0, len(exif), 60_000)]
    segments = [segment(0xE1, b"Exif\0\0" + part) for part in parts]
    yield Case("bomb-exif.jpg", with_segments(jpeg(smooth()), *segments), says=_DAMAGED)
    yield Case("bomb-tags.tif", _exif_bomb(3_000, 2**20), says=())
    lines = zlib.compress(bytes(2**27), 9)
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", lines), (b"IEND", b"")]
    yield Case("bomb-pixels.png", assemble(chunks), np.zeros((8, 8, 3), np.uint8))


def _exif_bomb(entries: int, size: int) -> bytes:
    """A directory whose every entry names the same bytes."""
    at = 8 + 2 + 12 * entries + 4
    fields = [struct.pack("<HHII", 0x9000 + i, 7, size, at) for i in range(entries)]
    directory = struct.pack("<H", entries) + b"".join(fields) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(size)


def _animated() -> Iterator[Case]:
    frames = [Image.fromarray(noise(3, seed=seed)) for seed in range(3)]
    for suffix, kind in (("png", "PNG"), ("webp", "WEBP"), ("avif", "AVIF"), ("tif", "TIFF")):
        buffer = io.BytesIO()
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
        yield Case(f"animated.{suffix}", buffer.getvalue(), says=("several frames or pages",))
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    yield Case("animated-gif.png", buffer.getvalue(), says=("several frames or pages",))


def _special_files() -> Iterator[Case]:
    makers: dict[str, tuple[Callable[[Path], object], str]] = {
        "pipe.png": (os.mkfifo, "is a pipe, a socket or a device"),
        "null.png": (lambda path: path.symlink_to("/dev/null"), "is a pipe, a socket or a device"),
        "endless.png": (lambda path: path.symlink_to("/dev/zero"), "is a pipe, a socket or a dev"),
        "loop.png": (lambda path: path.symlink_to(path.name), "cannot be read"),
        "dangling.png": (lambda path: path.symlink_to("nowhere"), "cannot be read: No such file"),
    }
    for name, (make, words) in makers.items():
        yield Case(name, make, says=(words,))


def _broken_inside() -> Iterator[Case]:
    data = png(noise(3), RGB)
    at = data.index(b"IDAT") + 10
    yield Case("flipped.png", data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :], says=_DAMAGED)
    yield Case("no-pixels.png", data[: data.index(b"IDAT") - 4] + data[-12:], says=())
    for colour, bits in ((5, 8), (2, 3), (3, 16)):
        head = struct.pack(">IIBBBBB", 8, 8, bits, colour, 0, 0, 0)
        yield Case(f"colour{colour}-{bits}.png", pngs.assemble([(b"IHDR", head)]), says=())
    no_palette = png(noise(1), pngs.PALETTE)
    yield Case("no-palette.png", no_palette, says=_DAMAGED)
    short = tiffs.tiff(noise(3), tiffs.RGB, fields={279: (4, [10])}, compression=tiffs.DEFLATE)
    yield Case("short-strip.tif", short, says=_DAMAGED)
    for tag, values in {258: [9, 9, 9], 259: [777], 262: [777], 277: [5000]}.items():
        lie = tiffs.tiff(noise(3), tiffs.RGB, fields={tag: (3, values)})
        yield Case(f"tag{tag}-lies.tif", lie, says=())
    no_size = tiffs.tiff(noise(3), tiffs.RGB, fields={256: (2, [65, 66, 67, 0])})
    yield Case("size-in-words.tif", no_size, says=())
