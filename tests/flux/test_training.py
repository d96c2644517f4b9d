"""OMGSR-F trains in the step that trains OMGSR-S: only the config differs."""

import jax
import numpy as np
import pytest

from omgsr_jax.models.lora import FLUX_TARGETS
from omgsr_jax.training import blueprint, state, step
from omgsr_jax.training import layout as sharding
from omgsr_jax.training.config import MeshConfig
from tests.training.runs import batches, smallest


def _blueprint():
    return blueprint.draw(smallest(model={"architecture": "smallest-flux", "remat": True}))


def test_new_adapters_are_on_the_published_layers_of_flux():
    drawn = _blueprint()
    assert drawn.generator_config.backbone_lora.targets == FLUX_TARGETS
    name = "backbone.transformer_blocks.each.attn.add_q_proj.lora_A.kernel"
    assert drawn.adapters[name].shape == (2, 16, 2)  # as deep as the stack


@pytest.mark.slow
def test_a_step_trains_every_adapter():
    drawn = _blueprint()
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    where = state.placed(drawn, mesh)
    frozen, _ = state.load_frozen(drawn, where)
    with jax.set_mesh(mesh):
        run = step.compile_ready(drawn, where, mesh)
        now = state.make_state(drawn, where)
        start = jax.device_get(now.generator)
        for batch in batches(2):
            now, metrics = run(now, frozen, jax.device_put(batch))
    assert all(np.isfinite(value).all() for value in jax.device_get(metrics).values())
    still = [name for name in start if not np.abs(now.generator[name] - start[name]).max() > 0]
    assert not still
