"""What waits is computed in batches, in turn, and what nobody waits for is not."""

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from omgsr_jax.errors import InputError
from omgsr_jax.inference.options import Options
from omgsr_jax.inference.pictures import from_array
from omgsr_jax.inference.sizes import Enlargement
from omgsr_jax.serving.batcher import Batcher, Entry

from .conftest import Enlarging, wait_until

_OPTIONS = Options(Enlargement(scale=2))


def entry(side: int, key: str = "one") -> Entry:
    return Entry(from_array(np.zeros((side, side, 3), np.uint8)), _OPTIONS, key)


@pytest.fixture
def batcher(model):
    """While the first image is computed, the others come."""
    model.open.clear()
    batcher = Batcher(lambda: model, window_seconds=0.005)
    batcher.start()
    batcher.submit(entry(1, "first"))
    model.begun.acquire(timeout=5)
    yield batcher
    model.open.set()
    batcher.end()


def submitted(batcher: Batcher, *entries: Entry) -> list[Entry]:
    for one in entries:
        batcher.submit(one)
    return list(entries)


def finish(batcher: Batcher, model: Enlarging) -> list[list[int]]:
    """The sides of the images of each batch."""
    model.open.set()
    batcher.end()
    return [[height for height, _ in batch] for batch in model.batches]


def test_images_of_one_canvas_share_a_batch_and_the_oldest_comes_first(batcher, model):
    submitted(batcher, entry(2), entry(3, "other"), entry(4), entry(5), entry(6), entry(7))
    assert finish(batcher, model) == [[1], [2, 4, 5, 6], [3], [7]]


def test_an_image_waits_for_others_only_so_long(model):
    batcher = Batcher(lambda: model, window_seconds=0.2)
    batcher.start()
    wait_until(lambda: batcher.model is not None)
    first, second = submitted(batcher, entry(1), entry(2))
    assert first.future.result(5).batch == second.future.result(5).batch == 2
    assert 0.15 < first.future.result().queue_seconds < 2
    batcher.end()


def test_a_full_batch_waits_for_nobody(model):
    batcher = Batcher(lambda: model, window_seconds=60)
    batcher.start()
    found = submitted(batcher, *map(entry, range(1, 5)))
    assert [one.future.result(5).batch for one in found] == [4] * 4
    batcher.end()


def test_what_nobody_waits_for_is_not_computed(batcher, model):
    left, stays = submitted(batcher, entry(2), entry(3))
    left.leave()
    assert finish(batcher, model) == [[1], [3]]
    assert stays.future.result().upscaled.picture.size == (6, 6)
    with pytest.raises(CancelledError):
        left.future.result()


def test_work_that_all_have_left_ends(model):
    model.open.clear()
    batcher = Batcher(lambda: model, window_seconds=0)
    batcher.start()
    (one,) = submitted(batcher, entry(1))
    model.begun.acquire(timeout=5)
    wait_until(lambda: one.progress is not None)
    one.leave()
    assert str(one.future.exception(5)) == "nobody waits for it"  # with the model still closed
    batcher.end()


def test_an_image_that_fails_fails_alone(batcher, model):
    model.fails.add((3, 3))
    found = submitted(batcher, entry(2), entry(3), entry(4))
    assert finish(batcher, model) == [[1], [2, 3, 4], [2], [3], [4]]
    assert [type(one.future.exception()) for one in found] == [type(None), InputError, type(None)]


def test_a_fault_of_ours_does_not_end_the_thread(batcher, model, monkeypatch, capsys):
    broken = entry(2)
    broken.options = None
    whole = entry(3, "other")
    submitted(batcher, broken, whole)
    finish(batcher, model)
    assert "AttributeError" in str(broken.future.exception())
    assert "AttributeError" in capsys.readouterr().err
    assert whole.future.result().batch == 1


def test_ending_finishes_what_waits(batcher, model):
    found = submitted(batcher, *map(entry, range(2, 9)))
    ending = threading.Thread(target=batcher.end)
    ending.start()
    model.open.set()
    ending.join(5)
    assert all(one.future.result().upscaled for one in found)
    with pytest.raises(RuntimeError, match="ended"):
        batcher.submit(entry(2))
