"""Progress within an image: what is told between programs, and that nobody else pays for it."""

import jax
import numpy as np
import pytest

import omgsr_jax
from omgsr_jax.inference.options import Options
from omgsr_jax.inference.pictures import from_array
from omgsr_jax.inference.progress import Progress
from omgsr_jax.inference.sizes import Enlargement

from .conftest import photo


def steps(found: list[Progress]) -> list[tuple[str, int, int]]:
    return [(one.stage, one.done, one.of) for one in found]


def one_pass(tiles: int) -> list[tuple[str, int, int]]:
    predicted = [("predict", done, tiles) for done in range(tiles + 1)]
    return [("encode", 0, 1), ("encode", 1, 1), *predicted, ("decode", 0, 1), ("decode", 1, 1)]


@pytest.fixture(scope="module")
def first_and_second(model_64, compile_cache) -> tuple[list[Progress], list[Progress]]:
    """What is told while an image of 16 px is enlarged eight times, twice: in two passes, on 1 tile
    and on 9."""
    model, calls = omgsr_jax.load(model_64), []
    for _ in range(2):
        found: list[Progress] = []
        model.upscale(photo(), scale=8, on_progress=found.append)
        calls.append(found)
    return calls[0], calls[1]


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
    upscaler.upscale(photo(), scale=8)
    waited = []
    wait = jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda x: waited.append(1) or wait(x))
    unwatched = upscaler.upscale(photo(), scale=8)
    assert waited == []
    watched = upscaler.upscale(photo(), scale=8, on_progress=lambda _: None)
    assert len(waited) == 2 * 2 + 1 + 9  # encode and decode in both passes, and each tile
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


def test_the_seconds_of_compiling_are_apart(model_64, compile_cache):
    model = omgsr_jax.load(model_64)
    pictures = [from_array(photo(16, 16, seed=seed)) for seed in (0, 1)]
    options = Options(Enlargement(scale=4))
    first, second = model.restore(pictures, options)
    assert set(first.work.seconds) == {"compile", "compute"}
    assert first.work.seconds["compile"] > 0
    assert second.work.seconds["compile"] == 0  # the first waited for the programs of both
