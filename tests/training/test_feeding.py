"""What the input costs, timed on a machine that does nothing else: by hand.

pytest -m slow -s tests/training/test_feeding.py
"""

import itertools
import statistics
import time

import jax
import pytest
from PIL import Image

from configs import tiny
from omgsr_jax.data import DataConfig, make_pipeline, to_device
from omgsr_jax.training import host_memory
from omgsr_jax.training.config import from_dict
from omgsr_jax.training.run import Run
from tests.data.photos import synthetic_photo

pytestmark = pytest.mark.slow
_TURNS = 12  # of each kind
_STEPS = 4  # of a turn


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Files of photographs' size."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(24):
        Image.fromarray(synthetic_photo(512, 768, i)).save(folder / f"{i}.png")
    return folder


def test_the_parent_process_does_little_for_a_pair(photos):
    """At 512 px. Its time on CPUs in all of its threads, once the workers are at work."""
    config = DataConfig((str(photos),), resolution=512, batch_size=8, workers=2)
    batches = iter(to_device(make_pipeline(config, 0)))
    jax.block_until_ready(next(batches)["hr"])
    busy, pairs = time.process_time(), 0
    for batch in itertools.islice(batches, 8):
        jax.block_until_ready((batch["lr"], batch["hr"]))
        pairs += len(batch["id"])
    busy = (time.process_time() - busy) / pairs
    batches.close()
    print(f"\nthe parent's time on CPUs: {1000 * busy:.2f} ms a pair")
    assert busy <= 1.5e-3


@pytest.mark.parametrize("workers", [0, None], ids=["as configured", "automatic"])
def test_real_data_feed_tiny_as_fast_as_synthetic_ones(photos, workers):
    """The median of what real data take over synthetic ones that are timed beside them, since
    machines have slow minutes. The workers' number is found as in a run."""
    host_memory.keep()
    settings = tiny.get_config().to_dict()
    settings["data"] |= {"sources": (str(photos),), "workers": workers}
    settings["validation"]["sources"] = ()
    task = Run.of(from_dict(settings), jax.devices()[:1]).task({})
    state, _ = task.step(task.state, _without_names(next(task.batches)))
    jax.block_until_ready(state)
    same = _without_names(next(task.batches))
    synthetic, real = itertools.repeat(same), map(_without_names, task.batches)
    state, seconds = _timed(task.step, state, synthetic)
    print("\n", task.workers.fit(len(task.rows), seconds / _STEPS))
    state, _ = _timed(task.step, state, real)  # the workers start
    ratios = []
    for turn in range(_TURNS):
        seconds = {}
        for kind in ("synthetic", "real") if turn % 2 else ("real", "synthetic"):
            batches = {"synthetic": synthetic, "real": real}[kind]
            state, seconds[kind] = _timed(task.step, state, batches)
        ratios.append(seconds["real"] / seconds["synthetic"])
        print({kind: round(took / _STEPS, 3) for kind, took in seconds.items()})
    task.batches.close()
    print("median of the ratios:", round(statistics.median(ratios), 4))
    assert statistics.median(ratios) <= 1.03


def _without_names(batch):
    return {name: array for name, array in batch.items() if name != "id"}


def _timed(step, state, batches):
    began = time.perf_counter()
    for batch in itertools.islice(batches, _STEPS):
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    return state, time.perf_counter() - began
