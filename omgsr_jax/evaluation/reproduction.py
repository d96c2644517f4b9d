"""Tables 1 and 5 of the paper, with rows of one's own beside its rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InputError
from .cells import markdown as cell
from .metrics import BY_KEY
from .papers import PaperRow, paper_rows
from .results import Evaluation
from .writing import ARROWS, markdown, summarise

ITS_OWN = "OMGSR-S"  # the row that a model of another name is held against


@dataclass(frozen=True)
class Offset:
    """A system's mean minus that of the paper's row. The interval is that of our mean: the paper's
    images are not known one by one."""

    system: str
    method: str
    metric: str
    value: float
    low: float | None  # None for a metric of the whole set
    high: float | None


def offsets(evaluation: Evaluation, rows: Sequence[PaperRow]) -> list[Offset]:
    """Every system against the row of its name, or else against OMGSR-S."""
    by_method = {row.method: row for row in rows}
    found = []
    for system in evaluation.systems:
        row = by_method.get(system.name, by_method[ITS_OWN])
        for key in (metric.key for metric in evaluation.metrics if metric.key in row.scores):
            theirs = row.scores[key]
            name = system.name, row.method, key
            if key in system.set_scores:
                found.append(Offset(*name, system.set_scores[key] - theirs, None, None))
            else:
                mean = system.mean(key)
                moved = (value - theirs for value in (mean.value, mean.low, mean.high))
                found.append(Offset(*name, *moved))
    return found


def reproduced(evaluation: Evaluation, table: int) -> dict[str, Any]:
    """The summary of one set, with the rows of the table, and how far ours are from them."""
    if evaluation.benchmark is None:
        raise InputError("the paper's rows are those of a benchmark: say which")
    rows = paper_rows(evaluation.benchmark, table)
    return summarise(evaluation) | {
        "papers": [asdict(row) for row in rows],
        "offsets": [
            asdict(offset) for offset in offsets(evaluation, rows) if math.isfinite(offset.value)
        ],
    }


def page(table: int, sets: Mapping[str, dict[str, Any]], missing: Mapping[str, str]) -> str:
    """All sets of a table, as Markdown; `missing` says of a set where it is to be had."""
    parts = [f"# Table {table}", ""]
    for summary in sets.values():
        parts += [markdown(summary), *_offsets(summary["offsets"])]
    if missing:
        parts += ["", "## Sets that are not there", ""]
        parts += [f"- {name}: {cell(why)}" for name, why in missing.items()]
    return "\n".join(parts) + "\n"


def _offsets(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "Ours minus the paper's row, with the 95% interval of our mean:",
        "",
        "| | paper's row | metric | difference | 95% interval |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        metric = BY_KEY[row["metric"]]
        interval = "none: one number for the set"
        if row["low"] is not None:
            interval = f"{metric.show_signed(row['low'])} to {metric.show_signed(row['high'])}"
        lines.append(
            f"| {cell(row['system'])} | {row['method']} | {metric.label} {ARROWS[metric.better]} "
            f"| {metric.show_signed(row['value'])} | {interval} |"
        )
    return lines
