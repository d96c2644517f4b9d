"""One photograph through several models, on a page that shows two of them at a time."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from .. import __version__
from ..digests import Notify
from ..errors import InputError
from ..inference import labels
from ..inference.loading import load
from ..inference.options import Options
from ..inference.pictures import Picture
from ..inference.progress import OnProgress
from .errors import UnavailableError
from .metrics import BY_KEY, NO_REFERENCE, Settings
from .pages import LONGEST_SIDE, data_uri, embedded, filled

BICUBIC = "bicubic"


@dataclass(frozen=True)
class Version:
    """What one model made of the photograph."""

    name: str
    about: str
    pixels: np.ndarray  # h w 3, uint8
    seconds: float | None = None
    compiling: float | None = None


@dataclass(frozen=True)
class Scores:
    values: Mapping[str, Sequence[float]]  # by metric, in the order of the versions
    not_run: Mapping[str, str]  # by metric: why


def restored(
    photo: Picture,
    models: Sequence[str],
    options: Options,
    *,
    begin: Callable[[str], None],
    notify: Notify,
    on_progress: OnProgress | None = None,
    **how: Any,
) -> Iterator[Version]:
    """Bicubic enlargement, then each model's result; one model is in memory at a time.

    Args:
        begin: told what is done next.
        how: `load`'s options.
    """
    target = options.enlargement.of(photo.size)
    if max(target) > LONGEST_SIDE:
        raise InputError(
            f"the results would be {target[1]}x{target[0]}; a page shows at most {LONGEST_SIDE} "
            "pixels a side: give a smaller --scale"
        )
    yield Version(BICUBIC, "enlarged by PIL", labels.bicubic(photo, target).on_screen())
    for name in models:
        begin(f"loading {name}")
        model = load(name, notify=notify, **how)
        begin(f"restoring with {name}")
        (result,) = model.restore([photo], options, on_progress)
        seconds = result.work.seconds
        about = repr(model).removeprefix("<Upscaler ").removesuffix(">")
        compiling = seconds.get("compile", 0)
        yield Version(name, about, result.picture.on_screen(), seconds["compute"], compiling)


def scored(versions: Sequence[Version], settings: Settings) -> Scores:
    """By the metrics that need no reference."""
    pixels = np.stack([version.pixels for version in versions])  # b h w 3
    values: dict[str, Sequence[float]] = {}
    not_run: dict[str, str] = {}
    for metric in map(BY_KEY.__getitem__, NO_REFERENCE):
        if metric.too_small(pixels.shape[1:3], settings):
            short, long = metric.min_size(settings)
            not_run[metric.key] = f"needs images of at least {short}x{long} pixels"
            continue
        try:
            score = metric.prepare(settings)
        except UnavailableError as reason:
            not_run[metric.key] = str(reason)
        else:
            values[metric.key] = [float(value) for value in score(pixels, pixels)]
    return Scores(values, not_run)


def page(source: str | os.PathLike[str], photo: Picture, versions: Sequence[Version],
         scores: Scores) -> str:  # fmt: skip
    """The page as HTML."""
    name, (height, width) = os.path.basename(source), versions[0].pixels.shape[:2]
    data = {
        "versions": [
            {
                "name": version.name,
                "about": version.about,
                "seconds": version.seconds,
                "compiling": version.compiling,
                "scores": [_finite(values[i]) for values in scores.values.values()],
                # Detail is what is looked at: nothing is lost.
                "image": data_uri(Image.fromarray(version.pixels), lossless=True, method=2),
            }
            for i, version in enumerate(versions)
        ],
        "metrics": [
            {"label": m.label, "better": m.better, "decimals": m.decimals, "about": m.about}
            for m in map(BY_KEY.__getitem__, scores.values)
        ],
        "size": [width, height],
    }
    not_run = "".join(
        f"<li><b>{escape(BY_KEY[key].label)}</b> {escape(why)}</li>"
        for key, why in scores.not_run.items()
    )
    blanks = {
        "TITLE": escape(name),
        "SUBTITLE": f"{photo.size[1]} x {photo.size[0]} to {width} x {height} pixels",
        "NOT_RUN": f"<h2>Not run</h2><ul>{not_run}</ul>" if not_run else "",
        "VERSION": escape(__version__),
        "DATA": embedded(data),
    }
    return filled("compare_template.html", blanks)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
