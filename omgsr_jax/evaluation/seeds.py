"""Several ways, each with several seeds, against one of them: means, differences, a table.

An interval of a difference is over photographs. It says nothing of other seeds, so those that were
run stand beside it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .metrics import Metric
from .statistics import paired_difference

Scores = dict[str, np.ndarray]  # by their names: of every crop


def means(of_seeds: list[Scores]) -> dict[str, list[float]]:
    """Of each score, for every seed."""
    return {name: [round(float(s[name].mean()), 4) for s in of_seeds] for name in of_seeds[0]}


def differences(
    mine: list[Scores], plain: list[Scores], by_photograph: Callable[[np.ndarray], np.ndarray]
) -> dict[str, dict[str, Any]]:
    """For every seed; and of the mean over them, with its 95% interval over the photographs."""
    found = {}
    for name in mine[0]:
        ours, theirs = (
            np.stack([by_photograph(one[name]) for one in side]) for side in (mine, plain)
        )
        mean, p = paired_difference(ours.mean(0), theirs.mean(0))
        rounded = {part: round(value, 4) for part, value in dataclasses.asdict(mean).items()}
        seeds = [round(float(value), 4) for value in (ours - theirs).mean(1)]
        found[name] = {"seeds": seeds, **rounded, "p": p}
    return found


def table(
    title: str,
    metrics: Mapping[str, Metric],
    found: Mapping[str, Mapping[str, list[float]]],
    against_plain: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> Iterator[str]:
    """A row for each way, a column for each score (whose `metrics` these are). A difference is bold
    where all seeds agree on its sign and its interval does not hold 0."""
    yield f"| {title} | {' | '.join(metric.key for metric in metrics.values())} |"
    yield "|---" * (len(metrics) + 1) + "|"
    for way, of_way in found.items():
        differing = against_plain.get(way, {})
        cells = [_cell(m, of_way[name], differing.get(name)) for name, m in metrics.items()]
        yield f"| {way} | {' | '.join(cells)} |"


def _cell(metric: Metric, of_seeds: list[float], difference: Mapping[str, Any] | None) -> str:
    mean = metric.show(float(np.mean(of_seeds)))
    if difference is None:
        return mean
    value, low, high = (difference[part] for part in ("value", "low", "high"))
    text = f"{mean} ({metric.show_signed(value)}: {metric.show(low)} to {metric.show(high)})"
    agree = len({seed > 0 for seed in difference["seeds"]}) == 1
    return f"**{text}**" if agree and (low > 0 or high < 0) else text
