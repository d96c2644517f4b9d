"""A light degradation: what a small but good photograph has lost, and what its camera added.

Blur, one reduction by PIL, often sharpening, little noise, often a good JPEG. The published
degradation is for badly treated images; a model that has only seen those blurs good ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

Range = tuple[float, float]
REDUCTIONS = ("BICUBIC", "LANCZOS", "BOX", "HAMMING", "BILINEAR")  # as PIL calls them


@dataclass(frozen=True)
class LightConfig:
    """Ranges are uniform. Blur is in the original's pixels, sharpening in the reduced image's."""

    scale: int = 4
    blur_sigma: Range = (0.0, 4.0)
    sharpen_probability: float = 0.5
    sharpen_sigma: Range = (0.5, 2.0)
    sharpen_amount: Range = (0.2, 1.5)
    noise_sigma: Range = (0.0, 3.0)  # grey levels
    jpeg_probability: float = 0.5
    jpeg_quality: Range = (75, 98)


@dataclass(frozen=True)
class LightPlan:
    """One light degradation as drawn; a strength of 0, or no quality, leaves its step out."""

    blur_sigma: tuple[float, float]  # across, down
    reduction: str
    sharpen_sigma: float
    sharpen_amount: float
    noise_sigma: float
    quality: int | None
    noise_seed: int


def sampled_light_plan(config: LightConfig, rng: np.random.Generator) -> LightPlan:
    across = float(rng.uniform(*config.blur_sigma))
    down = float(rng.uniform(*config.blur_sigma)) if rng.random() < 0.3 else across
    sharpened = rng.random() < config.sharpen_probability
    amount = float(rng.uniform(*config.sharpen_amount)) if sharpened else 0.0
    compressed = rng.random() < config.jpeg_probability
    return LightPlan(
        blur_sigma=(across, down),
        reduction=REDUCTIONS[rng.integers(len(REDUCTIONS))],
        sharpen_sigma=float(rng.uniform(*config.sharpen_sigma)),
        sharpen_amount=amount,
        noise_sigma=float(rng.uniform(*config.noise_sigma)),
        quality=round(float(rng.uniform(*config.jpeg_quality))) if compressed else None,
        noise_seed=int(rng.integers(2**32)),
    )


def degrade_lightly(
    hr: np.ndarray, plan: LightPlan, scale: int, resize_back: bool = True
) -> np.ndarray:
    """`degradation.degrade` for a light plan: h w 3 uint8 in, the same out."""
    h, w = hr.shape[:2]
    small = (w // scale, h // scale)
    image = resized(blurred(hr.astype(np.float32), *plan.blur_sigma), small, plan.reduction)
    if plan.sharpen_amount:
        soft = blurred(image, plan.sharpen_sigma, plan.sharpen_sigma)
        image = image + np.float32(plan.sharpen_amount) * (image - soft)
    rng = np.random.default_rng(plan.noise_seed)
    noise = rng.standard_normal(image.shape, np.float32)
    pixels = _to_uint8(image + np.float32(plan.noise_sigma) * noise)
    if plan.quality is not None:
        _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, plan.quality])
        pixels = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    if resize_back:
        return _to_uint8(resized(pixels.astype(np.float32), (w, h), "BICUBIC"))
    return pixels


def blurred(image: np.ndarray, across: float, down: float) -> np.ndarray:
    """Under a Gaussian, h w c; deviations near 0 change nothing."""
    if max(across, down) < 0.1:
        return image
    border = cv2.BORDER_REFLECT_101
    return cv2.GaussianBlur(
        image, (0, 0), max(across, 0.1), sigmaY=max(down, 0.1), borderType=border
    )


def resized(image: np.ndarray, size: tuple[int, int], method: str) -> np.ndarray:
    """To (width, height) by PIL in fp32: h w c."""
    how = Image.Resampling[method]
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(plane.resize(size, how)) for plane in planes], axis=-1)


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
