"""Draws a run's scalars as one SVG picture.

    python scripts/plot_run.py runs/tiny --out docs/images/training-tiny.svg \
        --scalars validation/psnr mse ldr features gan discriminator
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from omgsr_jax.training import log

PANEL, HEIGHT, COLUMNS = 300, 190, 3  # px
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 30, 26

Curve = list[tuple[int, float]]


def main() -> int:
    args = _parser().parse_args()
    found = log.read(args.workdir)
    curves = {
        name: [(step, values[name]) for step, values in sorted(found.items()) if name in values]
        for name in args.scalars
    }
    absent = [name for name, curve in curves.items() if len(curve) < 2]
    if absent:
        names = sorted({name for values in found.values() for name in values})
        raise SystemExit(f"{args.workdir} has no curve for {absent}; it has {', '.join(names)}")
    args.out.write_text(draw(curves))
    return 0


def draw(curves: dict[str, Curve]) -> str:
    rows = -(-len(curves) // COLUMNS)
    width, height = PANEL * min(COLUMNS, len(curves)), HEIGHT * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i, (name, curve) in enumerate(curves.items()):
        x, y = PANEL * (i % COLUMNS), HEIGHT * (i // COLUMNS)
        parts += [f'<g transform="translate({x} {y})">', *_panel(name, curve), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(name: str, curve: Curve) -> list[str]:
    steps, values = zip(*curve, strict=True)
    low, high = min(values), max(values)
    right, bottom = PANEL - RIGHT, HEIGHT - BOTTOM

    def point(step: float, value: float) -> str:
        x = LEFT + (right - LEFT) * (step - steps[0]) / ((steps[-1] - steps[0]) or 1)
        return f"{x:.1f},{bottom - (bottom - TOP) * (value - low) / ((high - low) or 1):.1f}"

    points = " ".join(point(*pair) for pair in curve)
    text = _texts(
        (LEFT, 18, "start", f'<tspan font-weight="bold">{name}</tspan>'),
        (LEFT - 4, TOP + 4, "end", f"{high:.3g}"),
        (LEFT - 4, bottom + 4, "end", f"{low:.3g}"),
        (LEFT, bottom + 15, "middle", str(steps[0])),
        (right, bottom + 15, "end", f"step {steps[-1]}"),
    )
    return [
        f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#bbb"/>',
        f'<polyline points="{points}" fill="none" stroke="#1f5fa8" stroke-width="1.6"/>',
        *text,
    ]


def _texts(*items: tuple[float, float, str, str]) -> Sequence[str]:
    return [f'<text x="{x}" y="{y}" text-anchor="{a}">{text}</text>' for x, y, a, text in items]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--scalars", nargs="+", default=["generator", "time/step"])
    parser.add_argument("--out", type=Path, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
