"""Metrics, benchmark tables and reports: how good outputs are, and how sure that is.

Begin with benchmark.py (`run`, `score`) and metrics.py, the table of metrics.

fidelity.py, deep.py, niqe.py, fid.py, grid.py, external.py    the metrics
options.py                       what may be asked for, known without JAX
pairs.py, restoring.py           images paired by name; what a model makes of inputs
statistics.py, papers.py         intervals and comparisons; published results
results.py, writing.py, report.py, plots.py    what was found, on disk
cells.py                         texts of others in CSV and Markdown
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "benchmark": ("run", "score"),
    "errors": ("PairError", "UnavailableError"),
    "metrics": ("METRICS", "Metric", "Settings", "prepare"),
    "pairs": ("Pair", "find_pairs"),
    "papers": ("paper_rows",),
    "results": ("Evaluation", "System"),
}


def __getattr__(name: str) -> Any:
    """Imports what needs JAX when it is first used."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
