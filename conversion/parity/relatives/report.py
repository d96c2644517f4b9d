"""The relatives of OMGSR against their own published code, from file to file.

A small random checkpoint in the real file formats is converted, and both sides restore the same
pictures: one that a tile holds, one that is too small, one that needs several tiles.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from PIL import Image

from omgsr_jax.inference.loading import load
from omgsr_jax.inference.programs import Item
from omgsr_jax.inference.upscaler import Upscaler
from omgsr_jax.quirks import Quirks

from ...convert import convert
from .. import random_checkpoints
from ..arrays import relative_error
from ..processes import in_own_process
from .checkpoints import WRITERS
from .theirs import RUNNERS, Given, Published, prompt_of

RECIPES = tuple(RUNNERS)
TOLERANCE = 1e-5  # of the relative error of a whole image
LEVELS = 1

_ONE_TILE, _SMALL, _SEVERAL = "one tile", "small", "several tiles"
_SIZES = {
    "hypir-sd2": {_ONE_TILE: (32, 32), _SMALL: (23, 18), _SEVERAL: (33, 41)},
    "osediff": {_ONE_TILE: (32, 32), _SMALL: (23, 18), _SEVERAL: (49, 51)},
    "pisa-sr": {_ONE_TILE: (32, 32), _SMALL: (23, 18), _SEVERAL: (49, 51)},
}
_STRENGTHS = (0.7, 1.3)
_QUIRKS = ", quirks"
_CONTRAST = 0.15  # so little that AdaIN stretches no rounding


@dataclass(frozen=True)
class Row:
    """How far apart both are on a picture. None where sizes differ."""

    case: str
    before: float  # rounding: the relative error
    before_most: float  # of any number in [0, 1]
    levels: int | None
    differing: float | None  # the share of numbers that are not the same level

    @classmethod
    def of(cls, case: str, before: np.ndarray, after: np.ndarray, theirs: Published) -> "Row":
        most = float(np.abs(before.astype(np.float64) - theirs.before).max())
        found = cls(case, relative_error(before, theirs.before), most, None, None)
        if after.shape != theirs.after.shape:
            return found
        levels = np.abs(after.astype(int) - theirs.after)
        return replace(found, levels=int(levels.max()), differing=float((levels > 0).mean()))

    @property
    def agrees(self) -> bool:
        return self.before <= TOLERANCE and self.levels is not None and self.levels <= LEVELS


def report(
    recipe: str, checkout: Path, *, seed: int = 0, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Rows for every picture, which `say` is told one by one; HYPIR's also with its VAE whole."""
    rows = []
    say(heading())
    highest = jax.default_matmul_precision("highest")  # so without Winograd's convolutions
    with _prepared(recipe, checkout, seed) as (given, model), highest:
        for row in _rows(recipe, given, model):
            rows.append(row)
            say(line(row))
    agree = [row for row in rows if _must_agree(recipe, row.case)]
    return {
        "recipe": recipe,
        "tolerance": {"before rounding": TOLERANCE, "levels": LEVELS},
        "stand-ins": list(RUNNERS[recipe][1]),
        "rows": [vars(row) for row in rows],
        "agrees": all(row.agrees for row in agree),
    }


def _must_agree(recipe: str, case: str) -> bool:
    """With quirks all pictures, but for HYPIR's that it puts through its VAE in tiles."""
    whole = recipe != "hypir-sd2" or "VAE whole" in case or case.startswith(_ONE_TILE)
    return case.endswith(_QUIRKS) and whole


def _rows(recipe: str, given: Given, model: Path) -> Iterator[Row]:
    run = RUNNERS[recipe][0]
    settings: dict[str, Given] = {"": given}
    if recipe == "hypir-sd2":
        settings[", VAE whole"] = replace(given, whole=True)
    if recipe == "pisa-sr":
        settings[f", strengths {_STRENGTHS}"] = replace(given, strengths=_STRENGTHS)
    for label, setting in settings.items():
        theirs = in_own_process(run, setting)
        plain = load(model, precision="fp32", strengths=setting.strengths)
        for quirks, upscaler in ((_QUIRKS, plain.with_quirks(cast(Quirks, recipe))), ("", plain)):
            for name, result in theirs.items():
                pixels = np.asarray(Image.open(given.pictures / name))
                after = np.asarray(upscaler.upscale(pixels, scale=given.scale))
                before = _before_rounding(upscaler, pixels, result)
                yield Row.of(f"{name.removesuffix('.png')}{label}{quirks}", before, after, result)


def _before_rounding(upscaler: Upscaler, pixels: np.ndarray, theirs: Published) -> np.ndarray:
    """In [0, 1]: of what their networks saw, without colours, or from picture to picture."""
    if theirs.seen is None:
        given, scale, color = pixels, Given.scale, None
    else:
        given, scale, color = theirs.seen, 1, "none"
    (how,) = upscaler.steps(given.shape[:2], scale=scale, color=color)
    how = replace(
        how,
        encoding=replace(how.encoding, given=str(given.dtype)),
        decoding=replace(how.decoding, stored="float32", truncates=False),
    )
    items = [Item(given, how.canvas.extent)]
    return upscaler.programs.run(how, items, strengths=upscaler.strengths)[0][0]


@contextmanager
def _prepared(recipe: str, checkout: Path, seed: int) -> Iterator[tuple[Given, Path]]:
    """Pictures, a base, adapters in their file, and the converted model."""
    with tempfile.TemporaryDirectory(prefix="omgsr-parity-") as scratch:
        root = Path(scratch)
        writer, file = WRITERS[recipe]
        base, weights, pictures = root / "base", root / file, root / "pictures"
        preset = random_checkpoints.PRESETS["sd21-tiny"]
        in_own_process(random_checkpoints.write_base, base, preset, seed=seed)
        in_own_process(writer, weights, base, seed=seed + 1)
        pictures.mkdir()
        for name, size in _SIZES[recipe].items():
            _picture(size, seed).save(pictures / f"{name}.png")
        in_own_process(
            convert,
            str(base),
            root / "converted",
            recipe=recipe,
            adapter=str(weights),
            prompt=prompt_of(recipe),
            process_size=Given.process_size,
            allow_pickle=True,
        )
        yield Given(checkout.resolve(), base, weights, pictures), root / "converted"


def _picture(size: tuple[int, int], seed: int) -> Image.Image:
    """Smooth noise at three scales."""
    rng = np.random.default_rng(seed)
    height, width = size
    total = np.full((height, width, 3), 127.5)
    for cells in (3, 9, 27):
        coarse = rng.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        total += (np.asarray(image, np.float64) - 127.5) * _CONTRAST
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))


def heading() -> str:
    """Above rows, for a terminal."""
    return f"{'picture':<40}{'before rounding':>17}{'at most':>10}{'levels':>8}{'differ':>9}"


def line(row: Row) -> str:
    after = f"{'other size':>17}"
    if row.levels is not None:
        after = f"{row.levels:>8}{row.differing:>9.2%}"
    return f"{row.case:<40}{row.before:>17.1e}{row.before_most:>10.1e}{after}"


def write(found: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"parity-{found['recipe']}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    return path
