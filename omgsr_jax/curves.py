"""Curves as one SVG picture, a panel for each kind of value."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

PANEL, HEIGHT, COLUMNS = 300, 190, 3  # px
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 30, 26
LINE, NAMES = 14, 3  # px between lines of names below a panel, and how many stand in one
COLOURS = ("#1f5fa8", "#c8501e", "#2f7f4f", "#7a4fa0", "#8a6d00", "#555555")

Curve = Sequence[tuple[float, float]]
Curves = Sequence[tuple[str, Curve]]  # the group of each, which decides its colour


def draw(
    panels: Mapping[str, Curves],
    colours: Mapping[str, str],
    *,
    axis: str = "step",
    columns: int = COLUMNS,
) -> str:
    """`axis` names what runs from left to right."""
    rows, columns = -(-len(panels) // columns), min(columns, len(panels))
    panel = HEIGHT + LINE * _lines_of_names(panels, colours)
    width, height = PANEL * columns, panel * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i, (name, curves) in enumerate(panels.items()):
        x, y = PANEL * (i % columns), panel * (i // columns)
        shown = {group: colours[group] for group, _ in curves}
        legend = shown if len(colours) > 1 else {}
        parts += [f'<g transform="translate({x} {y})">']
        parts += [*_panel(name, curves, shown, axis), *_legend(legend), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _lines_of_names(panels: Mapping[str, Curves], colours: Mapping[str, str]) -> int:
    if len(colours) == 1:
        return 0
    most = max(len({group for group, _ in curves}) for curves in panels.values())
    return -(-most // NAMES)


def _panel(name: str, curves: Curves, colours: Mapping[str, str], axis: str) -> Iterator[str]:
    steps, values = zip(*(point for _, curve in curves for point in curve), strict=True)
    first, last, low, high = min(steps), max(steps), min(values), max(values)
    right, bottom = PANEL - RIGHT, HEIGHT - BOTTOM

    def point(step: float, value: float) -> str:
        x = LEFT + (right - LEFT) * (step - first) / ((last - first) or 1)
        return f"{x:.1f},{bottom - (bottom - TOP) * (value - low) / ((high - low) or 1):.1f}"

    yield f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#bbb"/>'
    for group, curve in curves:
        points = " ".join(point(*pair) for pair in curve)
        yield f'<polyline points="{points}" fill="none" stroke="{colours[group]}" '
        yield 'stroke-width="1.6"/>'
    yield f'<text x="{LEFT}" y="18" font-weight="bold">{escape(name)}</text>'
    yield f'<text x="{LEFT - 4}" y="{TOP + 4}" text-anchor="end">{high:.3g}</text>'
    yield f'<text x="{LEFT - 4}" y="{bottom + 4}" text-anchor="end">{low:.3g}</text>'
    yield f'<text x="{LEFT}" y="{bottom + 15}" text-anchor="middle">{first}</text>'
    yield f'<text x="{right}" y="{bottom + 15}" text-anchor="end">{escape(axis)} {last}</text>'


def _legend(colours: Mapping[str, str]) -> Iterator[str]:
    for i, (group, colour) in enumerate(colours.items()):
        x = LEFT + (PANEL - LEFT) * (i % NAMES) / NAMES
        y = HEIGHT + LINE * (i // NAMES) + LINE / 2
        yield f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}">{escape(group)}</text>'
