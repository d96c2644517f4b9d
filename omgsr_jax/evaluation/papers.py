"""Published results to stand beside ours.

`papers.csv` holds every row of Tables 1, 4 and 5 of OMGSR (Wu et al., arXiv:2508.08227v1), x4 from
128 to 512 px: MANIQA is the tables' M-IQA, CLIPIQA their C-IQA, an empty field their dash. OMGSR's
own rows and the t_m ablation were measured by its authors; the others they took over or measured.
"""

import csv
from dataclasses import dataclass
from importlib.resources import files

from ..errors import InputError

SOURCE = "OMGSR, arXiv:2508.08227v1"
IMAGES = {"RealSR": 100, "DRealSR": 93, "DIV2K-Val": 3000}


@dataclass(frozen=True)
class PaperRow:
    benchmark: str
    method: str
    steps: int
    scores: dict[str, float]  # metric key -> mean; absent where the paper has a dash
    source: str


def require_benchmark(benchmark: str) -> None:
    if benchmark not in IMAGES:
        raise InputError(
            f"there is no benchmark {benchmark!r} in the papers; there are {', '.join(IMAGES)}"
        )


def paper_rows(benchmark: str) -> list[PaperRow]:
    """The rows of one benchmark: RealSR, DRealSR or DIV2K-Val."""
    require_benchmark(benchmark)
    text = files(__package__).joinpath("papers.csv").read_text()
    return [_row(row) for row in csv.DictReader(text.splitlines()) if row["benchmark"] == benchmark]


def _row(fields: dict[str, str]) -> PaperRow:
    benchmark, method = fields.pop("benchmark"), fields.pop("method")
    steps, tables = int(fields.pop("steps")), fields.pop("tables")
    scores = {key: float(value) for key, value in fields.items() if value}
    source = f"{SOURCE}, {'Table' if ' ' not in tables else 'Tables'} {tables.replace(' ', ', ')}"
    return PaperRow(benchmark, method, steps, scores, source)
