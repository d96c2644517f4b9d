"""What is done to an image: the parameters of the degradation, and the plan sampled from them.

A plan is a frozen record of plain numbers. The host and the JAX implementation both carry out
plans, so the random choices are shared and the two can be compared image by image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from .kernels import SHAPES, Kernel
from .light import LightConfig, LightPlan, sampled_light_plan

RESIZE_MODES = ("area", "bilinear", "bicubic")
Range = tuple[float, float]


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} must be between 0 and 1, not {value}")


def _check_distribution(name: str, values: tuple[float, ...], count: int) -> None:
    if len(values) != count or min(values) < 0 or abs(sum(values) - 1) > 1e-6:
        raise InputError(f"{name} must be {count} probabilities that sum to 1, not {values}")


def _check_range(name: str, limits: Range, lowest: float, highest: float) -> None:
    if len(limits) != 2 or not lowest <= limits[0] <= limits[1] <= highest:
        raise InputError(f"{name} must be (low, high) within [{lowest}, {highest}], not {limits}")


@dataclass(frozen=True)
class StageConfig:
    """One round of blur, resize, noise and JPEG. Probabilities are in [0, 1], ranges uniform.

    Gaussian noise is in grey levels of 255; `poisson_scale` multiplies shot noise of one count per
    grey level. `resize_probabilities` are those of enlarging, shrinking and keeping the size.
    """

    blur_probability: float
    blur_sigma: Range
    resize_probabilities: tuple[float, float, float]
    resize_range: Range
    gaussian_sigma: Range
    poisson_scale: Range
    jpeg_quality: Range
    gaussian_probability: float = 0.5
    grey_noise_probability: float = 0.4
    sinc_probability: float = 0.1
    generalized_beta: Range = (0.5, 4.0)
    plateau_beta: Range = (1.0, 2.0)

    def __post_init__(self) -> None:
        for name in ("blur", "gaussian", "grey_noise", "sinc"):
            _check_probability(f"{name}_probability", getattr(self, f"{name}_probability"))
        _check_distribution("resize_probabilities", self.resize_probabilities, 3)
        for name in ("gaussian_sigma", "poisson_scale"):
            _check_range(name, getattr(self, name), 0.0, math.inf)
        for name in ("generalized_beta", "plateau_beta"):
            _check_range(name, getattr(self, name), 1e-3, math.inf)
        _check_range("blur_sigma", self.blur_sigma, 1e-3, math.inf)
        _check_range("jpeg_quality", self.jpeg_quality, 1, 100)
        _check_range("resize_range", self.resize_range, 1e-3, math.inf)
        if not self.resize_range[0] <= 1 <= self.resize_range[1]:
            raise InputError(f"resize_range must contain 1, but is {self.resize_range}")


PUBLISHED_FIRST = StageConfig(
    blur_probability=1.0,
    blur_sigma=(0.2, 3.0),
    resize_probabilities=(0.2, 0.7, 0.1),
    resize_range=(0.3, 1.5),
    gaussian_sigma=(1.0, 15.0),
    poisson_scale=(0.05, 2.0),
    jpeg_quality=(60, 95),
)
PUBLISHED_SECOND = StageConfig(
    blur_probability=0.5,
    blur_sigma=(0.2, 1.5),
    resize_probabilities=(0.3, 0.4, 0.3),
    resize_range=(0.6, 1.2),
    gaussian_sigma=(1.0, 12.0),
    poisson_scale=(0.05, 1.0),
    jpeg_quality=(60, 100),
)


@dataclass(frozen=True)
class DegradationConfig:
    """The second-order degradation. The defaults are the published ones for 512 px and x4.

    Kernel sizes are the odd numbers from `kernel_size[0]` to `kernel_size[1]`; the random sinc
    filters of the two stages go down to pi/3 below `small_kernel` taps and to pi/5 from there on.
    """

    scale: int = 4
    kernel_size: tuple[int, int] = (7, 21)
    small_kernel: int = 13
    kernel_probabilities: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    final_sinc_probability: float = 0.8
    first: StageConfig = field(default=PUBLISHED_FIRST)
    second: StageConfig = field(default=PUBLISHED_SECOND)

    def __post_init__(self) -> None:
        low, high = self.kernel_size
        if low < 1 or low > high or low % 2 == 0 or high % 2 == 0:
            raise InputError(
                f"kernel_size must be two odd numbers in order, not {self.kernel_size}"
            )
        if self.scale < 1:
            raise InputError(f"scale must be at least 1, not {self.scale}")
        _check_distribution("kernel_probabilities", self.kernel_probabilities, len(SHAPES))
        _check_probability("final_sinc_probability", self.final_sinc_probability)


@dataclass(frozen=True)
class Mixture:
    """One of several degradations of one scale, sampled anew for each image by their shares."""

    parts: tuple[DegradationConfig | LightConfig, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_distribution("shares", self.shares, len(self.parts))
        if len({part.scale for part in self.parts}) != 1:
            raise InputError("the parts of a mixture must have one scale")

    @property
    def scale(self) -> int:
        return self.parts[0].scale


AnyDegradation = DegradationConfig | LightConfig | Mixture

# The published second-order degradation with less of everything.
MILD = DegradationConfig(
    first=StageConfig(
        blur_probability=0.8,
        blur_sigma=(0.2, 2.0),
        resize_probabilities=(0.2, 0.4, 0.4),
        resize_range=(0.5, 1.5),
        gaussian_sigma=(0.0, 5.0),
        poisson_scale=(0.0, 0.5),
        jpeg_quality=(75, 98),
    ),
    second=StageConfig(
        blur_probability=0.3,
        blur_sigma=(0.2, 1.0),
        resize_probabilities=(0.2, 0.3, 0.5),
        resize_range=(0.8, 1.2),
        gaussian_sigma=(0.0, 4.0),
        poisson_scale=(0.0, 0.3),
        jpeg_quality=(75, 100),
    ),
    final_sinc_probability=0.4,
)

PRESETS = {
    512: DegradationConfig(),
    1024: DegradationConfig(scale=8, kernel_size=(11, 41), small_kernel=25),
}
STRENGTHS: dict[str, DegradationConfig | LightConfig] = {
    "light": LightConfig(),
    "mild": MILD,
    "published": DegradationConfig(),
}
# Photographs of all kinds, most of them good.
MIXED = Mixture(tuple(STRENGTHS.values()), (0.6, 0.2, 0.2))


@dataclass(frozen=True)
class Stage:
    """One round as sampled. `noise` is a sigma in grey levels, or the scale of Poisson noise."""

    kernel: Kernel | None
    resize: float
    mode: str
    poisson: bool
    noise: float
    grey: bool
    quality: int


@dataclass(frozen=True)
class Plan:
    """Everything random about one degradation except the noise fields, which `noise_seed` fixes."""

    first: Stage
    second: Stage
    final_sinc: Kernel | None
    jpeg_last: bool
    lr_mode: str
    resize_back_mode: str
    noise_seed: int


def example_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one example: the same on every machine, worker and process."""
    if min(seed, epoch, index) < 0:
        raise InputError(f"seed, epoch and index must not be negative: {(seed, epoch, index)}")
    return np.random.default_rng((seed, epoch, index))


def sampled_plan(config: AnyDegradation, rng: np.random.Generator) -> Plan | LightPlan:
    if isinstance(config, Mixture):
        return sampled_plan(config.parts[rng.choice(len(config.parts), p=config.shares)], rng)
    if isinstance(config, LightConfig):
        return sampled_light_plan(config, rng)
    return Plan(
        first=_sampled_stage(config, config.first, rng),
        second=_sampled_stage(config, config.second, rng),
        final_sinc=_sampled_final_sinc(config, rng),
        jpeg_last=_happens(rng, 0.5),
        lr_mode=_sampled_mode(rng),
        resize_back_mode=_sampled_mode(rng),
        noise_seed=int(rng.integers(2**32)),
    )


def stage_sizes(plan: Plan, size: tuple[int, int], scale: int) -> tuple[tuple[int, int], ...]:
    """(height, width) after the first resize, after the second, and of the low-resolution image."""
    h, w = size
    first = plan.first.resize
    second = plan.second.resize / scale
    return (
        (max(int(h * first), 1), max(int(w * first), 1)),
        (max(int(h * second), 1), max(int(w * second), 1)),
        (h // scale, w // scale),
    )


def _sampled_stage(
    config: DegradationConfig, stage: StageConfig, rng: np.random.Generator
) -> Stage:
    kernel = _sampled_kernel(config, stage, rng) if _happens(rng, stage.blur_probability) else None
    direction = rng.choice(3, p=stage.resize_probabilities)
    low, high = ((1.0, stage.resize_range[1]), (stage.resize_range[0], 1.0), (1.0, 1.0))[direction]
    resize, mode = float(rng.uniform(low, high)), _sampled_mode(rng)
    poisson = not _happens(rng, stage.gaussian_probability)
    noise = float(rng.uniform(*(stage.poisson_scale if poisson else stage.gaussian_sigma)))
    grey = _happens(rng, stage.grey_noise_probability)
    quality = round(float(rng.uniform(*stage.jpeg_quality)))
    return Stage(kernel, resize, mode, poisson, noise, grey, quality)


def _sampled_kernel(
    config: DegradationConfig, stage: StageConfig, rng: np.random.Generator
) -> Kernel:
    size = _sampled_kernel_size(config, rng)
    if _happens(rng, stage.sinc_probability):
        lowest = math.pi / 3 if size < config.small_kernel else math.pi / 5
        return Kernel("sinc", size, cutoff=float(rng.uniform(lowest, math.pi)))
    kind = SHAPES[rng.choice(len(SHAPES), p=config.kernel_probabilities)]
    sigma_u = float(rng.uniform(*stage.blur_sigma))
    if kind.endswith("aniso"):
        sigma = (sigma_u, float(rng.uniform(*stage.blur_sigma)))
        theta = float(rng.uniform(-math.pi, math.pi))
    else:
        sigma, theta = (sigma_u, sigma_u), 0.0
    beta = 1.0
    if kind.startswith("generalized"):
        beta = _sampled_beta(stage.generalized_beta, rng)
    elif kind.startswith("plateau"):
        beta = _sampled_beta(stage.plateau_beta, rng)
    return Kernel(kind, size, sigma, theta, beta)


def _sampled_final_sinc(config: DegradationConfig, rng: np.random.Generator) -> Kernel | None:
    if not _happens(rng, config.final_sinc_probability):
        return None
    size = _sampled_kernel_size(config, rng)
    return Kernel("sinc", size, cutoff=float(rng.uniform(math.pi / 3, math.pi)))


def _sampled_kernel_size(config: DegradationConfig, rng: np.random.Generator) -> int:
    low, high = config.kernel_size
    return int(rng.integers(low // 2, high // 2, endpoint=True)) * 2 + 1


def _sampled_beta(limits: Range, rng: np.random.Generator) -> float:
    """Half of the kernels flatter than a Gaussian, half more peaked."""
    return float(rng.uniform(limits[0], 1.0) if _happens(rng, 0.5) else rng.uniform(1.0, limits[1]))


def _sampled_mode(rng: np.random.Generator) -> str:
    return RESIZE_MODES[rng.integers(len(RESIZE_MODES))]


def _happens(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)
