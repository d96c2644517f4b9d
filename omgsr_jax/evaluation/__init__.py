"""Metrics, benchmark tables and reports: how good outputs are, and how sure that is.

Begin with benchmark.py (`run`, `score`) and metrics.py, the table of metrics.

fidelity.py, deep.py, niqe.py, fid.py, grid.py, external.py    the metrics
pairs.py, restoring.py           images paired by name; what a model makes of inputs
statistics.py, papers.py         intervals and comparisons; published results
results.py, writing.py, report.py, plots.py    what was found, on disk
"""

from .benchmark import run, score
from .errors import PairError, UnavailableError
from .metrics import METRICS, Metric, Settings, prepare
from .pairs import Pair, find_pairs
from .papers import paper_rows
from .results import Evaluation, System

__all__ = [
    "METRICS",
    "Evaluation",
    "Metric",
    "Pair",
    "PairError",
    "Settings",
    "System",
    "UnavailableError",
    "find_pairs",
    "paper_rows",
    "prepare",
    "run",
    "score",
]
