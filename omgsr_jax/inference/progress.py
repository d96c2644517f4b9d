"""How far the work on images is: told between programs, to those who ask.

Programs are dispatched and not waited for, so the host runs ahead of the device. Where somebody
asks, each of them is waited for.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import jax

from .restore import Decoding, Encoding, Prediction, Program

_Any = TypeVar("_Any")

_STAGES = {Encoding: "encode", Prediction: "predict", Decoding: "decode"}
# What a latent pixel costs, about: those of SD-Turbo (docs/benchmarks.md). Until programs have run,
# nothing better is known.
_COSTS = {Encoding: 1.0, Prediction: 0.9, Decoding: 1.4}


@dataclass(frozen=True)
class Progress:
    """How far one call is.

    Args:
        stage: "compiling", "encode", "predict" or "decode".
        done: how much of this stage: programs compiled, tiles predicted, else 0 or 1.
        of: how much there is of it.
        share: of all the call's work, 0 .. 1; it never falls.
        seconds_left: None while nothing is known.
    """

    stage: str
    done: int
    of: int
    share: float
    seconds_left: float | None


# Whatever it raises ends the work, and reaches the caller.
OnProgress = Callable[[Progress], None]


class Watch:
    """Whom the programs of one call tell what they do: here nobody, so they wait for nothing."""

    def compiling(self, done: int, of: int) -> None:
        """Programs are compiled before the first of them runs."""

    def ran(
        self, program: Program, run: Callable[[], _Any], done: int = 0, by: int = 1, of: int = 1
    ) -> _Any:
        """What `run` gives: one run of a program, which gets its stage from `done` on by `by`."""
        return run()


class Telling(Watch):
    """Args:
    tell: is told.
    seconds: what programs took when they ran last; what runs is added to it.
    planned: how often each program runs.
    """

    def __init__(
        self, tell: OnProgress, seconds: dict[Program, float], planned: Mapping[Program, int]
    ):
        self._tell, self._seconds = tell, seconds
        self._left, self._done = Counter(planned), Counter[Program]()
        self._share = 0.0

    def compiling(self, done: int, of: int) -> None:
        self._tell(Progress("compiling", done, of, self._share, None))

    def ran(
        self, program: Program, run: Callable[[], _Any], done: int = 0, by: int = 1, of: int = 1
    ) -> _Any:
        if done == 0:
            self._say(program, 0, of)
        started = time.perf_counter()
        found = jax.block_until_ready(run())
        self._seconds[program] = time.perf_counter() - started
        self._left[program] -= 1
        self._done[program] += 1
        self._say(program, min(done + by, of), of)
        return found

    def _say(self, program: Program, done: int, of: int) -> None:
        expected = {p: _expected(p, self._seconds) for p in {*self._left, *self._done}}
        known = {p: seconds for p, seconds in expected.items() if seconds is not None}
        costs = known if len(known) == len(expected) else {p: _cost(p) for p in expected}
        left, spent = _total(self._left, costs), _total(self._done, costs)
        self._share = max(self._share, spent / (spent + left))
        seconds_left = left if costs is known else None
        self._tell(Progress(_STAGES[type(program)], done, of, self._share, seconds_left))


def _expected(program: Program, seconds: Mapping[Program, float]) -> float | None:
    """What a program will take: what it took before, or by what one of its kind took. The VAE's
    two parts are of one kind."""
    if program in seconds:
        return seconds[program]
    is_vae = not isinstance(program, Prediction)
    alike = [p for p in tuple(seconds) if isinstance(p, Prediction) != is_vae]
    if not alike:
        return None
    nearest = max(alike, key=lambda other: type(other) is type(program))
    return seconds[nearest] * _cost(program) / _cost(nearest)


def _cost(program: Program) -> float:
    size = program.tile if isinstance(program, Prediction) else program.canvas.latents
    return _COSTS[type(program)] * program.batch * size[0] * size[1]


def _total(times: Mapping[Program, int], costs: Mapping[Program, float]) -> float:
    return sum(count * costs[program] for program, count in times.items())
