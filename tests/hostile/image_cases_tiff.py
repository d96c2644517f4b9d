"""TIFF: what the numbers mean, how they are laid out, and that none of it gets into a result."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from . import tiffs
from .images import HEIGHT, WIDTH, Case, noise, orientated, widened
from .profiles import cmyk_profile, lab_to_srgb
from .tiffs import BLACK_IS_ZERO, CMYK, LAB, LONG, SHORT, UNDEFINED, WHITE_IS_ZERO, YCBCR, tiff

_EXTRA, _SUBSAMPLING, _ICC, _MAP = 338, 530, 34675, 320


@dataclass(frozen=True)
class Kind:
    """How the numbers are meant."""

    name: str
    samples: np.ndarray
    photometric: int
    bits: int
    shown: np.ndarray
    fields: dict = field(default_factory=dict)
    tolerance: float = 0


# Pillow opens none of these; they are refused below.
_NOT_READ = {
    ("white-is-zero16", "strips"),
    ("white-is-zero16", "deflated"),
    ("rgb-spare8", "planes"),
}


def cases() -> Iterator[Case]:
    for kind in kinds():
        for name, layout in _layouts(kind):
            if (kind.name, name) in _NOT_READ:
                continue
            data = tiff(kind.samples, kind.photometric, kind.bits, fields=kind.fields, **layout)
            yield Case(f"{kind.name}-{name}.tif", data, kind.shown, kind.tolerance)
    yield from _orientations()
    yield from _pages()
    yield from _refused()
    yield from _profiles()


def kinds() -> list[Kind]:
    return [*_grey(), *_palettes(), *_colours(), *_with_extra(), *_other_spaces()]


def _grey() -> Iterator[Kind]:
    for bits in (1, 2, 4, 8, 16):
        samples = noise(1, bits)
        shown = widened(samples, bits)
        yield Kind(f"grey{bits}", samples, BLACK_IS_ZERO, bits, shown)
        white = np.iinfo(shown.dtype).max - shown
        yield Kind(f"white-is-zero{bits}", samples, WHITE_IS_ZERO, bits, white)
    yield Kind("grey12", noise(1, 12), BLACK_IS_ZERO, 12, widened(noise(1, 12), 12))


def _palettes() -> Iterator[Kind]:
    for bits in (1, 4, 8):
        samples = noise(1, bits, seed=1)
        colours = np.random.default_rng(bits).integers(0, 256, (2**bits, 3), np.uint8)
        table = (SHORT, (colours.T.astype(int).ravel() * 256).tolist())
        yield Kind(
            f"palette{bits}", samples, tiffs.PALETTE, bits, colours[samples[..., 0]], {_MAP: table}
        )


def _colours() -> Iterator[Kind]:
    for bits in (8, 16):
        yield Kind(f"rgb{bits}", noise(3, bits), tiffs.RGB, bits, noise(3, bits))


def _with_extra() -> Iterator[Kind]:
    for bits in (8, 16):
        samples, peak = noise(4, bits).copy(), 2**bits - 1
        samples[..., 3] = np.maximum(samples[..., 3], 1)
        unknown, premultiplied, straight = ({_EXTRA: (SHORT, [extra])} for extra in (0, 1, 2))
        yield Kind(f"rgb-spare{bits}", samples, tiffs.RGB, bits, samples[..., :3], unknown)
        yield Kind(f"rgba{bits}", samples, tiffs.RGB, bits, samples, straight)
        times = np.rint(samples[..., :3] / peak * samples[..., 3:]).astype(samples.dtype)
        stored = np.concatenate([times, samples[..., 3:]], axis=-1)
        shown = stored.astype(np.float64)
        shown[..., :3] = np.clip(shown[..., :3] * peak / shown[..., 3:], 0, peak)
        shown = np.rint(shown).astype(samples.dtype)
        yield Kind(f"rgba-premultiplied{bits}", stored, tiffs.RGB, bits, shown, premultiplied, 0.6)
    grey = noise(2)
    yield Kind("grey-alpha8", grey, BLACK_IS_ZERO, 8, grey, {_EXTRA: (SHORT, [2])})
    yield Kind("grey-spare8", grey, BLACK_IS_ZERO, 8, grey[..., :1], {_EXTRA: (SHORT, [0])})


def _other_spaces() -> Iterator[Kind]:
    ink = noise(4).astype(np.float64)
    shown = np.rint((255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255).astype(np.uint8)
    yield Kind("cmyk8", noise(4), CMYK, 8, shown, {}, 0.6)
    deep = noise(4).astype(np.uint16) * 257
    yield Kind("cmyk16", deep, CMYK, 16, shown, {}, 0.6)
    y, cb, cr = np.moveaxis(noise(3).astype(np.float64), -1, 0)
    rgb = [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)]
    rgb = np.stack([*rgb, y + 1.772 * (cb - 128)], axis=-1)
    rgb = np.rint(np.clip(rgb, 0, 255)).astype(np.uint8)
    yield Kind("ycbcr8", noise(3), YCBCR, 8, rgb, {_SUBSAMPLING: (SHORT, [1, 1])}, 1)
    lab = np.random.default_rng(5).integers((90, 108, 108), (180, 148, 148), (HEIGHT, WIDTH, 3))
    shown = lab_to_srgb(lab[..., 0] / 2.55, lab[..., 1] - 128.0, lab[..., 2] - 128.0)
    stored = lab.astype(np.uint8) ^ np.array([0, 128, 128], np.uint8)
    yield Kind("lab8", stored, LAB, 8, shown, {}, 1)


def _layouts(kind: Kind) -> Iterator[tuple[str, dict]]:
    yield "raw", {}
    if kind.bits != 12:
        yield "strips", {"rows": 5, "order": ">"}
        yield "deflated-tiles", {"tile": 16, "compression": tiffs.DEFLATE}
        yield "packed", {"rows": 4, "compression": tiffs.PACKBITS}
        yield "deflated", {"compression": tiffs.DEFLATE, "order": ">"}
    if kind.bits in (8, 16) and kind.photometric != tiffs.PALETTE:
        yield "predicted", {"compression": tiffs.DEFLATE, "predictor": True, "rows": 7}
    if kind.photometric == tiffs.RGB:
        yield "planes", {"planar": True}
        yield (
            "planes-strips",
            {"planar": True, "rows": 5, "order": ">", "compression": tiffs.DEFLATE},
        )
        yield "planes-tiles", {"planar": True, "tile": 16, "compression": tiffs.DEFLATE}


def _orientations() -> Iterator[Case]:
    for bits, channels in ((8, 3), (16, 3), (16, 1)):
        shown = noise(channels, bits)
        photometric = tiffs.RGB if channels == 3 else BLACK_IS_ZERO
        for orientation in range(1, 9):
            stored = np.ascontiguousarray(orientated(shown, orientation))
            data = tiff(stored, photometric, bits, fields={274: (SHORT, [orientation])})
            yield Case(f"turned{orientation}-{channels}x{bits}.tiff", data, shown)
        stored = np.ascontiguousarray(orientated(shown, 6))
        data = tiff(stored, photometric, bits, fields={274: (SHORT, [6])}, planar=channels == 3)
        yield Case(f"turned6-{channels}x{bits}-planes.tiff", data, shown)


def _page(samples: np.ndarray, **more: int) -> tuple[dict, list[bytes]]:
    height, width, channels = samples.shape
    fields = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8 * samples.itemsize] * channels),
        259: (SHORT, [1]),
        262: (SHORT, [tiffs.RGB]),
        277: (SHORT, [channels]),
        278: (LONG, [height]),
    }
    fields |= {int(tag[1:]): (LONG, [value]) for tag, value in more.items()}
    return fields, [samples.astype(samples.dtype.newbyteorder("<")).tobytes()]


def _pages() -> Iterator[Case]:
    for bits in (8, 16):
        first, second = noise(3, bits), noise(3, bits, seed=9)[:6, :8].copy()
        data = tiffs.assemble([_page(first), _page(second)])
        yield Case(f"two-pages{bits}.tif", data, says=("several frames or pages",))
        data = tiffs.assemble([_page(first), _page(second, t254=1)])
        yield Case(f"with-preview{bits}.tif", data, first)
    loop = bytearray(tiff(noise(3), tiffs.RGB))
    at = int.from_bytes(loop[4:8], "little")
    count = int.from_bytes(loop[at : at + 2], "little")
    loop[at + 2 + 12 * count : at + 6 + 12 * count] = loop[4:8]  # the next page is this one
    yield Case("page-loop.tif", bytes(loop), noise(3))


def _refused() -> Iterator[Case]:
    floats = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH, 1)
    raw = np.frombuffer(floats.tobytes(), np.uint8).reshape(HEIGHT, WIDTH, 4)
    four = {258: (SHORT, [32]), 277: (SHORT, [1])}
    yield Case(
        "float.tif",
        tiff(raw, BLACK_IS_ZERO, fields=four | {339: (SHORT, [3])}),
        says=("floating-point pixels", "8 or 16 bits"),
    )
    yield Case(
        "int32.tif", tiff(raw, BLACK_IS_ZERO, fields=four), says=("32-bit pixels", "8 or 16 bits")
    )
    for bits in (8, 16):
        data = tiff(noise(1, bits), BLACK_IS_ZERO, bits, fields={339: (SHORT, [2])})
        yield Case(f"signed{bits}.tif", data, says=("signed pixels", "8 or 16 bits"))
    yield Case("ycbcr-subsampled.tif", tiff(noise(3), YCBCR), says=("subsampled YCbCr",))
    yield Case("icclab.tif", tiff(noise(3), 9), says=("is not an image that can be read",))
    for kind in kinds():
        for name, layout in _layouts(kind):
            if (kind.name, name) in _NOT_READ:
                data = tiff(kind.samples, kind.photometric, kind.bits, fields=kind.fields, **layout)
                yield Case(f"{kind.name}-{name}.tif", data, says=("is not an image that can be",))
    deep = tiff(noise(3, 16), LAB, 16)
    yield Case("lab16.tif", deep, says=("is not an image that can be read",))


def _profiles() -> Iterator[Case]:
    corners = np.random.default_rng(7).integers(0, 2, (HEIGHT, WIDTH, 4))
    profile, colours = cmyk_profile()
    shown = colours[tuple(np.moveaxis(corners, -1, 0))]
    stored = (corners * 255).astype(np.uint8)
    fields = {_ICC: (UNDEFINED, list(profile))}
    yield Case("cmyk-profile.tif", tiff(stored, CMYK, fields=fields), shown, 2)
    shown = np.where((corners[..., :3] + corners[..., 3:]) > 0, 0, 255).astype(np.uint8)
    fields = {_ICC: (UNDEFINED, list(profile[:140] + bytes(300)))}
    yield Case(
        "cmyk-broken-profile.tif",
        tiff(stored, CMYK, fields=fields),
        shown,
        notes=("CMYK profile cannot be used",),
    )
