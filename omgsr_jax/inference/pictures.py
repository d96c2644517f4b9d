"""A picture as it was stored: pixels, and everything that its file said besides them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from .sizes import Size

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Picture:
    rgb: np.ndarray  # h w 3 float32 in [0, 1]
    alpha: np.ndarray | None = None  # h w float32 in [0, 1]
    grey: bool = False
    bits: int = 8  # per channel: 8 or 16
    icc: bytes | None = None
    exif: bytes | None = None

    @property
    def size(self) -> Size:
        return self.rgb.shape[0], self.rgb.shape[1]

    def pixels(self, bits: int | None = None) -> np.ndarray:
        """uint8 or uint16, with 1 (grey), 2 (and alpha), 3 or 4 channels: h w c."""
        bits = bits or self.bits
        colour = (self.rgb @ _LUMA)[..., None] if self.grey else self.rgb
        if self.alpha is not None:
            colour = np.concatenate([colour, self.alpha[..., None]], axis=-1)
        peak = 2**bits - 1
        return np.clip(np.round(colour * peak), 0, peak).astype(
            np.uint16 if bits == 16 else np.uint8
        )

    def image(self) -> Image.Image:
        """An 8-bit PIL image: L, LA, RGB or RGBA, with profile and EXIF in its `info`."""
        pixels = self.pixels(8)
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        image.info |= {"icc_profile": self.icc} if self.icc else {}
        image.info |= {"exif": self.exif} if self.exif else {}
        return image

    def opaque(self) -> "Picture":
        """The same over white, for formats without transparency."""
        if self.alpha is None:
            return self
        alpha = self.alpha[..., None]
        return replace(self, rgb=self.rgb * alpha + (1 - alpha), alpha=None)


def from_array(array: Any) -> Picture:
    """uint8, uint16, or float in [0, 1]; h w, or h w c with c of 1, 2, 3 or 4."""
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 2, 3, 4) or 0 in array.shape:
        raise InputError(
            f"an array of shape {array.shape} is not an image; expected h w, or h w c with 1, 2, 3 "
            "or 4 channels"
        )
    bits = 16 if array.dtype == np.uint16 else 8
    if array.dtype in (np.uint8, np.uint16):
        array = array.astype(np.float32) / (2**bits - 1)
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise InputError(f"the array holds {int((~np.isfinite(array)).sum())} NaN or infinity")
        if array.min() < 0 or array.max() > 1:
            raise InputError(
                f"a float array must be within [0, 1]; this one has {array.min():g} .. "
                f"{array.max():g}. For 0 .. 255 use uint8."
            )
        array = array.astype(np.float32)
    else:
        raise InputError(f"an array must be uint8, uint16 or float, not {array.dtype}")
    channels = array.shape[-1]
    return Picture(
        rgb=np.repeat(array[..., :1], 3, axis=-1) if channels < 3 else array[..., :3],
        alpha=array[..., -1] if channels in (2, 4) else None,
        grey=channels < 3,
        bits=bits,
    )


def resize(array: np.ndarray, size: Size) -> np.ndarray:
    """Bicubic with antialiasing, in fp32 (as PIL does it): h w or h w c."""
    if array.shape[:2] == tuple(size):
        return array
    if array.ndim == 3:
        channels = [resize(array[..., i], size) for i in range(array.shape[-1])]
        return np.stack(channels, axis=-1)
    plane = Image.fromarray(np.ascontiguousarray(array, np.float32))
    return np.asarray(plane.resize((size[1], size[0]), Image.Resampling.BICUBIC))
