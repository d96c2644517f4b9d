"""The Real-ESRGAN degradation on the host: NumPy and OpenCV, with a real JPEG encoder.

`degrade` carries out a plan on one image; `degrade_folder` makes low/high-resolution pairs on disk.
Images are h w c uint8 RGB outside and float32 in [0, 1] between the steps.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .. import files
from ..errors import InputError
from . import images
from .kernels import Kernel, gaussian_1d, render, trimmed
from .light import LightPlan, degrade_lightly
from .plan import PRESETS, AnyDegradation, Plan, Stage, example_rng, sampled_plan, stage_sizes

_INTERPOLATION = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
LUMA = np.array([0.2989, 0.587, 0.114], np.float32)


def degrade(
    hr: np.ndarray, plan: Plan | LightPlan, scale: int, resize_back: bool = True
) -> np.ndarray:
    """The low-quality version of `hr` under `plan`: h w 3 uint8 in, the same out.

    With `resize_back` the result has the size of `hr`, as the networks take it; without, it has
    1/scale of it.
    """
    if hr.dtype != np.uint8 or hr.ndim != 3 or hr.shape[2] != 3 or min(hr.shape[:2]) < scale:
        raise ValueError(
            f"degrade takes an RGB image, h w 3 uint8, of at least {scale} px a side; "
            f"this one is {hr.shape} {hr.dtype}"
        )
    if isinstance(plan, LightPlan):
        return degrade_lightly(hr, plan, scale, resize_back)
    first_size, second_size, lr_size = stage_sizes(plan, hr.shape[:2], scale)
    rng = np.random.default_rng(plan.noise_seed)
    image = np.multiply(hr, np.float32(1 / 255), dtype=np.float32)

    image = _noisy_resize(image, plan.first, first_size, rng)
    image = jpeg(image, plan.first.quality)

    image = _noisy_resize(image, plan.second, second_size, rng)
    if plan.jpeg_last:
        image = blur(resize(image, lr_size, plan.lr_mode), plan.final_sinc)
        image = jpeg(image, plan.second.quality)
    else:
        image = jpeg(image, plan.second.quality)
        image = blur(resize(image, lr_size, plan.lr_mode), plan.final_sinc)

    if resize_back:
        image = resize(image, hr.shape[:2], plan.resize_back_mode)
    return to_uint8(image)


def blur(image: np.ndarray, kernel: Kernel | None) -> np.ndarray:
    """Correlation with the kernel, the image mirrored about its border pixels."""
    if kernel is None:
        return image
    if kernel.kind == "iso":
        taps = gaussian_1d(kernel)
        return cv2.sepFilter2D(image, -1, taps, taps, borderType=cv2.BORDER_REFLECT_101)
    taps = trimmed(render(kernel)).astype(np.float32)
    return cv2.filter2D(image, -1, taps, borderType=cv2.BORDER_REFLECT_101)


def resize(image: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """To (height, width). Bilinear and bicubic (a = -0.75) take no account of the scale; area
    averages the whole source pixels that a target pixel touches, so enlarging repeats pixels."""
    if image.shape[:2] == tuple(size):
        return image
    if mode == "area":
        return _pool_columns(_pool_rows(image, size[0]), size[1])
    return cv2.resize(image, (size[1], size[0]), interpolation=_INTERPOLATION[mode])


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Through a real encoder and decoder (libjpeg-turbo, 4:2:0), and back to float."""
    bgr = cv2.cvtColor(to_uint8(image), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    rgb = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return np.multiply(rgb, np.float32(1 / 255), dtype=np.float32)


def add_noise(image: np.ndarray, stage: Stage, rng: np.random.Generator) -> np.ndarray:
    """Gaussian or Poisson noise, per channel or the same in all three, clipped to [0, 1]."""
    h, w, c = image.shape
    normal = rng.standard_normal((h, w, 1 if stage.grey else c), dtype=np.float32)
    if stage.poisson:
        base = (image @ LUMA)[..., None] if stage.grey else image
        noise = _poisson_noise(base, normal, rng)
        noise *= np.float32(stage.noise)
    else:
        noise = np.multiply(normal, np.float32(stage.noise / 255), out=normal)
    return np.clip(image + noise, 0, 1)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """From float in [0, 1], clipped and rounded."""
    levels = image * np.float32(255)
    np.rint(levels, out=levels)
    return np.clip(levels, 0, 255, out=levels).astype(np.uint8)


def _noisy_resize(
    image: np.ndarray, stage: Stage, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    return add_noise(resize(blur(image, stage.kernel), size, stage.mode), stage, rng)


def _poisson_noise(base: np.ndarray, normal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shot noise of `base`: counts at `peak` per unit, minus the mean.

    The peak is the number of grey levels the image uses, rounded up to a power of two. Counts of
    rates from 10 up come from the given normals through the Cornish-Fisher expansion of the Poisson
    quantile, rounded (hence 1/12 off the variance first); smaller rates are sampled directly.
    """
    levels = to_uint8(base)
    used = np.count_nonzero(np.bincount(levels.ravel(), minlength=256))
    peak = 2.0 ** np.ceil(np.log2(used))
    rates = np.arange(256) / 255 * peak
    counts = _large_counts(levels, rates, normal)
    small = levels < np.searchsorted(rates, 10.0)
    counts[small] = rng.poisson(rates[levels[small]])
    counts *= np.float32(1 / peak)
    counts -= np.multiply(levels, np.float32(1 / 255), dtype=np.float32)
    return counts


def _large_counts(levels: np.ndarray, rates: np.ndarray, z: np.ndarray) -> np.ndarray:
    """round(rate + s z + (z^2 - 1)/6 + (z - z^3)/(72 s)): a polynomial in z for each level."""
    s = np.sqrt(np.maximum(rates, 1.0) - 1 / 12)
    constant, linear, cubic = (
        table.astype(np.float32) for table in (rates - 1 / 6, s + 1 / (72 * s), -1 / (72 * s))
    )
    counts = cubic[levels]
    counts *= z
    counts += np.float32(1 / 6)
    counts *= z
    counts += linear[levels]
    counts *= z
    counts += constant[levels]
    return np.rint(counts, out=counts)


def _pool_rows(image: np.ndarray, count: int) -> np.ndarray:
    """Row i is the mean of the source rows from floor(i n / count) to ceil((i + 1) n / count)."""
    n, row = image.shape[0], np.arange(count)
    start, stop = row * n // count, -(-(row + 1) * n // count)
    total = image[start]
    for offset in range(1, (stop - start).max()):
        inside = np.flatnonzero(start + offset < stop)
        total[inside] += image[start[inside] + offset]
    return total / (stop - start).astype(np.float32)[:, None, None]


def _pool_columns(image: np.ndarray, count: int) -> np.ndarray:
    return cv2.transpose(_pool_rows(cv2.transpose(image), count))


@dataclass(frozen=True)
class FolderSummary:
    """What `degrade_folder` did: how many pairs it wrote, and what it could not read or use."""

    written: int
    failed: tuple[tuple[str, str], ...]


def degrade_folder(
    source: str | Path,
    output: str | Path,
    *,
    seed: int = 0,
    config: AnyDegradation = PRESETS[512],
    crop: int | None = None,
    resize_back: bool = False,
    progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] | None = None,
) -> FolderSummary:
    """Writes `output`/lr and `output`/hr as PNG, one pair for each image of `source`, and
    `output`/pairs.jsonl with the plan of each.

    `source` is anything `images.list_images` takes. An image is cut at its centre to `crop`
    squared, or else to a multiple of the scale. Its degradation depends on the seed and on its
    file name alone, so adding images changes no other pair. `progress` is called with the number of
    images done and that of all, `notify` told of files that are passed over.
    """
    if crop is not None and (crop < 1 or crop % config.scale):
        raise InputError(f"the crop must be a multiple of the scale {config.scale}, not {crop}")
    files.require_folder_name(output)
    paths = images.list_images(source, notify)
    output = Path(output)
    files.remove_leftovers((output, output / "hr", output / "lr"))
    targets = _targets(source, paths, output)
    failed, lines = [], []
    for done, (path, (hr_path, lr_path)) in enumerate(zip(paths, targets, strict=True), start=1):
        try:
            hr = _centre_cut(images.read_image(path), config.scale, crop)
            index = zlib.crc32(os.fsencode(Path(path).name))
            plan = sampled_plan(config, example_rng(seed, 0, index))
            images.write_image(hr_path, hr)
            images.write_image(lr_path, degrade(hr, plan, config.scale, resize_back))
        except InputError as error:
            failed.append((path, str(error)))
        else:
            plan_json = dataclasses.asdict(plan)
            record = {"file": hr_path.name, "source": path, "seed": seed, "plan": plan_json}
            lines.append(json.dumps(record))
        if progress:
            progress(done, len(paths))
    if lines:
        files.write_text(output / "pairs.jsonl", "\n".join(lines) + "\n")
    return FolderSummary(len(lines), tuple(failed))


def _targets(source: str | Path, paths: list[str], output: Path) -> list[tuple[Path, Path]]:
    """Where the two images of each pair go: not where anything is read."""
    folders = (output / "hr", output / "lr")
    if os.path.isdir(source):
        for folder in (output, *folders):
            if files.within(folder, source):
                raise InputError(
                    f"{folder} lies inside {source}; choose an output folder outside it"
                )
    planned = files.Outputs([source, *paths])
    planned.claim(output / "pairs.jsonl")
    hr, lr = ([planned.claim(folder / name) for name in _png_names(paths)] for folder in folders)
    return list(zip(hr, lr, strict=True))


def _png_names(paths: list[str]) -> list[str]:
    """File names for the results; two images that would overwrite each other are an error."""
    names: dict[str, str] = {}
    for path in paths:
        name = Path(path).stem + ".png"
        if name in names:
            raise InputError(
                f"{names[name]} and {path} would both be written as {name}; rename one of them, "
                "or degrade their folders separately"
            )
        names[name] = path
    return list(names)


def _centre_cut(image: np.ndarray, scale: int, crop: int | None) -> np.ndarray:
    h, w = image.shape[:2]
    height, width = (crop, crop) if crop else (h - h % scale, w - w % scale)
    if height > h or width > w or min(height, width) == 0:
        raise InputError(f"{w}x{h} px is too small for a crop of {crop or scale} px")
    top, left = (h - height) // 2, (w - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])
