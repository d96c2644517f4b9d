"""Draws the scalars of runs as one SVG picture.

    python scripts/plot_run.py runs/tiny --out docs/images/training-tiny.svg \
        --scalars validation/psnr mse ldr features gan discriminator

Of several runs, those in the same folder are drawn in its colour, and the folders are named:

    python scripts/plot_run.py runs/mid/0 runs/mid/1 runs/last/0 runs/last/1 --out compared.svg
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from etils import epath

from omgsr_jax import files
from omgsr_jax.buckets import is_remote
from omgsr_jax.training import log

PANEL, HEIGHT, COLUMNS = 300, 190, 3  # px
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 30, 26
COLOURS = ("#1f5fa8", "#c8501e", "#2f7f4f", "#7a4fa0")

Curve = list[tuple[int, float]]
Curves = list[tuple[str, Curve]]  # the group of each


def main() -> int:
    args = _parser().parse_args()
    panels: dict[str, Curves] = {name: [] for name in args.scalars}
    for workdir in args.workdirs:
        found = log.read(workdir)
        for name, curves in panels.items():
            curve = [
                (step, values[name]) for step, values in sorted(found.items()) if name in values
            ]
            if len(curve) < 2:
                names = sorted({name for values in found.values() for name in values})
                raise SystemExit(f"{workdir} has no curve for {name}; it has {', '.join(names)}")
            curves.append((_group(workdir), curve))
    groups = list(dict.fromkeys(map(_group, args.workdirs)))
    if len(groups) > len(COLOURS):
        raise SystemExit(
            f"the runs lie in {len(groups)} folders, and there are {len(COLOURS)} colours"
        )
    files.write_text(args.out, draw(panels, dict(zip(groups, COLOURS, strict=False))))
    return 0


def draw(panels: dict[str, Curves], colours: dict[str, str]) -> str:
    rows = -(-len(panels) // COLUMNS)
    width, height = PANEL * min(COLUMNS, len(panels)), HEIGHT * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i, (name, curves) in enumerate(panels.items()):
        x, y = PANEL * (i % COLUMNS), HEIGHT * (i // COLUMNS)
        parts += [f'<g transform="translate({x} {y})">', *_panel(name, curves, colours), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _group(workdir: epath.Path) -> str:
    return (workdir if is_remote(workdir) else workdir.resolve()).parent.name


def _panel(name: str, curves: Curves, colours: dict[str, str]) -> list[str]:
    steps, values = zip(*(point for _, curve in curves for point in curve), strict=True)
    first, last, low, high = min(steps), max(steps), min(values), max(values)
    right, bottom = PANEL - RIGHT, HEIGHT - BOTTOM

    def point(step: float, value: float) -> str:
        x = LEFT + (right - LEFT) * (step - first) / ((last - first) or 1)
        return f"{x:.1f},{bottom - (bottom - TOP) * (value - low) / ((high - low) or 1):.1f}"

    lines = [
        f'<polyline points="{" ".join(point(*pair) for pair in curve)}" fill="none" '
        f'stroke="{colours[group]}" stroke-width="1.6"/>'
        for group, curve in curves
    ]
    text = _texts(
        (LEFT, 18, "start", f'<tspan font-weight="bold">{name}</tspan>{_legend(colours)}'),
        (LEFT - 4, TOP + 4, "end", f"{high:.3g}"),
        (LEFT - 4, bottom + 4, "end", f"{low:.3g}"),
        (LEFT, bottom + 15, "middle", str(first)),
        (right, bottom + 15, "end", f"step {last}"),
    )
    axes = f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#bbb"/>'
    return [axes, *lines, *text]


def _legend(colours: dict[str, str]) -> str:
    if len(colours) == 1:
        return ""
    return "".join(f'<tspan dx="8" fill="{c}">{group}</tspan>' for group, c in colours.items())


def _texts(*items: tuple[float, float, str, str]) -> Sequence[str]:
    return [f'<text x="{x}" y="{y}" text-anchor="{a}">{text}</text>' for x, y, a, text in items]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdirs", type=epath.Path, nargs="+")
    parser.add_argument("--scalars", nargs="+", default=["generator", "time/step"])
    parser.add_argument("--out", type=Path, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
