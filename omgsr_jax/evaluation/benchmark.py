"""Score outputs against references: the loop over images."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from . import external, fid
from .errors import PairError, UnavailableError
from .metrics import BY_KEY, NO_REFERENCE, Settings, choose, prepare
from .pairs import Pair, PairedFiles, find_pairs, in_batches
from .papers import require_benchmark
from .results import Evaluation, System
from .writing import write

Progress = Callable[[str, int, int], None]  # system, images done, images in all

BATCH_SIZE = 8


def run(
    sr_dirs: str | Path | Sequence[str | Path] | Mapping[str, str | Path],
    hr_dir: str | Path,
    lr_dir: str | Path | None = None,
    *,
    out: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    protocol: str | None = None,
    benchmark: str | None = None,
    settings: Settings | None = None,
    subset: bool = False,
    cross_check: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Score folders of outputs against a folder of references, images paired by name.

    Args:
        sr_dirs: one folder, several, or a mapping from the name to show to the folder.
        hr_dir: references of the same names and sizes.
        lr_dir: inputs of the same names; only shown in the report.
        out: where to write images.csv, summary.json, summary.md and report.html.
        metrics: keys of the table in `metrics.py`; all by default, with `protocol` the papers'
            nine and the grid detector.
        protocol: "papers" fixes what the compared papers' script fixes, and refuses what differs.
        benchmark: RealSR, DRealSR or DIV2K-Val, to show the papers' rows beside.
        settings: what else the numbers depend on, and where weights are.
        subset: allow references that have no output.
        cross_check: score by pyiqa too what it shares with us, and report the largest difference.
        progress: called with (system, images done, images in all).
    """
    settings = settings or Settings()
    keys = choose(metrics, protocol)
    if benchmark is not None:
        require_benchmark(benchmark)
    files = {
        name: find_pairs(folder, hr_dir, lr_dir, subset=subset)
        for name, folder in name_systems(sr_dirs).items()
    }
    _require_different(files, keys)
    if protocol == "papers":
        _check_protocol(files, settings)
    ready, not_run = prepare(keys, settings, list(files.values()))

    systems: list[System] = []
    theirs, not_checked = _prepare_checks(ready) if cross_check else ({}, {})
    checks: dict[str, float] = dict.fromkeys(theirs, 0.0)
    reference = None
    for name, pairs in files.items():
        if systems and systems[-1].images != sorted(pair.name for pair in pairs):
            reference = None  # other images, other statistics
        report = progress and partial(_report, progress, name, len(pairs))
        system, reference = score(name, (pair.read() for pair in pairs), ready, reference, report)
        systems.append(replace(system, files=pairs))
        if theirs:
            largest = _cross_check(systems[-1], theirs)
            checks = {key: max(largest[key], checks[key]) for key in checks}
    evaluation = Evaluation(
        systems, settings, not_run, protocol, benchmark, {**checks, **not_checked}
    )
    if out is not None:
        write(evaluation, Path(out))
    return evaluation


def score(
    name: str,
    pairs: Iterable[Pair],
    ready: Mapping[str, Any],
    reference: fid.Gaussian | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[System, fid.Gaussian | None]:
    """Score a stream of pairs, from folders or straight from a model; memory does not grow.

    `ready` is what the table's `prepare` gave for each key. The references' features are returned,
    to be passed on when the next system is scored against the same references.
    """
    features = ready.get("fid")
    scores: dict[str, list[np.ndarray]] = {key: [] for key in ready if key != "fid"}
    images: list[str] = []
    outputs = fid.Gaussian() if features else None
    references = fid.Gaussian() if features and reference is None else None
    for batch in in_batches(pairs, BATCH_SIZE):
        sr, hr = np.stack([pair.sr for pair in batch]), np.stack([pair.hr for pair in batch])
        for key, values in scores.items():
            values.append(np.asarray(ready[key](sr, hr), np.float64))
        if features and outputs is not None:
            outputs.add(features(sr))
        if features and references is not None:
            references.add(features(hr))
        images += [pair.name for pair in batch]
        if progress:
            progress(len(images))
    if not images:
        raise PairError(f"{name} gave no images to score.")
    reference = reference or references
    order = np.argsort(images)
    per_image = {key: np.concatenate(values)[order] for key, values in scores.items()}
    sets = {"fid": fid.frechet_distance(outputs, reference)} if outputs and reference else {}
    return System(name, [images[i] for i in order], per_image, sets), reference


def _report(progress: Progress, name: str, total: int, done: int) -> None:
    progress(name, done, total)


def name_systems(
    sr_dirs: str | Path | Sequence[str | Path] | Mapping[str, str | Path],
) -> dict[str, Path]:
    """Each folder with the name that it is shown under."""
    if not isinstance(sr_dirs, str | Path) and not sr_dirs:
        raise InputError("give at least one folder of outputs")
    if isinstance(sr_dirs, Mapping):
        return {name: Path(folder) for name, folder in sr_dirs.items()}
    folders = [sr_dirs] if isinstance(sr_dirs, str | Path) else list(sr_dirs)
    paths = [Path(folder) for folder in folders]
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):  # a/out and b/out: tell them by their whole paths
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"a folder is given twice: {', '.join(names)}")
    return dict(zip(names, paths, strict=True))


def _require_different(files: Mapping[str, list[PairedFiles]], keys: Sequence[str]) -> None:
    """Nothing is compared with itself, whatever links lead to it."""
    outputs = {name: {_identity(pair.sr) for pair in pairs} for name, pairs in files.items()}
    for a, b in itertools.combinations(files, 2):
        if outputs[a] == outputs[b]:
            raise PairError(f"{a} and {b} are the same files: there is nothing to compare")
    with_reference = [key for key in keys if key not in NO_REFERENCE]
    for name, pairs in files.items():
        if with_reference and outputs[name] == {_identity(pair.hr) for pair in pairs}:
            raise PairError(
                f"the outputs {name} are the references themselves: leave them out, or choose "
                f"metrics that need no reference ({', '.join(NO_REFERENCE)})"
            )


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _check_protocol(files: Mapping[str, list[PairedFiles]], settings: Settings) -> None:
    """The papers' script: pyiqa on 512-px PNGs, luma PSNR and SSIM, no border left out."""
    problems = []
    if settings.crop_border:
        problems.append(f"it leaves out no border, crop_border is {settings.crop_border}")
    for name, pairs in files.items():
        size = [pair.name for pair in pairs if pair.size != (512, 512)]
        kind = [pair.sr.name for pair in pairs if pair.sr.suffix.lower() != ".png"]
        if size:
            problems.append(f"it scores 512x512, {len(size)} of {name} differ (first: {size[0]})")
        if kind:
            problems.append(f"it scores PNG files, {len(kind)} of {name} differ ({kind[0]})")
    if problems:
        raise PairError(
            "these outputs are not under the papers' protocol:\n  "
            + "\n  ".join(problems)
            + "\nLeave the protocol out to score them; the numbers then do not compare."
        )


def _prepare_checks(ready: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """pyiqa's versions of the metrics that are ours, made ready; and why some cannot be."""
    theirs, not_checked = {}, {}
    for key, score in ready.items():
        same = BY_KEY[key].pyiqa
        if same is None or isinstance(score, external.ByPyiqa):
            continue
        try:
            theirs[key] = external.ByPyiqa(same[0], **same[1])
        except UnavailableError as reason:
            not_checked[key] = str(reason)
    return theirs, not_checked


def _cross_check(system: System, theirs: Mapping[str, Any]) -> dict[str, float]:
    """The largest difference between our scores and pyiqa's on any image, by metric."""
    other, _ = score(system.name, (pair.read() for pair in system.files), theirs)
    return {key: float(np.nanmax(np.abs(other.scores[key] - system.scores[key]))) for key in theirs}
