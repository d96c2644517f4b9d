"""OMGSR-F trains in the step that trains OMGSR-S: only the config differs."""

import jax

from omgsr_jax.models.lora import FLUX_TARGETS
from omgsr_jax.training.run import Run
from tests.training.runs import smallest


def _run():
    config = smallest(model={"architecture": "smallest-flux", "remat": True})
    return Run.of(config, jax.devices()[:1])


def test_new_adapters_are_on_the_published_layers_of_flux():
    blueprint = _run().blueprint
    assert blueprint.generator_config.backbone_lora.targets == FLUX_TARGETS
    name = "backbone.transformer_blocks.each.attn.add_q_proj.lora_A.kernel"
    assert blueprint.adapters[name].shape == (2, 16, 2)  # as deep as the stack
