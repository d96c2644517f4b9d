"""What an evaluation found."""

import itertools
from dataclasses import dataclass, field

import numpy as np

from .metrics import METRICS, Metric, Settings
from .pairs import PairedFiles
from .statistics import Difference, Mean, holm, mean_interval, paired_difference


@dataclass(frozen=True)
class System:
    """The scores of one set of outputs."""

    name: str
    images: list[str]
    scores: dict[str, np.ndarray]  # metric key -> one number per image, NaN where undefined
    set_scores: dict[str, float]  # of metrics that are about the whole set
    files: list[PairedFiles] = field(default_factory=list)

    def mean(self, key: str) -> Mean:
        return mean_interval(self.scores[key])


@dataclass(frozen=True)
class Evaluation:
    systems: list[System]
    settings: Settings
    not_run: dict[str, str]  # metric key -> why
    protocol: str | None = None
    benchmark: str | None = None  # whose rows of the papers to show beside
    # metric key -> largest difference to pyiqa on any image, or why it could not be checked
    cross_check: dict[str, float | str] = field(default_factory=dict)

    @property
    def metrics(self) -> list[Metric]:
        """Those that ran, in the table's order."""
        first = self.systems[0]
        return [m for m in METRICS if m.key in first.scores or m.key in first.set_scores]

    def differences(self) -> list[Difference]:
        """Every two systems, every per-image metric; systems are paired by image name."""
        found = []
        for a, b in itertools.combinations(self.systems, 2):
            rows_b = {name: row for row, name in enumerate(b.images)}
            common = [(row, rows_b[name]) for row, name in enumerate(a.images) if name in rows_b]
            in_a, in_b = (list(rows) for rows in zip(*common, strict=True)) if common else ([], [])
            for key in a.scores.keys() & b.scores.keys():
                mean, p = paired_difference(a.scores[key][in_a], b.scores[key][in_b])
                found.append((key, a.name, b.name, mean, p))
        order = [metric.key for metric in METRICS]
        found.sort(key=lambda row: order.index(row[0]))
        tested = [p for *_, p in found if p is not None]
        rejected = iter(holm(tested))
        return [
            Difference(
                *(key, a, b, mean.value, mean.low, mean.high, mean.count, p),
                significant=p is not None and next(rejected),
            )
            for key, a, b, mean, p in found
        ]
