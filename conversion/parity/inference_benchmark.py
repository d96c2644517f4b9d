"""How long inference takes: every peer in a process of its own, each result as soon as it is there.

On CPUs the peers take turns, so that a machine that slows down slows all. On a GPU, whose memory
does not hold all of them, one follows the other. A peer that hangs or dies costs itself alone.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from omgsr_jax.cost.flops import peaks

from .arrays import psnr
from .inference_cases import OURS, Case, Weights
from .inference_peers import serve
from .workers import Failed, Lost, Worker, worker

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Args:
        peers: in their order; ours first, as the others are compared with it.
        cases: of one precision, from the smallest to the largest, so that the most memory that a
            process has used is that of its last case.
        flops: of one image, by its pixels.
        limit_s: of all of a peer's time.
        in_turns: whether the peers take turns.
        profiled: whether stages and kinds of layers are timed, too.
        scratch: where outputs are kept.
        serve: the life of a peer's process.
    """

    weights: Weights
    peers: Sequence[str]
    cases: Sequence[Case]
    flops: dict[int, float]
    runs: int
    limit_s: float
    in_turns: bool
    profiled: bool
    scratch: Path
    serve: Callable[..., None] = serve


class _Peer(NamedTuple):
    """A peer whose process lives."""

    worker: Worker
    facts: dict[str, Any]


def measured(plan: Plan) -> Iterator[Row]:
    """A row for each peer and case; a failure is a row, too."""
    ours: dict[Case, Row] = {}
    groups = [plan.peers] if plan.in_turns else [[name] for name in plan.peers]
    for names in groups:
        with ExitStack() as stack:
            peers: dict[str, _Peer] = {}
            for name in names:
                try:
                    peers[name] = _started(name, plan, stack)
                except (Lost, Failed) as error:
                    yield {"peer": name, "precision": plan.cases[0].precision, "failed": str(error)}
            for case in plan.cases:
                for row in _of_case(case, peers, plan):
                    if row["peer"] == OURS and "seconds" in row:
                        ours[case] = row
                    yield _compared(row, ours.get(case), case, plan)


def _started(name: str, plan: Plan, stack: ExitStack) -> _Peer:
    one = stack.enter_context(
        worker(name, plan.serve, name, plan.weights, plan.cases[0].precision, limit_s=plan.limit_s)
    )
    return _Peer(one, one.ask(("facts",)))


def _of_case(case: Case, peers: dict[str, _Peer], plan: Plan) -> Iterator[Row]:
    """All peers made ready; then rounds in which each runs once; then a row for each.

    A peer whose process is lost leaves `peers`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    failures: dict[str, str] = {}
    for run in range(plan.runs + 1):
        for name in [name for name in seconds if name not in failures]:
            first = ("prepare", case, _output(plan, name, case))
            try:
                seconds[name].append(_ask(name, peers, *(("run",) if run else first)))
            except (Lost, Failed) as error:
                failures[name] = str(error)
    for name, found in seconds.items():
        row: Row = {"peer": name, **asdict(case)}
        if name in failures:
            yield row | {"failed": failures[name]}
        else:
            row |= _speed(case, peers[name].facts, found, plan.flops[case.pixels])
            yield row | _further(name, peers, plan)


def _ask(name: str, peers: dict[str, _Peer], *question: Any) -> Any:
    try:
        return peers[name].worker.ask(question)
    except Lost:
        peers.pop(name).worker.close()
        raise


def _speed(case: Case, facts: dict[str, Any], seconds: Sequence[float], flops: float) -> Row:
    first, *others = seconds
    median = statistics.median(others)
    return facts | {
        "seconds": _digits(median),
        "all_seconds": [_digits(one) for one in others],
        "first_call_seconds": round(first, 2),  # it compiles
        "megapixels_per_second": _digits(case.batch * case.pixels**2 / 1e6 / median),
        "tflop_per_image": round(flops / 1e12, 4),
        "share_of_peak": _share(case, facts["device_kind"], flops, median),
    }


def _further(name: str, peers: dict[str, _Peer], plan: Plan) -> Row:
    row: Row = {}
    try:
        row["peak_gb"] = _ask(name, peers, "peak_gb")
        if plan.profiled:
            row["profile"] = _ask(name, peers, "profile", plan.runs)
    except (Lost, Failed) as error:
        row["profile_failed"] = str(error)
    return row


def _share(case: Case, kind: str, flops: float, seconds: float) -> float | None:
    """Of the device's peak, which is known for products in bf16."""
    limits = peaks(kind)
    if limits is None or case.precision != "bf16":
        return None
    return round(flops * case.batch / seconds / limits[0], 4)


def _compared(row: Row, ours: Row | None, case: Case, plan: Plan) -> Row:
    if ours is None or row["peer"] == OURS or "seconds" not in row:
        return row
    if row["device"] != ours["device"]:
        raise SystemExit(
            f"{row['peer']} ran on a {row['device']} and ours on a {ours['device']}, which "
            "compares nothing; choose with --peers"
        )
    first, second = (np.load(_output(plan, name, case)) for name in (OURS, row["peer"]))
    return row | {
        "ours_over_this": round(ours["seconds"] / row["seconds"], 3),
        "agreement_db": round(psnr(first, second, peak=255), 2),
    }


def _output(plan: Plan, name: str, case: Case) -> Path:
    return plan.scratch / f"{name}-{case.precision}-{case.pixels}-{case.batch}.npy"


def _digits(value: float) -> float:
    """Four that count: a call may take a millisecond or a minute."""
    return round(value, 3 - math.floor(math.log10(value))) if value > 0 else value
