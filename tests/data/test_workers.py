"""Batches that workers make: as many as are needed, and the pairs of always."""

import dataclasses
import hashlib
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from omgsr_jax.data import (
    PRESETS,
    DataConfig,
    degrade,
    example_rng,
    make_pipeline,
    read_image,
    sampled_plan,
    signed,
    to_device,
    workers,
)
from omgsr_jax.data.pipeline import prepare
from omgsr_jax.data.workers import Workers
from omgsr_jax.errors import InputError

# Of 28 crops of `photos`, when batches were stacked and made floats of in the parent process.
_NAMES = "17ed6e65f44987d8"
_CROPS = {0.0: "baea6326f169a491", 40.0: "cb933e5343b456c8"}  # by data.flat


def _blocks(height, width, seed):
    """A picture of integers alone, which are the same on every machine."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 6 + 1, width // 6 + 1, 3), dtype=np.uint8)
    fine = rng.integers(0, 24, (height, width, 3), dtype=np.uint8)
    return (coarse.repeat(6, 0).repeat(6, 1)[:height, :width] // 2 + fine).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers") / "photos"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(_blocks(90 + i, 110, i)).save(folder / f"{i:02d}.png")
    return folder


def _config(photos, **changes):
    plain = DataConfig((str(photos),), resolution=64, batch_size=4, workers=0)
    return dataclasses.replace(plain, **changes)


def _pipeline(config):
    return make_pipeline(config, 5, process_index=0, process_count=1)


def _pairs(batches, count):
    """The next `count` pairs, one by one."""
    found = []
    while len(found) < count:
        batch = next(batches)
        arrays = (np.asarray(batch["lr"]), np.asarray(batch["hr"]))
        found += list(zip(batch["id"], *arrays, strict=True))
    return [(name, lr.tobytes(), hr.tobytes()) for name, lr, hr in found]


@pytest.fixture(scope="module")
def expected(photos):
    return _pairs(iter(_pipeline(_config(photos))), 32)


@pytest.mark.parametrize("flat", _CROPS)
def test_the_crops_are_those_of_always(photos, flat):
    """Recorded before batches were stacked elsewhere. Degradations differ with OpenCV and CPUs."""
    batches = iter(_pipeline(_config(photos, flat=flat)))
    names, crops = hashlib.sha256(), hashlib.sha256()
    for _ in range(7):
        batch = next(batches)
        for name, crop in zip(batch["id"], batch["hr"], strict=True):
            names.update(Path(name).name.encode())
            crops.update(signed(crop).tobytes())
    assert (names.hexdigest()[:16], crops.hexdigest()[:16]) == (_NAMES, _CROPS[flat])


def test_levels_are_the_same_floats_on_host_and_device_as_always():
    levels = np.arange(256, dtype=np.uint8)
    expected = np.multiply(levels, np.float32(2 / 255), dtype=np.float32) - 1
    for found in (signed(levels), jax.jit(signed)(levels)):
        assert found.dtype == np.float32
        assert np.asarray(found).tobytes() == expected.tobytes()


def test_the_low_quality_side_is_the_plan_carried_out(photos):
    """Drawn and degraded here as the pipeline did it when it worked on one example at a time."""
    batch = next(iter(_pipeline(_config(photos, batch_size=12))))
    order = np.random.default_rng(np.random.SeedSequence((5, 0), spawn_key=(1,))).permutation(12)
    for row, index in enumerate(order):
        rng = example_rng(5, 0, int(index))
        hr = prepare(read_image(photos / f"{index:02d}.png"), "", 64, rng)
        plan = sampled_plan(PRESETS[512], rng)
        np.testing.assert_array_equal(batch["hr"][row], hr)
        np.testing.assert_array_equal(batch["lr"][row], degrade(hr, plan, 4))


def test_the_number_of_workers_may_change_on_the_way(photos, expected):
    pipeline = _pipeline(_config(photos, workers=None))
    pipeline.workers.count = 0
    batches = iter(to_device(pipeline))
    try:
        found = _pairs(batches, 12)
        pipeline.workers.count = 1
        found += _pairs(batches, 20)
        assert found == expected
        assert pipeline.workers.seconds_a_pair > 0
    finally:
        batches.close()


@pytest.fixture
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 16)


def test_there_are_as_many_workers_as_a_step_needs(sixteen_cores):
    chosen = Workers(None)
    assert chosen.count == 8
    assert chosen.fit(8, 0.18) is None  # nothing has been measured
    chosen.measured(0.06)
    assert chosen.fit(8, 0.18) == (
        "data.workers is set to 4: a pair takes a worker 0.060 s, a step takes 8 pairs in 0.180 s"
    )
    assert chosen.count == 4
    assert chosen.fit(8, 1e-3).endswith("; 600 are needed, and there are 16 cores")
    assert chosen.count == 16
    chosen.fit(8, 1e3)
    assert chosen.count == 1


@pytest.mark.parametrize("asked", [0, 3])
def test_a_number_that_was_given_stays(asked, sixteen_cores):
    given = Workers(asked)
    given.measured(1.0)
    assert given.fit(8, 0.1) is None
    assert given.count == asked


def test_the_latest_pairs_count_most():
    measured = Workers(1)
    for seconds in [1.0, *[0.1] * 50]:
        measured.measured(seconds)
    assert measured.seconds_a_pair == pytest.approx(0.1, rel=0.1)


def test_data_that_nobody_takes_wait(monkeypatch):
    clock = SimpleNamespace(now=5.0)
    monkeypatch.setattr(workers, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    measured = Workers(1)
    measured.asked()
    clock.now += 10
    assert measured.idle == 0  # the batch is being made
    measured.ready()
    clock.now += 2
    assert measured.idle == 2
    measured.asked()
    clock.now += 10
    assert measured.idle == 2


def test_a_negative_number_is_refused(photos):
    with pytest.raises(InputError, match=r"data\.workers is -1, expected 0 or more, or None"):
        _config(photos, workers=-1)
