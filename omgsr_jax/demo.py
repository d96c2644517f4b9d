"""`omgsr demo`: the embedded model on a photograph that comes with it, without a network."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import assets, files
from .digests import Notify
from .evaluation import Settings
from .evaluation.metrics import BY_KEY
from .evaluation.niqe import WEIGHTS_ENV
from .inference import images, labels
from .inference.loading import load
from .inference.options import Options
from .inference.pictures import Picture
from .inference.sizes import Enlargement


@dataclass(frozen=True)
class Demonstration:
    files: Mapping[str, Path]  # what a file shows -> where it is
    seconds: float  # for restoring, with compiling
    compiling: float
    scores: Mapping[str, tuple[float, float]]  # of bicubic enlargement and of nano, by metric


def run(
    out: str | Path, sample: str, *, notify: Notify, begin: Callable[[str], None]
) -> Demonstration:
    """Restores the sample and writes it, its input and a comparison to the folder `out`.

    Args:
        sample: one of `assets.SAMPLES`.
        notify: told of programs being compiled; see `Upscaler`.
        begin: told of each step when it begins.
    """
    files.require_folder_name(out)
    pair = assets.sample(sample)
    outputs = files.Outputs([pair.lr, pair.hr])
    source, original = images.read(pair.lr), images.read(pair.hr)
    compiling = 0.0

    def count(program: str, seconds: float | None) -> None:
        nonlocal compiling
        compiling += seconds or 0
        notify(program, seconds)

    model = load(assets.NANO, notify=count)
    begin(f"restoring {sample}")
    started = time.perf_counter()
    (upscaled,) = model.restore([source], Options(Enlargement(size=original.size)))
    seconds = time.perf_counter() - started
    restored, enlarged = upscaled.picture, labels.bicubic(source, original.size)

    comparison = labels.row(
        {"low quality, bicubic": enlarged, "nano, one step": restored, "original": original}
    )
    written = {}
    for what, name, picture in (
        ("the low-quality photograph", "input", source),
        ("restored by nano", "restored", restored),
        ("enlarged bicubically | restored | original", "comparison", comparison),
    ):
        written[what] = outputs.claim(Path(out) / f"{sample}-{name}.png")
        images.write(written[what], picture)
    begin("comparing with the original")
    return Demonstration(written, seconds, compiling, _scores([enlarged, restored], original))


def _scores(outputs: list[Picture], original: Picture) -> dict[str, tuple[float, float]]:
    """NIQE needs parameters that are not ours to pass on: it is left out where nobody set them."""
    keys = ["psnr", "ssim", "coherence", *(["niqe"] if WEIGHTS_ENV in os.environ else [])]
    sr = np.stack([output.pixels(8) for output in outputs])  # b h w 3
    hr = np.stack([original.pixels(8)] * len(outputs))
    scores = {}
    for key in keys:
        bicubic, nano = BY_KEY[key].prepare(Settings())(sr, hr)
        scores[key] = (float(bicubic), float(nano))
    return scores
