"""OMGSR on a transformer trains in the step that trains OMGSR-S: only the config differs."""

import jax
import numpy as np
import pytest

from omgsr_jax.training.run import Run
from tests.training.runs import batches, smallest


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["smallest-flux", "smallest-z-image"])
def test_a_step_trains_every_adapter(architecture):
    config = smallest(model={"architecture": architecture, "remat": True})
    run = Run.of(config, jax.devices()[:1])
    frozen, now = run.frozen(), run.start()
    start = jax.device_get(now.generator)
    for batch in batches(2):
        now, metrics = run.step(now, frozen, jax.device_put(batch))
    assert all(np.isfinite(value).all() for value in jax.device_get(metrics).values())
    still = [name for name in start if not np.abs(now.generator[name] - start[name]).max() > 0]
    assert not still
