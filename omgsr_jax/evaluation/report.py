"""The HTML report of an evaluation; `report_template.html` holds its looks."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from .metrics import BY_KEY, Metric
from .pages import data_uri, embedded, filled
from .pairs import PairedFiles, read_opaque
from .plots import distribution
from .results import Evaluation

CROP = 192  # px of the reference
SHOWN = 3  # images in each group of the gallery
SCRATCH_KEYS = ("psnr_rgb", "ssim_rgb")  # no gallery of their own: they rank as luma does


def render(evaluation: Evaluation, summary: Mapping[str, Any]) -> str:
    """The whole page."""
    metrics = [metric for metric in evaluation.metrics if metric.per_image]
    groups = {
        metric.key: picks
        for metric in metrics
        if metric.key not in SCRATCH_KEYS and (picks := _extremes(evaluation, metric))
    }
    wanted = sorted(
        {name for picks in groups.values() for names in picks.values() for name in names}
    )
    data = {
        "metrics": [_describe(metric) for metric in evaluation.metrics],
        "systems": [system.name for system in evaluation.systems],
        "images": _rows(evaluation, metrics),
        "summary": summary,
        "groups": groups,
        "crops": {name: crops for name in sorted(wanted) if (crops := _crops(evaluation, name))},
    }
    plots = "".join(
        f"<figure><figcaption>{escape(m.label)} <small>{_direction(m)}{_comma(m.about)}</small>"
        f"</figcaption>{distribution(m, evaluation.systems)}</figure>"
        for m in metrics
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in summary["caveats"])
    not_run = "".join(
        f"<li><b>{escape(BY_KEY[key].label)}</b> {escape(why)}</li>"
        for key, why in summary["not_run"].items()
    )
    blanks = {
        "TITLE": escape(_title(evaluation)),
        "SUBTITLE": escape(_subtitle(evaluation)),
        "NOTES": f"<section><h2>Mind</h2><ul>{notes}</ul></section>" if notes else "",
        "NOT_RUN": f"<section><h2>Not run</h2><ul>{not_run}</ul></section>" if not_run else "",
        "PLOTS": plots,
        "DATA": embedded(data),
    }
    return filled("report_template.html", blanks)


def _title(evaluation: Evaluation) -> str:
    names = " vs ".join(system.name for system in evaluation.systems)
    return f"{names} on {evaluation.benchmark}" if evaluation.benchmark else names


def _subtitle(evaluation: Evaluation) -> str:
    counts = sorted({len(system.images) for system in evaluation.systems})
    parts = [f"{'/'.join(map(str, counts))} images"]
    parts.append(
        "protocol of the papers" if evaluation.protocol == "papers" else "no fixed protocol"
    )
    if evaluation.settings.crop_border:
        parts.append(f"border of {evaluation.settings.crop_border} px left out")
    parts.append(f"grid looked for at {evaluation.settings.grid_period} px")
    return " · ".join(parts)


def _describe(metric: Metric) -> dict[str, Any]:
    return {
        "key": metric.key,
        "label": metric.label,
        "better": metric.better,
        "decimals": metric.decimals,
        "about": metric.about,
        "perImage": metric.per_image,
    }


def _direction(metric: Metric) -> str:
    return "higher is better" if metric.better == "higher" else "lower is better"


def _comma(text: str) -> str:
    return f", {escape(text)}" if text else ""


def _rows(evaluation: Evaluation, metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """For each image, each system's scores in the metrics' order; null where there is none."""
    rows: dict[str, list[list[float | None] | None]] = {}
    for index, system in enumerate(evaluation.systems):
        for row, name in enumerate(system.images):
            scores = [_rounded(system.scores[m.key][row], m) for m in metrics]
            rows.setdefault(name, [None] * len(evaluation.systems))[index] = scores
    return [{"name": name, "scores": scores} for name, scores in sorted(rows.items())]


def _rounded(value: float, metric: Metric) -> float | None:
    return round(float(value), metric.decimals + 2) if np.isfinite(value) else None


def _extremes(evaluation: Evaluation, metric: Metric) -> dict[str, list[str]]:
    """Names of the worst and best images by the systems' mean, and of those that part them most."""
    common = set.intersection(*(set(system.images) for system in evaluation.systems))
    names = sorted(common)
    table = np.array(
        [
            [dict(zip(s.images, s.scores[metric.key], strict=True))[name] for name in names]
            for s in evaluation.systems
        ]
    ).reshape(len(evaluation.systems), len(names))
    defined = np.flatnonzero(np.isfinite(table).all(axis=0))
    table = table[:, defined]
    sign = 1 if metric.better == "higher" else -1
    by_mean = defined[np.argsort(sign * table.mean(axis=0), kind="stable")]
    groups = {"worst": by_mean[:SHOWN], "best": by_mean[::-1][:SHOWN]}
    if len(evaluation.systems) > 1:
        groups["differ"] = defined[np.argsort(-np.ptp(table, axis=0), kind="stable")][:SHOWN]
    return {group: [names[i] for i in rows] for group, rows in groups.items() if len(rows)}


def _crops(evaluation: Evaluation, name: str) -> dict[str, Any] | None:
    """The same window of every version of one image, as data URIs; None if there are no files."""
    found = [next((f for f in s.files if f.name == name), None) for s in evaluation.systems]
    pairs: list[PairedFiles] = [pair for pair in found if pair is not None]
    if len(pairs) < len(found):
        return None
    hr = read_opaque(pairs[0].hr)
    top, left, height, width = _detailed_window(hr)
    box = (left, top, left + width, top + height)
    lr = None
    if pairs[0].lr is not None:
        small = Image.fromarray(read_opaque(pairs[0].lr))
        scale = small.height / hr.shape[0]
        # A box of fractional pixels, enlarged by repetition: what the model was given.
        part = tuple(edge * scale for edge in box)
        lr = data_uri(small.resize((width, height), Image.Resampling.NEAREST, box=part))
    return {
        "lr": lr,
        "sr": [data_uri(Image.fromarray(read_opaque(pair.sr)).crop(box)) for pair in pairs],
        "hr": data_uri(Image.fromarray(hr).crop(box)),
        "window": f"{width}x{height} at x {left}, y {top}",
    }


def _detailed_window(image: np.ndarray) -> tuple[int, int, int, int]:
    """Where the reference has most detail: top, left, height, width."""
    height, width = (min(CROP, size) for size in image.shape[:2])
    grey = image.mean(axis=-1)
    detail = np.zeros_like(grey)
    detail[:-1] += np.abs(np.diff(grey, axis=0))
    detail[:, :-1] += np.abs(np.diff(grey, axis=1))
    sums = np.pad(detail, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    total = (
        sums[height:, width:]
        - sums[:-height, width:]
        - sums[height:, :-width]
        + sums[:-height, :-width]
    )
    top, left = np.unravel_index(np.argmax(total[::8, ::8]), total[::8, ::8].shape)
    return int(top) * 8, int(left) * 8, height, width
