"""A sheet of crops: low quality enlarged bicubically, restored, and the original.

    omgsr degrade photos -o pairs --seed 0
    python scripts/picture_sheet.py --lr pairs/lr --hr pairs/hr --model nano --out sheet.jpg

Images are taken evenly from the folder, and of each the square with most detail in its original:
nothing is chosen by what a model makes of it.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import omgsr_jax
from omgsr_jax import files
from omgsr_jax.errors import InputError
from omgsr_jax.inference import images, labels
from omgsr_jax.inference.options import Options
from omgsr_jax.inference.pictures import Picture, from_array
from omgsr_jax.inference.sizes import Enlargement


def main() -> int:
    args = _parser().parse_args()
    try:
        sheet = draw(args.lr, args.hr, args.model, args.count, args.crop)
    except (OSError, InputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    files.write_image(args.out, sheet, quality=92)
    print(args.out)
    return 0


def draw(lr: Path, hr: Path, model: str, count: int, crop: int) -> np.ndarray:
    """Two rows of crops side by side: h w 3, uint8."""
    files = sorted(path for path in hr.iterdir() if (lr / path.name).is_file())
    if len(files) < count:
        raise InputError(f"{lr} and {hr} share {len(files)} names, the sheet has {count} crops")
    upscaler = omgsr_jax.load(model)
    rows = []
    for path in files[:: len(files) // count][:count]:
        source, original = images.read(lr / path.name), images.read(path)
        (restored,) = upscaler.restore([source], Options(Enlargement(size=original.size)))
        where = most_detailed(original.pixels(8), crop)
        shown = {
            "bicubic": labels.bicubic(source, original.size),
            model: restored.picture,
            "original": original,
        }
        row = labels.row({name: _cut(picture, where) for name, picture in shown.items()})
        rows.append(row.pixels(8))
    gap = np.full((rows[0].shape[0], 16, 3), 255, np.uint8)
    pairs = [np.concatenate([a, gap, b], 1) for a, b in zip(rows[::2], rows[1::2], strict=True)]
    return np.concatenate(pairs)


def most_detailed(image: np.ndarray, side: int) -> tuple[slice, slice]:
    """The square, of those in a grid of half its side, whose pixels differ most from their
    neighbours."""
    grey = image.astype(float).mean(-1)
    detail = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    corners = [
        (top, left)
        for top in range(0, image.shape[0] - side + 1, side // 2)
        for left in range(0, image.shape[1] - side + 1, side // 2)
    ]
    top, left = max(corners, key=lambda c: detail[c[0] : c[0] + side, c[1] : c[1] + side].sum())
    return slice(top, top + side), slice(left, left + side)


def _cut(picture: Picture, where: tuple[slice, slice]) -> Picture:
    return from_array(picture.pixels(8)[where])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lr", type=Path, required=True, help="low-quality images")
    parser.add_argument("--hr", type=Path, required=True, help="originals of the same names")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--count", type=int, default=12, help="crops, an even number")
    parser.add_argument("--crop", type=int, default=192, help="their side in pixels")
    parser.add_argument("--out", type=Path, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
