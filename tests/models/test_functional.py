"""The networks at a jit border: recomputation changes memory only, and tree mode is enough."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omgsr_jax.generator import OMGSR, OMGSRConfig
from omgsr_jax.models.lora import LoRASpec
from omgsr_jax.models.unet import UNetConfig
from omgsr_jax.models.vae import VAEConfig
from omgsr_jax.process import DDPM
from tests.helpers import drawn, images, relative_error

CONFIG = OMGSRConfig(
    vae=VAEConfig(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4),
    backbone=UNetConfig(
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention=(True, False),
        heads=(2, 2),
        transformer_depth=(1, 1),
        cross_attention_dim=8,
        norm_num_groups=4,
    ),
    process=DDPM(),
    mid_timestep=195,
    prompt_shapes={"context": (5, 8)},
    encoder_lora=LoRASpec(2, 2),
    backbone_lora=LoRASpec(2, 2),
)


def _loss(remat: bool):
    """A loss of the adapters of the UNet, and the adapters."""
    model = drawn(OMGSR(CONFIG, remat=remat, rngs=None))
    graph, trained, frozen = nnx.split(model.backbone, nnx.LoRAParam, ...)
    z, context = jnp.ones((1, 8, 8, 4)), jnp.ones((1, 5, 8))

    def loss(trained):
        return jnp.mean(jnp.square(nnx.merge(graph, trained, frozen)(z, 195, context)))

    return loss, trained


@pytest.mark.slow
def test_recomputing_activations_changes_no_gradient():
    results = []
    for remat in (False, True):
        loss, trained = _loss(remat)
        assert ("remat" in str(jax.make_jaxpr(loss)(trained))) == remat
        results.append(jax.jit(jax.grad(loss))(trained))
    (kept, _), (recomputed, _) = (jax.flatten_util.ravel_pytree(result) for result in results)
    assert relative_error(recomputed, kept) <= 1e-5


@pytest.mark.slow
def test_the_generator_works_in_tree_mode():
    """No shared references: the model can be split and merged without NNX's graph machinery."""
    x = jnp.asarray(images(0, 1, 16, 16, 3))
    model = drawn(OMGSR(CONFIG, rngs=None))
    expected = nnx.jit(lambda model, x: model(x))(model, x)
    before = nnx.set_graph_mode(False) if hasattr(nnx, "set_graph_mode") else None
    try:
        graph, state = nnx.split(drawn(OMGSR(CONFIG, rngs=None)))
        result = jax.jit(lambda state, x: nnx.merge(graph, state)(x))(state, x)
    finally:
        if before is not None:
            nnx.set_graph_mode(before)
    assert relative_error(result, expected) <= 1e-5


@pytest.mark.slow
def test_sampling_the_posterior_needs_a_key_and_moves_the_latent():
    model = drawn(OMGSR(CONFIG, rngs=None))
    x = jnp.asarray(images(0, 1, 16, 16, 3))
    encode = nnx.jit(lambda model, x, key=None: model.encode(x, key))
    mode = encode(model, x)
    np.testing.assert_array_equal(mode, encode(model, x))
    sample = encode(model, x, jax.random.key(0))
    np.testing.assert_array_equal(sample, encode(model, x, jax.random.key(0)))
    assert relative_error(sample, mode) > 1e-3
    assert relative_error(model.encode(x, jax.random.key(1)), sample) > 1e-3


def test_a_mid_timestep_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"within 0 \.\. 999, not 1000"):
        OMGSRConfig(CONFIG.vae, CONFIG.backbone, DDPM(), 1000, {})
