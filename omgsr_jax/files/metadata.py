"""What an image file says besides its pixels, and what of that a result may say, too.

Nothing is carried over that describes how the pixels were stored: the result is stored its own way.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin

_TAG, _IFD = ExifTags.Base, ExifTags.IFD
# Of the first directory: what was photographed, by whom, with what, when.
_DESCRIBE = (
    *(_TAG.DocumentName, _TAG.ImageDescription, _TAG.Make, _TAG.Model, _TAG.PageName),
    *(_TAG.Software, _TAG.DateTime, _TAG.Artist, _TAG.HostComputer, _TAG.Copyright),
    *(_TAG.Rating, _TAG.RatingPercent),
    *(_TAG.XPTitle, _TAG.XPComment, _TAG.XPAuthor, _TAG.XPKeywords, _TAG.XPSubject),
)
# Of EXIF's own directory: how its pixels were stored, and pointers.
_STORED = (
    *(_TAG.ExifImageWidth, _TAG.ExifImageHeight, _TAG.ComponentsConfiguration),
    *(_TAG.CompressedBitsPerPixel, _IFD.Interop),
)
_RESOLUTION = (_TAG.XResolution, _TAG.YResolution, _TAG.ResolutionUnit)
_INCH, _CENTIMETRE = 2, 3
_STALE_XMP = (
    *("tiff:Orientation", "tiff:ImageWidth", "tiff:ImageLength", "tiff:BitsPerSample"),
    *("tiff:Compression", "tiff:PhotometricInterpretation", "tiff:SamplesPerPixel"),
    *("tiff:PlanarConfiguration", "tiff:YCbCrSubSampling", "tiff:YCbCrPositioning"),
    *("exif:PixelXDimension", "exif:PixelYDimension"),
)
_MOST_IN_JPEG = 65_000  # bytes of EXIF, or of XMP
_SPACES = {b"RGB ": False, b"GRAY": True}  # of an ICC profile: whether it is for grey


@dataclass(frozen=True)
class Metadata:
    icc: bytes | None = None
    exif: bytes | None = None  # what describes the photograph, see above
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None  # across and down


def metadata_of(image: Image.Image, name: str) -> tuple[Metadata, tuple[str, ...]]:
    """Those of an image that is decoded, and notes on what had to be left out."""
    notes = []
    icc = image.info.get("icc_profile") or None
    if icc and not (len(icc) > 128 and icc[36:40] == b"acsp"):
        notes.append(f"{name}: its colour profile is damaged and is left out")
        icc = None
    try:
        exif = _described(image.getexif())
    except Exception:  # whatever an encoder makes of values that no camera wrote
        notes.append(f"{name}: its EXIF data are damaged and are left out")
        exif = None
    xmp = image.info.get("xmp")
    return Metadata(icc, exif, _fresh(xmp) if isinstance(xmp, bytes) else None, _dpi(image)), (
        *notes,
    )


def fitting(data: Metadata, kind: str, *, grey: bool, name: str) -> tuple[Metadata, list[str]]:
    """What a file of this kind (PIL's name) can hold, and notes on what it cannot."""
    notes = []
    if data.icc and _SPACES.get(data.icc[16:20]) != grey:
        pixels = "grey" if grey else "RGB"
        notes.append(f"{name}: the colour profile is not for {pixels} pixels and is left out")
        data = replace(data, icc=None)
    if kind == "JPEG":
        for what in ("exif", "xmp"):
            size = len(getattr(data, what) or b"")
            if size > _MOST_IN_JPEG:
                notes.append(f"{name}: {size} bytes of {what.upper()} are too many for a JPEG")
                data = replace(data, **{what: None})
    if kind == "PNG" and data.xmp and not _is_utf8(data.xmp):
        notes.append(f"{name}: the XMP data are not UTF-8 and are left out, as in any PNG")
        data = replace(data, xmp=None)
    return data, notes


def pillow_options(data: Metadata, kind: str) -> dict[str, Any]:
    """What Image.save takes to write them."""
    if kind == "BMP":
        options: dict[str, Any] = {"dpi": data.dpi}
    elif kind == "PNG":
        options = {"icc_profile": data.icc, "exif": data.exif, "dpi": data.dpi}
        if data.xmp:
            options["pnginfo"] = PngImagePlugin.PngInfo()
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", data.xmp.decode())
    elif kind == "JPEG":
        options = {"icc_profile": data.icc, "exif": data.exif, "dpi": data.dpi, "xmp": data.xmp}
    else:  # these have no place for a resolution but EXIF's
        options = {"icc_profile": data.icc, "exif": exif_with_resolution(data), "xmp": data.xmp}
    return {option: value for option, value in options.items() if value}


def exif_with_resolution(data: Metadata) -> bytes | None:
    if not data.dpi:
        return data.exif
    exif = Image.Exif()
    exif.load(data.exif or b"")
    for tag, value in zip(_RESOLUTION, (*data.dpi, _INCH), strict=True):
        exif[tag] = value
    return exif.tobytes()


def _described(exif: Image.Exif) -> bytes | None:
    kept = Image.Exif()
    for tag in _DESCRIBE:
        if tag in exif:
            kept[tag] = exif[tag]
    for directory in (_IFD.Exif, _IFD.GPSInfo):
        values = {tag: v for tag, v in exif.get_ifd(directory).items() if tag not in _STORED}
        if values:
            kept[directory] = values
    return kept.tobytes() if len(kept) else None


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    """The number that the file says. A result keeps it: larger in pixels, it is larger in print."""
    found, exif = image.info.get("dpi"), image.getexif()
    try:
        if found is None:
            unit = {_INCH: 1.0, _CENTIMETRE: 2.54}[exif.get(_TAG.ResolutionUnit, _INCH)]
            found = [float(exif[tag]) * unit for tag in _RESOLUTION[:2]]
        across, down = map(float, found)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 1 <= across < 65536 and 1 <= down < 65536 else None


def _fresh(xmp: bytes) -> bytes | None:
    """XMP without what it says of the pixels: a result is upright, and has a size of its own."""
    for name in map(str.encode, _STALE_XMP):
        if name in xmp:
            xmp = re.sub(rb"\s" + name + rb"""\s*=\s*("[^"<>]*"|'[^'<>]*')""", b"", xmp)
            xmp = _without_element(xmp, name)
    return xmp.rstrip(b"\0") or None


def _without_element(xmp: bytes, name: bytes) -> bytes:
    kept, here = [], 0
    opening, closing = b"<" + name + b">", b"</" + name + b">"
    while (start := xmp.find(opening, here)) >= 0:
        end = xmp.find(closing, start)
        if end < 0:
            break
        kept.append(xmp[here:start])
        here = end + len(closing)
    return b"".join([*kept, xmp[here:]])


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
