"""Progress within an image: what is told between programs, and that nobody else pays for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
import pytest

from omgsr_jax.inference.options import Options
from omgsr_jax.inference.pictures import from_array
from omgsr_jax.inference.programs import Program, Programs
from omgsr_jax.inference.progress import Progress
from omgsr_jax.inference.sizes import Enlargement

from .conftest import photo


def steps(found: list[Progress]) -> list[tuple[str, int, int]]:
    return [(one.stage, one.done, one.of) for one in found]


def one_pass(tiles: int) -> list[tuple[str, int, int]]:
    predicted = [("predict", done, tiles) for done in range(tiles + 1)]
    return [("encode", 0, 1), ("encode", 1, 1), *predicted, ("decode", 0, 1), ("decode", 1, 1)]


@contextmanager
def uncompiled(programs: Programs) -> Iterator[None]:
    """They have to be compiled again, which takes a moment, and nobody knows what they take."""
    known = dict(programs.compiled)

    def compile_again(program: Program) -> None:
        time.sleep(0.02)
        programs.compiled[program] = known[program]

    programs.compiled.clear()
    programs.seconds.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "compile", compile_again)
        yield
    programs.compiled.update(known)


@pytest.fixture(scope="module")
def first_and_second(upscaler) -> tuple[list[Progress], list[Progress]]:
    """What is told while an image of 16 px is enlarged eight times, twice: in two passes, on 1 tile
    and on 9."""
    upscaler.upscale(photo(), scale=8)
    first: list[Progress] = []
    second: list[Progress] = []
    with uncompiled(upscaler.programs):
        for found in (first, second):
            upscaler.upscale(photo(), scale=8, on_progress=found.append)
    return first, second


def test_each_program_is_told_of(first_and_second):
    first, second = first_and_second
    compiled = [("compiling", done, 5) for done in range(5)]
    assert steps(first) == [*compiled, *one_pass(1), *one_pass(9)]
    assert steps(second) == [*one_pass(1), *one_pass(9)]


def test_the_share_never_falls_and_ends_with_all(first_and_second):
    for found in first_and_second:
        shares = [one.share for one in found]
        assert shares == sorted(shares)
        assert (shares[0], shares[-1]) == (0, 1)


def test_what_is_left_is_told_as_soon_as_it_is_known(first_and_second):
    first, second = first_and_second
    predicted = steps(first).index(("predict", 1, 1))
    assert all(one.seconds_left is None for one in first[:predicted])
    for found in (first[predicted:], second):
        assert all(one.seconds_left is not None for one in found)
        assert found[0].seconds_left > found[-1].seconds_left == 0


def test_a_call_that_nobody_watches_waits_for_no_program(upscaler, monkeypatch):
    upscaler.upscale(photo(32, 32))
    waited = []
    wait = jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda x: waited.append(1) or wait(x))
    unwatched = upscaler.upscale(photo(32, 32))
    assert waited == []
    watched = upscaler.upscale(photo(32, 32), on_progress=lambda _: None)
    assert len(waited) == 1 + 9 + 1
    np.testing.assert_array_equal(watched, unwatched)


class LeftError(Exception):
    pass


def test_what_the_callback_raises_ends_the_work(upscaler):
    found = []

    def leave(progress: Progress) -> None:
        found.append(progress)
        if (progress.stage, progress.done) == ("predict", 2):
            raise LeftError

    with pytest.raises(LeftError):
        upscaler.upscale(photo(32, 32), scale=4, on_progress=leave)
    assert steps(found)[-1] == ("predict", 2, 9)


def test_the_seconds_of_compiling_are_apart(upscaler):
    pictures = [from_array(photo(16, 16, seed=seed)) for seed in (0, 1)]
    options = Options(Enlargement(scale=4))
    upscaler.restore(pictures, options)
    with uncompiled(upscaler.programs):
        first, second = upscaler.restore(pictures, options)
    assert set(first.work.seconds) == {"compile", "compute"}
    assert first.work.seconds["compile"] >= 3 * 0.02
    assert second.work.seconds["compile"] == 0  # the first waited for the programs of both
