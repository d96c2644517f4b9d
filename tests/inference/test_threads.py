"""One loaded model, called from several threads at once, as a service does."""

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import omgsr_jax
from omgsr_jax.errors import InputError
from omgsr_jax.inference.canvases import MOST_CANVASES, Canvases
from omgsr_jax.inference.programs import Program, Programs

from .conftest import canvas_of, photo, stage_of

_SIZES = ((15, 15), (16, 24), (16, 24))
_THREADS = 8


def _images() -> list[np.ndarray]:
    return [photo(*size, seed=number) for number, size in enumerate(_SIZES)]


def _restored(model: omgsr_jax.Upscaler, image: np.ndarray) -> bytes:
    return model.upscale(image, scale=4).tobytes()


@pytest.fixture
def compilations(monkeypatch) -> list[Program]:
    begun: list[Program] = []
    compile_program = Programs.compile

    def counting(self: Programs, program) -> None:
        begun.append(program)
        compile_program(self, program)

    monkeypatch.setattr(Programs, "compile", counting)
    return begun


def _call(model: omgsr_jax.Upscaler, images: list[np.ndarray], number: int) -> bytes | None:
    """Every ninth call fails, each time at another place."""
    if number % 9 == 4:
        wrong = (
            Path("missing.png"),
            np.zeros((0, 3, 3), np.uint8),
            np.zeros((1, 900, 3), np.uint8),
        )
        try:  # pytest.raises would keep what the call held
            model.upscale(wrong[number // 9 % 3], scale=4)
        except InputError:
            return None
        raise AssertionError(f"call {number} did not fail")
    return _restored(model, images[number % len(images)])


@pytest.mark.slow
def test_eight_threads_get_the_bits_that_each_call_gets_alone(
    model_64, compile_cache, compilations
):
    images = _images()
    alone = omgsr_jax.load(model_64)
    expected = [_restored(alone, image) for image in images]
    # Two canvases, each with a program to encode and one to decode; one to predict.
    assert len(compilations) == len(set(compilations)) == 5
    compilations.clear()

    model = omgsr_jax.load(model_64)
    with ThreadPoolExecutor(_THREADS) as threads:
        # At once and unprepared: each program is compiled by one of the threads.
        first = list(threads.map(lambda image: _restored(model, image), images))
        assert len(compilations) == len(set(compilations)) == 5
        compilations.clear()
        for result, image in zip(first, images, strict=True):
            assert _restored(model, image) == result
        later = list(threads.map(lambda n: _call(alone, images, n), range(60)))
    assert compilations == []
    for number, result in enumerate(later):
        assert result in (None, expected[number % len(images)]), f"call {number}"
    assert later.count(None) == 7


def test_a_canvas_that_is_chosen_later_changes_no_result():
    canvases = Canvases(canvas_of)
    first, second = stage_of(64, 64), stage_of(56, 80)
    assert canvases.place(first) == canvas_of(first, False)
    canvases.plan(
        [second, stage_of(60, 90), stage_of(120, 72), stage_of(96, 96), stage_of(500, 500)]
    )
    chosen = canvases.place(second)
    canvases.plan([second, stage_of(64, 72)])
    assert canvases.place(second) == chosen
    assert canvases.place(first) == canvas_of(first, False)


def test_batches_of_ever_other_sizes_do_not_add_canvases_for_ever():
    canvases, found = Canvases(canvas_of), set()
    for first, second in itertools.product(range(64, 257, 8), repeat=2):
        stages = stage_of(first, 64), stage_of(second, first)
        canvases.plan(stages)
        found |= {canvases.place(stage) for stage in stages}
    # Four, and powers of two.
    assert len(found) <= MOST_CANVASES + 9


@pytest.mark.slow
def test_2000_calls_from_eight_threads_leave_the_memory_flat(model_64, compile_cache, compilations):
    images = _images()
    model = omgsr_jax.load(model_64)
    expected = [_restored(model, image) for image in images]
    programs = len(compilations)
    memory = []
    with ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, 2000, 250):
            numbers = range(start, start + 250)
            for number, result in zip(
                numbers, threads.map(lambda n: _call(model, images, n), numbers), strict=True
            ):
                assert result in (None, expected[number % len(images)]), f"call {number}"
            memory.append(_resident_bytes())
    print("MB after every 250 calls:", [round(size / 1e6) for size in memory], file=sys.stderr)
    assert len(compilations) == programs
    # The allocator's pools for the threads fill up in the first thousand calls.
    assert memory[-1] < 1.03 * memory[3], memory


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
