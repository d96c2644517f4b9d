"""The curves of a mid-timestep search as one SVG picture, a panel for each criterion."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

PANEL, HEIGHT = 330, 270  # px
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 56, 34
LOG_SPAN = 100  # from how large a ratio of values on the axis is logarithmic
POINTS = 400  # of a curve; more cannot be seen


@dataclass(frozen=True)
class Panel:
    title: str
    curve: np.ndarray  # inf where there is nothing to draw
    optimum: int
    error: float  # standard error of the optimum


def draw(panels: Sequence[Panel], note: str) -> str:
    """`note` says what the curves are means of."""
    width = PANEL * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" '
        f'width="{width}" height="{HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>',
    ]
    for index, panel in enumerate(panels):
        parts += [f'<g transform="translate({PANEL * index} 0)">', *_panel(panel, note), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, note: str) -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, PANEL - RIGHT
    last = len(panel.curve) - 1

    def x(t: float) -> float:
        return LEFT + (right - LEFT) * t / last

    y, ticks = _vertical(panel.curve)
    se = f" ± {panel.error:.1f}" if panel.error else ""
    yield f'<text x="{LEFT}" y="20" font-weight="bold">{escape(panel.title)}</text>'
    yield (
        f'<text x="{LEFT}" y="38" fill="#b3261e">t = {panel.optimum}{se}'
        f'<tspan fill="#666"> ({escape(note)})</tspan></text>'
    )
    for value, label in ticks:
        yield f'<path d="M{LEFT} {y(value):.1f}H{right}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{label}</text>'
    for t in np.linspace(0, last, 6).round(-2 if last > 500 else 0):
        yield f'<text x="{x(t):.1f}" y="{bottom + 15}" text-anchor="middle">{t:.0f}</text>'
    yield f'<text x="{right}" y="{bottom + 29}" text-anchor="end" fill="#666">timestep</text>'
    shown = np.unique(np.linspace(0, last, POINTS).round().astype(int))
    shown = np.union1d(shown, [panel.optimum])
    points = " ".join(f"{x(t):.1f},{y(panel.curve[t]):.1f}" for t in shown if _finite(panel, t))
    band = max(x(panel.error) - x(-panel.error), 1)
    yield (
        f'<rect x="{x(panel.optimum) - band / 2:.1f}" y="{TOP}" width="{band:.1f}" '
        f'height="{bottom - TOP}" fill="#b3261e" opacity="0.25"/>'
    )
    yield f'<polyline points="{points}" fill="none" stroke="#1f5fa8" stroke-width="1.8"/>'
    dot = y(panel.curve[panel.optimum])
    yield f'<circle cx="{x(panel.optimum):.1f}" cy="{dot:.1f}" r="4" fill="#b3261e"/>'


def _finite(panel: Panel, t: int) -> bool:
    return bool(np.isfinite(panel.curve[t]))


def _vertical(curve: np.ndarray) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    """The axis of values: where each lies, and its ticks."""
    values = curve[np.isfinite(curve)]
    low, high = float(values.min()), float(values.max())
    logarithmic = high > LOG_SPAN * max(low, 0)
    if logarithmic:
        # A zero of the criterion has no logarithm: the axis ends where one curve point in 100 lies.
        floor = np.quantile(values[values > 0], 0.01) if (values > 0).any() else 1.0
        low, high = np.floor(np.log10(floor)), np.ceil(np.log10(high or 1.0))
        step = max(1, round((high - low) / 6))
        ticks = [(10.0**k, f"1e{k:.0f}") for k in np.arange(low, high + 1, step)]
    else:
        step = 10 ** np.floor(np.log10((high - low) / 3 or 1.0))
        step = next(step * k for k in (1, 2, 5, 10) if (high - low) / (step * k) <= 6)
        ticks = [(k * step, f"{k * step:.3g}") for k in _multiples(low, high, step)]

    def y(value: float) -> float:
        place = np.log10(max(value, 10.0**low)) if logarithmic else value
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (place - low) / ((high - low) or 1.0)

    return y, ticks


def _multiples(low: float, high: float, step: float) -> np.ndarray:
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1)
