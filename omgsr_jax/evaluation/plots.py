"""Distributions of scores as inline SVG, coloured by the report's style sheet."""

from collections.abc import Callable, Iterator, Sequence
from html import escape

import numpy as np

from .metrics import Metric
from .results import System

WIDTH, ROW, TOP, AXIS = 320, 68, 2, 22  # px; a row is its name, its density and its dots
NAME, DOTS = 16, 14
LEFT, RIGHT = 10, 10
MAX_DOTS = 400  # beyond, single images are no longer told apart


def distribution(metric: Metric, systems: Sequence[System]) -> str:
    """One row for each system: smoothed density, a dot for each image, the mean's interval."""
    values = [system.scores[metric.key] for system in systems]
    values = [row[np.isfinite(row)] for row in values]
    pooled = np.concatenate(values)
    if not len(pooled):
        return "<p class=muted>undefined on every image</p>"
    low, high = float(pooled.min()), float(pooled.max())
    margin = 0.1 * (high - low) or 0.5
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    height = TOP + ROW * len(systems) + AXIS
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(metric.label)}: distribution over images">'
    ]
    parts += _axis(low, high, x, TOP + ROW * len(systems))
    for index, (system, row) in enumerate(zip(systems, values, strict=True)):
        if len(row):
            parts += _row(metric, system, row, x, (low, high), (index, TOP + ROW * index))
    return "".join([*parts, "</svg>"])


def _row(
    metric: Metric,
    system: System,
    values: np.ndarray,
    x: Callable[[float], float],
    limits: tuple[float, float],
    place: tuple[int, int],
) -> Iterator[str]:
    index, top = place
    top, base = top + NAME, top + ROW - DOTS
    grid = np.linspace(*limits, 160)
    density = _density(values, grid, limits)
    points = " ".join(
        f"{x(g):.1f},{base - (base - top) * d:.1f}" for g, d in zip(grid, density, strict=True)
    )
    mean = system.mean(metric.key)
    title = (
        f"{system.name}: mean {metric.show(mean.value)}, 95% interval "
        f"{metric.show(mean.low)} to {metric.show(mean.high)}"
    )
    yield f'<g class="s{index % 6}"><title>{escape(title)}</title>'
    ends = (f"{x(limit):.1f},{base}" for limit in limits)
    yield f'<polygon class=area points="{next(ends)} {points} {next(ends)}"/>'
    yield (
        f'<rect class=ci x="{x(mean.low):.1f}" y="{top}" height="{base - top}" '
        f'width="{max(x(mean.high) - x(mean.low), 1):.1f}"/>'
    )
    centre = f"{x(mean.value):.1f}"
    yield f'<line class=mean x1="{centre}" x2="{centre}" y1="{top}" y2="{base}"/>'
    if len(values) <= MAX_DOTS:
        for rank, value in enumerate(values):
            yield f'<circle cx="{x(value):.1f}" cy="{base + 4 + rank * 5 % 3 * 2.5:.1f}" r="1.6"/>'
    yield f'<text x="{LEFT}" y="{top - 4}">{escape(system.name)}</text></g>'


def _density(values: np.ndarray, grid: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Gaussian kernel density at Silverman's width, scaled to a maximum of 1."""
    spread = min(values.std(), np.subtract(*np.quantile(values, [0.75, 0.25])) / 1.34 or np.inf)
    width = max(1.06 * spread * len(values) ** -0.2, (limits[1] - limits[0]) / 100)
    # Binned first: the cost does not depend on the number of images.
    counts, edges = np.histogram(values, bins=400, range=limits)
    centres = (edges[1:] + edges[:-1]) / 2
    density = np.exp(-(((grid[:, None] - centres) / width) ** 2) / 2) @ counts
    return density / density.max()


def _axis(low: float, high: float, x: Callable[[float], float], y: int) -> Iterator[str]:
    step = 10 ** np.floor(np.log10((high - low) / 3))
    step = next(step * k for k in (1, 2, 5, 10) if (high - low) / (step * k) <= 6)
    decimals = max(0, int(-np.floor(np.log10(step) + 1e-9)))
    for tick in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step + 0.0:
        yield f'<line class=tick x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{y}"/>'
        yield f'<text class=label x="{x(tick):.1f}" y="{y + 14}">{tick:z.{decimals}f}</text>'
