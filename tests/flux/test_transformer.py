"""The FLUX transformer against diffusers, at every block, read by the real converter."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from flax import nnx

from conversion.parity.blocks import block_outputs, compare_blocks
from omgsr_jax.cost.flops import forward_flops
from omgsr_jax.models import flux
from omgsr_jax.models.flux import Flux, FluxConfig
from tests.helpers import assert_blocks_agree, read_network, relative_error

from .conftest import PRESET

TOKENS = 5
T = 0.5


@pytest.fixture(scope="module")
def theirs(flux_base) -> FluxTransformer2DModel:
    return FluxTransformer2DModel.from_pretrained(flux_base / "transformer").eval()


def _inputs(size: tuple[int, int], batch: int = 2) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(1)
    shapes = ((batch, *size, 16), (batch, TOKENS, 48), (batch, 48))
    return tuple(rng.standard_normal(shape, np.float32) for shape in shapes)


def _run_torch(theirs, z, context, pooled, guidance=1.0):
    """What FluxPipeline does around the transformer, for latents b h w c."""
    b, h, w, c = z.shape
    packed = FluxPipeline._pack_latents(torch.tensor(z).permute(0, 3, 1, 2), b, c, h, w)
    ids = FluxPipeline._prepare_latent_image_ids(b, h // 2, w // 2, "cpu", torch.float32)
    with torch.no_grad():
        tokens = theirs(
            hidden_states=packed,
            timestep=torch.full((b,), T),
            guidance=torch.full((b,), guidance),
            pooled_projections=torch.tensor(pooled),
            encoder_hidden_states=torch.tensor(context),
            txt_ids=torch.zeros(TOKENS, 3),
            img_ids=ids,
        ).sample
    latents = FluxPipeline._unpack_latents(tokens, 8 * h, 8 * w, 8)
    return packed, latents.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("size", [(8, 8), (4, 14)], ids=["square", "rectangular"])
def test_every_block_agrees_with_diffusers(flux_base, theirs, size):
    apart = read_network("flux", flux_base / "transformer", scan=False)
    z, context, pooled = _inputs(size)
    result, blocks = block_outputs(
        apart, lambda m, *args: m(args[0], T, *args[1:]), z, context, pooled
    )
    outputs = []
    errors = compare_blocks(
        blocks, theirs, lambda: outputs.append(_run_torch(theirs, z, context, pooled)[1])
    )
    assert_blocks_agree(errors, tolerance=1e-5, at_least=60)
    assert relative_error(result, outputs[0]) <= 1e-5

    stacked = read_network("flux", flux_base / "transformer")
    assert relative_error(jax.jit(stacked)(z, T, context, pooled), outputs[0]) <= 1e-5


def test_packing_is_that_of_the_pipeline(theirs):
    z, context, pooled = _inputs((4, 6))
    packed, _ = _run_torch(theirs, z, context, pooled)
    np.testing.assert_array_equal(flux.pack(jnp.asarray(z)), packed.numpy())
    np.testing.assert_array_equal(flux.unpack(flux.pack(jnp.asarray(z)), (4, 6)), z)


def test_guidance_reaches_the_network(flux_base, theirs):
    ours = read_network("flux", flux_base / "transformer")
    run = jax.jit(lambda guidance, *args: ours(args[0], T, *args[1:], guidance=guidance))
    z, context, pooled = _inputs((4, 4))
    outputs = []
    for guidance in (1.0, 3.5):
        _, expected = _run_torch(theirs, z, context, pooled, guidance)
        outputs.append(run(guidance, z, context, pooled))
        assert relative_error(outputs[-1], expected) <= 1e-5
    assert relative_error(*outputs) > 1e-4


def test_work_of_stacked_blocks_is_what_xla_counts_of_the_same_blocks_apart():
    """At full width, 512 px and 512 tokens."""

    def run(model, z):
        return model(z, T, jnp.zeros((1, 512, 4096)), jnp.zeros((1, 768)))

    def counts(double: int, single: int) -> np.ndarray:
        config = FluxConfig(num_layers=double, num_single_layers=single)
        graph, state = nnx.split(Flux(config, scan=False, rngs=None))
        z = jax.ShapeDtypeStruct((1, 64, 64, 16), jnp.float32)
        lowered = jax.jit(lambda state, z: run(nnx.merge(graph, state), z)).lower(state, z)
        ours = forward_flops(Flux(config, rngs=None), run, z.shape[1:])
        return np.array([lowered.cost_analysis()["flops"], ours.weights + ours.attention])

    ends = counts(1, 1)
    for more in ((2, 1), (1, 2)):
        xla, ours = counts(*more) - ends
        assert abs(xla / ours - 1) < 0.1


@pytest.mark.slow
def test_recomputing_activations_changes_no_gradient():
    cases = [_loss(remat, nnx.Rngs(0)) for remat in (False, True)]
    gradients = [jax.jit(jax.grad(loss))(state) for loss, state in cases]
    kept, recomputed = (jax.flatten_util.ravel_pytree(gradient)[0] for gradient in gradients)
    assert relative_error(recomputed, kept) <= 1e-5


def test_activations_are_recomputed_where_asked_for():
    for remat in (False, True):
        loss, shapes = _loss(remat, rngs=None)
        assert ("remat" in str(jax.make_jaxpr(loss)(shapes))) == remat


def _loss(remat: bool, rngs: nnx.Rngs | None):
    config = FluxConfig(
        num_layers=2, num_single_layers=2, attention_head_dim=4, num_attention_heads=2,
        in_channels=16, joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(0, 2, 2),
    )  # fmt: skip
    args = jnp.ones((1, 4, 4, 4)), T, jnp.ones((1, 3, 8)), jnp.ones((1, 8))
    graph, state = nnx.split(Flux(config, remat=remat, rngs=rngs))
    return lambda state: jnp.mean(jnp.square(nnx.merge(graph, state)(*args))), state


def test_the_preset_has_every_kind_of_block():
    assert PRESET.backbone["num_layers"] > 1
    assert PRESET.backbone["num_single_layers"] > 1
    assert PRESET.backbone["guidance_embeds"]
