"""A picture as it was stored: pixels, and everything that its file said besides them."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import Metadata
from .sizes import Size

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Picture:
    values: np.ndarray  # h w 3: uint8, uint16, or float32 in [0, 1]
    alpha: np.ndarray | None = None  # h w float32 in [0, 1]
    grey: bool = False
    bits: int = 8  # per channel: 8 or 16
    metadata: Metadata = field(default_factory=Metadata)  # what the file said besides
    notes: tuple[str, ...] = ()  # what could not be taken from the file: sentences

    @property
    def size(self) -> Size:
        return self.values.shape[0], self.values.shape[1]

    @property
    def rgb(self) -> np.ndarray:
        """h w 3 float32 in [0, 1]."""
        return _levels(self.values)

    def pixels(self, bits: int | None = None) -> np.ndarray:
        """uint8 or uint16, with 1 (grey), 2 (and alpha), 3 or 4 channels: h w c."""
        bits = bits or self.bits
        if self.values.dtype == f"uint{bits}" and not self.grey and self.alpha is None:
            return self.values
        colour = (self.rgb @ _LUMA)[..., None] if self.grey else self.rgb
        if self.alpha is not None:
            colour = np.concatenate([colour, self.alpha[..., None]], axis=-1)
        peak = 2**bits - 1
        return np.clip(np.round(colour * peak), 0, peak).astype(
            np.uint16 if bits == 16 else np.uint8
        )

    def image(self) -> Image.Image:
        """An 8-bit PIL image: L, LA, RGB or RGBA, with what the file said in its `info`."""
        image = self.bare_image()
        data = {
            "icc_profile": self.metadata.icc,
            "exif": self.metadata.exif,
            "xmp": self.metadata.xmp,
            "dpi": self.metadata.dpi,
        }
        image.info |= {key: value for key, value in data.items() if value}
        return image

    def bare_image(self) -> Image.Image:
        pixels = self.pixels(8)
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)

    def opaque(self) -> "Picture":
        """The same over white, for formats without transparency."""
        if self.alpha is None:
            return self
        alpha = self.alpha[..., None]
        return replace(self, values=self.rgb * alpha + (1 - alpha), alpha=None)

    def on_screen(self) -> np.ndarray:
        """Over white, in 8 bits: h w 3."""
        pixels = self.opaque().pixels(8)
        return np.repeat(pixels, 3, axis=-1) if self.grey else pixels


def from_array(array: Any) -> Picture:
    """uint8, uint16, or float in [0, 1]; h w, or h w c with c of 1, 2, 3 or 4."""
    try:
        array = np.asarray(array)
    except Exception as error:  # what NumPy and others raise for lists of lists and device tensors
        raise InputError(f"this {type(array).__name__} is no array of pixels: {error}") from error
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in _CHANNELS or 0 in array.shape:
        raise InputError(
            f"an array of shape {array.shape} is not an image; expected h w, or h w c with 1, 2, 3 "
            f"or 4 channels{_shape_hint(array)}"
        )
    channels, bits = array.shape[-1], 16 if array.dtype == np.uint16 else 8
    array = _checked(array)
    return Picture(
        values=np.repeat(array[..., :1], 3, axis=-1) if channels < 3 else array[..., :3],
        alpha=_levels(array[..., -1]) if channels in (2, 4) else None,
        grey=channels < 3,
        bits=bits,
    )


_CHANNELS = (1, 2, 3, 4)


def _shape_hint(array: np.ndarray) -> str:
    if array.dtype == object:
        return f"; this holds {type(array.flat[0]).__name__ if array.size else 'nothing'}"
    if array.ndim == 3 and array.shape[0] in _CHANNELS:
        return ". For c h w give array.transpose(1, 2, 0)"
    if array.ndim == 4:
        return ". For a batch call upscale_batch(list(array))"
    return ""


def _levels(values: np.ndarray) -> np.ndarray:
    """float32 in [0, 1]."""
    if values.dtype == np.float32:
        return values
    return values.astype(np.float32) / np.iinfo(values.dtype).max


def _checked(array: np.ndarray) -> np.ndarray:
    """uint8, uint16, or float32 in [0, 1]."""
    if array.dtype in (np.uint8, np.uint16):
        return array
    if not np.issubdtype(array.dtype, np.floating):
        hint = ""
        if np.issubdtype(array.dtype, np.integer) or array.dtype == bool:
            hint = "; for values of 0 .. 255 give array.astype(numpy.uint8)"
        raise InputError(f"an array must be uint8, uint16 or float, not {array.dtype}{hint}")
    if not np.isfinite(array).all():
        raise InputError(f"the array holds {int((~np.isfinite(array)).sum())} NaN or infinity")
    least, most = float(array.min()), float(array.max())
    if least < 0 or most > 1:
        hint = "For -1 .. 1 give array / 2 + 0.5" if least >= -1 and most <= 1 else ""
        raise InputError(
            f"a float array must be within [0, 1]; this one has {least:g} .. {most:g}. "
            f"{hint or 'For 0 .. 255 use uint8'}."
        )
    array = array.astype(np.float32)
    # What has 8 bits is computed as such, so that it gives what its file gives.
    stored = np.round(array * 255).astype(np.uint8)
    return stored if np.allclose(_levels(stored), array, rtol=0, atol=1e-6) else array


def resize(array: np.ndarray, size: Size) -> np.ndarray:
    """Bicubic with antialiasing, in fp32 (as PIL does it): h w or h w c."""
    if array.shape[:2] == tuple(size):
        return array
    if array.ndim == 3:
        channels = [resize(array[..., i], size) for i in range(array.shape[-1])]
        return np.stack(channels, axis=-1)
    plane = Image.fromarray(np.ascontiguousarray(array, np.float32))
    return np.asarray(plane.resize((size[1], size[0]), Image.Resampling.BICUBIC))
