"""The table of metrics: what each is called, which way is better, and how it is made ready.

A row's `prepare` takes the `Settings` and returns the function that scores a batch, or raises
`UnavailableError` with the reason. Such a metric is reported as not run, with that reason; nothing
is approximated in its place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..models.inception import Inception
from . import coherence, deep, external, fid, fidelity, grid, niqe
from .errors import UnavailableError
from .options import require_metrics
from .pairs import PairedFiles

# uint8 `b h w 3` outputs and references -> `b`
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Settings:
    """What the numbers depend on besides the images."""

    crop_border: int = 0  # pixels left out on each side, for all but networks and the grid
    grid_period: int = 16  # px: 16 for FLUX (2x2 latents of 8 px), 8 for what a VAE alone does
    niqe_params: str | Path | None = None
    inception: Inception | None = None  # as omgsr_jax.converters.read_inception gives it
    perceptual: str | Path | None = None  # what `omgsr convert --perceptual` wrote


@dataclass(frozen=True)
class Metric:
    key: str
    label: str
    better: Literal["higher", "lower"]
    decimals: int
    about: str
    prepare: Callable[[Settings], Any]  # -> Score; for a metric of whole sets -> fid.Features
    min_size: Callable[[Settings], tuple[int, int]] = lambda _: (1, 1)  # short side, long side
    pyiqa: tuple[str, dict[str, Any]] | None = None  # the same metric there, for cross-checks
    per_image: bool = True

    def show(self, value: float | None) -> str:
        return "-" if value is None else f"{value:z.{self.decimals}f}"

    def show_signed(self, value: float | None) -> str:
        """With its sign, unless it is shown as 0."""
        shown = self.show(value)
        return f"+{shown}" if value and value > 0 and float(shown) else shown

    def too_small(self, size: tuple[int, int], settings: Settings) -> bool:
        return any(a < b for a, b in zip(sorted(size), self.min_size(settings), strict=True))


def _psnr(luma: bool) -> Callable[[Settings], Score]:
    return lambda s: lambda sr, hr: fidelity.psnr(sr, hr, luma=luma, crop_border=s.crop_border)


def _ssim(luma: bool) -> Callable[[Settings], Score]:
    return lambda s: lambda sr, hr: fidelity.ssim(sr, hr, luma=luma, crop_border=s.crop_border)


def _niqe(settings: Settings) -> Score:
    pristine = niqe.load_pristine(settings.niqe_params)
    return lambda sr, _: niqe.niqe(sr, pristine, crop_border=settings.crop_border)


def _fid(settings: Settings) -> fid.Features:
    if settings.inception is None:
        raise UnavailableError(
            "no Inception weights: give --inception FILE, pt_inception-2015-12-05-6726825d.pth of "
            "mseitzer/pytorch-fid's releases, or its conversion to safetensors"
        )
    return fid.feature_extractor(settings.inception)


def _grid(settings: Settings) -> Score:
    return lambda sr, _: grid.grid_peak(sr, period=settings.grid_period)


def _coherence(limits: tuple[float, float]) -> Callable[[Settings], Score]:
    return lambda _: lambda sr, hr: coherence.band(sr, hr, limits).coherence


def _deep(name: str) -> Callable[[Settings], Score]:
    """By our networks where they are given, else by pyiqa's."""

    def prepare(settings: Settings) -> Score:
        if settings.perceptual is not None:
            return deep.prepare(name, settings.perceptual)
        try:
            return external.ByPyiqa(_IN_PYIQA[name])
        except UnavailableError as reason:
            raise UnavailableError(f"give --perceptual DIR; or, by pyiqa: {reason}") from reason

    return prepare


def _pyiqa(name: str) -> Callable[[Settings], Score]:
    return lambda _: external.ByPyiqa(name)


def _side(pixels: int) -> Callable[[Settings], tuple[int, int]]:
    return lambda _: (pixels, pixels)


def _inside(short: int, long: int) -> Callable[[Settings], tuple[int, int]]:
    """What must be left when the border is cropped."""
    return lambda s: (short + 2 * s.crop_border, long + 2 * s.crop_border)


def _periods(settings: Settings) -> tuple[int, int]:
    return (grid.MIN_PERIODS * settings.grid_period,) * 2


_IN_PYIQA = {"lpips": "lpips", "lpips_vgg": "lpips-vgg", "dists": "dists"}
VGG = _deep("lpips_vgg")
MANIQA = _pyiqa("maniqa-pipal")
DETAIL = _coherence(coherence.COARSE)
FINE_DETAIL = _coherence(coherence.FINE)
Y = {"test_y_channel": True, "color_space": "ycbcr"}

# In the order of the papers' tables; their settings are the defaults.
METRICS = (
    Metric("psnr", "PSNR", "higher", 2, "dB, luma", _psnr(True), _inside(1, 1), ("psnr", Y)),
    Metric("ssim", "SSIM", "higher", 4, "luma", _ssim(True), _inside(11, 11), ("ssim", Y)),
    Metric("lpips", "LPIPS", "lower", 4, "AlexNet v0.1", _deep("lpips"), _side(31), ("lpips", {})),
    Metric("dists", "DISTS", "lower", 4, "VGG-16", _deep("dists"), _side(16), ("dists", {})),
    Metric("fid", "FID", "lower", 2, "between the two sets", _fid, per_image=False),
    Metric("niqe", "NIQE", "lower", 4, "no reference", _niqe, _inside(96, 192), ("niqe", {})),
    Metric("musiq", "MUSIQ", "higher", 2, "no reference, KonIQ", _pyiqa("musiq"), _side(32)),
    Metric("maniqa", "MANIQA", "higher", 4, "no reference, PIPAL", MANIQA, _side(224)),
    Metric("clipiqa", "CLIPIQA", "higher", 4, "no reference", _pyiqa("clipiqa"), _side(32)),
    Metric("psnr_rgb", "PSNR RGB", "higher", 2, "dB", _psnr(False), _inside(1, 1), ("psnr", {})),
    Metric("ssim_rgb", "SSIM RGB", "higher", 4, "", _ssim(False), _inside(11, 11), ("ssimc", {})),
    Metric("lpips_vgg", "LPIPS VGG", "lower", 4, "VGG-16 v0.1", VGG, _side(16), ("lpips-vgg", {})),
    Metric("coherence", "Detail", "higher", 3, "coherence, 1/16-1/8 c/px", DETAIL, _side(32)),
    Metric("coherence_fine", "Fine det.", "higher", 3, "1/8-1/4 c/px", FINE_DETAIL, _side(32)),
    Metric("grid", "Grid", "lower", 2, "dB over background", _grid, _periods),
)
PAPER_KEYS = ("psnr", "ssim", "lpips", "dists", "fid", "niqe", "musiq", "maniqa", "clipiqa")
NO_REFERENCE = ("niqe", "musiq", "maniqa", "clipiqa", "grid")
BY_KEY = {metric.key: metric for metric in METRICS}


def choose(keys: Sequence[str] | None, protocol: str | None) -> list[str]:
    """The asked metrics in the table's order; all without asking, the papers' with the protocol."""
    if protocol not in (None, "papers"):
        raise InputError(f"there is no protocol {protocol!r}; the only one is 'papers'")
    require_metrics(keys or ())
    if keys is not None:
        return [key for key in BY_KEY if key in keys]
    return [key for key in BY_KEY if protocol is None or key in (*PAPER_KEYS, "grid")]


def prepare(
    keys: Sequence[str], settings: Settings, systems: Sequence[Sequence[PairedFiles]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The metrics that can run on these images, made ready; and why the others cannot."""
    ready, not_run = {}, {}
    images = [image for system in systems for image in system]
    fewest = min(len(system) for system in systems)
    for key in keys:
        metric = BY_KEY[key]
        small = [image for image in images if metric.too_small(image.size, settings)]
        if small:
            short, long = metric.min_size(settings)
            not_run[key] = (
                f"needs images of at least {short}x{long} pixels; {len(small)} of {len(images)} "
                f"are smaller, such as {small[0].name} ({small[0].size[1]}x{small[0].size[0]})"
            )
            continue
        if not metric.per_image and fewest < 2:
            not_run[key] = "compares two sets of images; one image is no set"
            continue
        try:
            ready[key] = metric.prepare(settings)
        except UnavailableError as reason:
            not_run[key] = str(reason)
    return ready, not_run
