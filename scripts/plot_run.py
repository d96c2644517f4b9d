"""Draws the scalars of runs as one SVG picture.

    python scripts/plot_run.py runs/tiny --out docs/images/training-tiny.svg \
        --scalars validation/psnr mse ldr features gan discriminator

Of several runs, those in the same folder are drawn in its colour, and the folders are named:

    python scripts/plot_run.py runs/mid/0 runs/mid/1 runs/last/0 runs/last/1 --out compared.svg
"""

import argparse
import sys
from pathlib import Path

from etils import epath

from omgsr_jax import files
from omgsr_jax.buckets import is_remote
from omgsr_jax.curves import COLOURS, Curve, draw
from omgsr_jax.training import log


def main() -> int:
    args = _parser().parse_args()
    panels: dict[str, list[tuple[str, Curve]]] = {name: [] for name in args.scalars}
    for workdir in args.workdirs:
        found = log.read(workdir)
        for name, curves in panels.items():
            curve: Curve = [
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


def _group(workdir: epath.Path) -> str:
    return (workdir if is_remote(workdir) else workdir.resolve()).parent.name


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
