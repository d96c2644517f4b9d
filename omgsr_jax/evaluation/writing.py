"""An evaluation on disk: images.csv, summary.json, summary.md and report.html."""

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

from .. import __version__, files
from . import cells, statistics
from .cells import csv_cell
from .metrics import BY_KEY, METRICS, Metric
from .papers import IMAGES, paper_rows
from .report import render
from .results import Evaluation

ARROWS = {"higher": "↑", "lower": "↓"}
WEIGHT_SETTINGS = ("niqe_params", "inception")  # where from, not what was measured


def write(evaluation: Evaluation, folder: Path) -> None:
    """All four files, each complete or absent."""
    summary = summarise(evaluation)
    texts = {
        "images.csv": images_csv(evaluation),
        "summary.json": json.dumps(summary, indent=1, allow_nan=False) + "\n",
        "summary.md": markdown(summary),
        "report.html": render(evaluation, summary),
    }
    for name, text in texts.items():
        files.write_text(folder / name, text)


def images_csv(evaluation: Evaluation) -> str:
    """One line per system and image; an undefined score is an empty field."""
    keys = [metric.key for metric in evaluation.metrics if metric.per_image]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["system", "image", *keys])
    for system in evaluation.systems:
        for row, image in enumerate(system.images):
            scores = (system.scores[key][row] for key in keys)
            names = csv_cell(system.name), csv_cell(image)
            table.writerow([*names, *(_digits(score) for score in scores)])
    return text.getvalue()


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """Everything but the per-image scores, as JSON has it: NaN is null."""
    systems = {}
    for system in evaluation.systems:
        means = {
            m.key: dataclasses.asdict(system.mean(m.key))
            if m.per_image
            else {"value": system.set_scores[m.key], "count": len(system.images)}
            for m in evaluation.metrics
        }
        systems[system.name] = {"images": len(system.images), "metrics": means}
    settings = {
        item.name: getattr(evaluation.settings, item.name)
        for item in dataclasses.fields(evaluation.settings)
        if item.name not in WEIGHT_SETTINGS
    }
    rows = paper_rows(evaluation.benchmark) if evaluation.benchmark else []
    return _without_nan(
        {
            "omgsr_jax": __version__,
            "protocol": evaluation.protocol,
            "benchmark": evaluation.benchmark,
            "settings": settings,
            "interval": {"level": statistics.LEVEL, "resamples": statistics.RESAMPLES},
            "test": {
                "kind": "sign flips",
                "fewest_images": statistics.FEWEST,
                "exact_up_to": statistics.EXACT,
                "draws_beyond": statistics.DRAWS,
            },
            "systems": systems,
            "differences": [dataclasses.asdict(row) for row in evaluation.differences()],
            "not_run": evaluation.not_run,
            "largest_difference_to_pyiqa": evaluation.cross_check,
            "papers": [dataclasses.asdict(row) for row in rows],
            "caveats": caveats(evaluation),
        }
    )


def caveats(evaluation: Evaluation) -> list[str]:
    """What a reader who compares these numbers with others has to know."""
    notes = []
    if evaluation.benchmark and evaluation.protocol != "papers":
        notes.append("The papers' rows are under their protocol, these scores were not held to it.")
    expected = IMAGES.get(evaluation.benchmark or "")
    counts = {len(system.images) for system in evaluation.systems}
    if expected and counts != {expected}:
        notes.append(
            f"The papers' {evaluation.benchmark} has {expected} images, this evaluation "
            f"{'/'.join(map(str, sorted(counts)))}: means differ, FID does not compare at all."
        )
    for system in evaluation.systems:
        for key, values in system.scores.items():
            undefined = [system.images[i] for i, v in enumerate(values) if not math.isfinite(v)]
            if undefined:
                notes.append(
                    f"{BY_KEY[key].label} is undefined on {len(undefined)} image(s) of "
                    f"{system.name}, such as {undefined[0]}; its mean is over the others."
                )
    return notes


def markdown(summary: dict[str, Any]) -> str:
    """The summary as tables that a README or an issue can take."""
    first = next(iter(summary["systems"].values()))
    metrics = [metric for metric in METRICS if metric.key in first["metrics"]]
    missing = [BY_KEY[key] for key in summary["not_run"]]
    shown = [metric for metric in METRICS if metric in metrics or metric in missing]
    count = {system["images"] for system in summary["systems"].values()}
    lines = [
        f"## {summary['benchmark'] or 'Evaluation'}: {'/'.join(map(str, sorted(count)))} images",
        "",
        "Means over images with 95% bootstrap intervals.",
        "",
        "| | " + " | ".join(f"{m.label} {ARROWS[m.better]}" for m in shown) + " |",
        "|---" * (len(shown) + 1) + "|",
    ]
    for name, system in summary["systems"].items():
        scores = [_cell(system["metrics"].get(m.key), m) for m in shown]
        lines.append(f"| **{cells.markdown(name)}** | " + " | ".join(scores) + " |")
    for row in summary["papers"]:
        scores = [m.show(row["scores"].get(m.key)) for m in shown]
        lines.append(f"| {row['method']}, {row['steps']} step(s) | " + " | ".join(scores) + " |")
    if summary["papers"]:
        lines += ["", f"Rows in plain type: {summary['papers'][0]['source'].split(', Table')[0]}."]
    if summary["differences"]:
        lines += ["", *_differences(summary["differences"])]
    if summary["not_run"]:
        lines += ["", "Not run:"]
        for key, why in summary["not_run"].items():
            lines.append(f"- {BY_KEY[key].label}: {cells.markdown(why)}")
    if summary["caveats"]:
        lines += ["", "Mind:"] + [f"- {cells.markdown(note)}" for note in summary["caveats"]]
    if summary["largest_difference_to_pyiqa"]:
        lines += ["", "Largest difference to pyiqa on any image:"]
        for key, found in summary["largest_difference_to_pyiqa"].items():
            text = (
                f"not checked: {cells.markdown(found)}"
                if isinstance(found, str)
                else f"{found:.2g}"
            )
            lines.append(f"- {BY_KEY[key].label}: {text}")
    return "\n".join(lines) + "\n"


def _differences(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "Differences on the same images, with 95% bootstrap intervals and p values of sign flips, "
        f"from {statistics.FEWEST} images on (bold: significant at 5% after Holm's correction):",
        "",
        "| | metric | difference | 95% interval | p |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        metric = BY_KEY[row["metric"]]
        value = metric.show_signed(row["value"])
        value = f"**{value}**" if row["significant"] else value
        interval = f"{metric.show_signed(row['low'])} to {metric.show_signed(row['high'])}"
        names = f"{cells.markdown(row['a'])} - {cells.markdown(row['b'])}"
        lines.append(
            f"| {names} | {metric.label} {ARROWS[metric.better]} | {value} "
            f"| {interval} | {_p(row['p'])} |"
        )
    return lines


def _p(value: float | None) -> str:
    if value is None:
        return "too few images"
    return f"{value:.4f}" if value >= 1e-4 else "< 0.0001"


def _cell(score: dict[str, Any] | None, metric: Metric) -> str:
    if score is None:
        return "not run"
    text = metric.show(score["value"])
    if score.get("low") is not None:
        text += f" ({metric.show(score['low'])} to {metric.show(score['high'])})"
    return text


def _digits(value: float) -> str:
    return f"{value:.6f}" if math.isfinite(value) else ""


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
