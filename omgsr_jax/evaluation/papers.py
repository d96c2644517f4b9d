"""Published results to stand beside ours.

`papers.csv` holds every row of Tables 1, 4 and 5 of OMGSR (Wu et al., arXiv:2508.08227v1), x4 from
128 to 512 px: MANIQA is the tables' M-IQA, CLIPIQA their C-IQA, an empty field their dash. OMGSR's
own rows and the t_m ablation were measured by its authors; the others they took over or measured.
`papers_seconds.csv` holds Table 2: what one image takes.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from ..errors import InputError

SOURCE = "OMGSR, arXiv:2508.08227v1"
SECONDS_ON = "one L40S"  # Table 2
IMAGES = {"RealSR": 100, "DRealSR": 93, "DIV2K-Val": 3000}


@dataclass(frozen=True)
class PaperRow:
    benchmark: str
    method: str
    steps: int
    scores: dict[str, float]  # metric key -> mean; absent where the paper has a dash
    source: str
    tables: tuple[int, ...]


@dataclass(frozen=True)
class PaperSeconds:
    """What one image takes a method."""

    method: str
    pixels: int  # of the output's sides
    seconds: float


def require_benchmark(benchmark: str) -> None:
    if benchmark not in IMAGES:
        raise InputError(
            f"there is no benchmark {benchmark!r} in the papers; there are {', '.join(IMAGES)}"
        )


def paper_rows(benchmark: str, table: int | None = None) -> list[PaperRow]:
    """The rows of one benchmark, RealSR, DRealSR or DIV2K-Val: all, or those of one table."""
    require_benchmark(benchmark)
    rows = [_row(fields) for fields in _read("papers.csv") if fields["benchmark"] == benchmark]
    return [row for row in rows if table is None or table in row.tables]


def paper_seconds() -> list[PaperSeconds]:
    """The columns of Table 2."""
    return [
        PaperSeconds(fields["method"], int(fields["pixels"]), float(fields["seconds"]))
        for fields in _read("papers_seconds.csv")
    ]


def _read(name: str) -> Iterator[dict[str, str]]:
    return csv.DictReader(files(__package__).joinpath(name).read_text().splitlines())


def _row(fields: dict[str, str]) -> PaperRow:
    benchmark, method = fields.pop("benchmark"), fields.pop("method")
    steps, tables = int(fields.pop("steps")), fields.pop("tables").split()
    scores = {key: float(value) for key, value in fields.items() if value}
    source = f"{SOURCE}, {'Tables' if len(tables) > 1 else 'Table'} {', '.join(tables)}"
    return PaperRow(benchmark, method, steps, scores, source, tuple(map(int, tables)))
