"""Metrics, benchmark tables and reports: how good outputs are, and how sure that is."""

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
