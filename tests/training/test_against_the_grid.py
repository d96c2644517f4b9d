"""What training has against the lattice of transformers: a discriminator of latents, shifts."""

import dataclasses

import jax
import numpy as np
import pytest

from omgsr_jax.architectures import ARCHITECTURES
from omgsr_jax.cost.flops import step_flops
from omgsr_jax.errors import InputError
from omgsr_jax.models.flux import FluxConfig
from omgsr_jax.models.pixel_vae import PixelVAEConfig
from omgsr_jax.training.blueprint import Blueprint
from omgsr_jax.training.run import Run
from omgsr_jax.weights import variables
from tests.training.runs import batches, random_base, smallest

_OF_LATENTS = {
    "backbone": "latents", "heads": "token", "width": 4, "levels": (0, 1), "image_size": None,
    "relativistic": True,
}  # fmt: skip


def _blueprint(architecture, discriminator=None, **changes):
    model = {"architecture": architecture, **changes.pop("model", {})}
    judged = {**_OF_LATENTS, **(discriminator or {})}
    return Blueprint.of(smallest(model=model, discriminator=judged, **changes))


@pytest.mark.parametrize(
    ("architecture", "levels"),
    [("smallest", (0,)), ("smallest-pixels", (-1,)), ("smallest-flux", (0, 1)),
     ("smallest-z-image", (0, 1))],
)  # fmt: skip
def test_latents_are_judged_through_every_backbone(architecture, levels):
    blueprint = _blueprint(architecture, {"levels": levels})
    assert blueprint.judged_shape[-1] == blueprint.generator_config.vae.latent_channels
    decoders = {name.split(".")[2] for name in blueprint.heads if ".decoder." in name}
    assert len(decoders) == len(levels)
    # It has no weights besides its heads: those that it looks through are the generator's own.
    looked_through = variables(blueprint.discriminator.backbone)
    assert set(looked_through) == set(blueprint.frozen)
    assert not blueprint.networks


def test_its_arithmetic_is_counted():
    assert step_flops(_blueprint("smallest-flux", {"levels": (0,)})).total > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discriminator": {"levels": (2,)}}, "latents has 2 feature maps"),
        ({"discriminator": {"heads": "unet", "levels": (0,)}}, "those of latents have 4 x 4"),
    ],
)
def test_heads_that_do_not_fit_the_latents_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        _blueprint("smallest-flux", **change)


def test_a_backbone_without_patches_has_nothing_to_shift():
    with pytest.raises(InputError, match=r"model\.shifts .* takes latents one by one"):
        Blueprint.of(smallest(model={"shifts": True}))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A FLUX of a few weights behind nano's kind of VAE, as a converted model."""
    generator = dataclasses.replace(
        ARCHITECTURES["nano-dit"],
        vae=PixelVAEConfig(latent_channels=4, branch_width=4),
        backbone=FluxConfig(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8,
            num_attention_heads=1, joint_attention_dim=32, pooled_projection_dim=32,
            guidance_embeds=False, axes_dims_rope=(2, 2, 4),
        ),
    )  # fmt: skip
    out = tmp_path_factory.mktemp("grid") / "base"
    return out, random_base(out, generator, 16)


@pytest.fixture(scope="module")
def run(base):
    """Everything against the grid at once."""
    model = {"path": str(base[0]), "architecture": "", "shifts": True, "whole": ("backbone.",)}
    model |= {"encoder_rank": 0, "backbone_rank": 0}
    losses = {"ldr": 0, "mse": 0, "features": 0, "l1": 1, "frequencies": 0.1, "gan": 0.1}
    return Run.of(
        smallest(
            model=model,
            losses=losses,
            discriminator={**_OF_LATENTS, "levels": (0,)},
            data={"resolution": 32},
        ),
        jax.devices()[:1],
    )


def test_a_step_trains_backbone_and_heads_and_judges_by_the_base(run, base):
    frozen, state = run.frozen(), run.start()
    start = jax.device_get(state)
    (batch,) = batches(1, resolution=32)
    end, metrics = jax.device_get(run.step(state, frozen, jax.device_put(batch)))
    metrics = {name: float(value) for name, value in metrics.items() if name != "ok"}
    assert {"l1", "frequencies", "gan", "discriminator"} <= set(metrics)
    assert np.isfinite(list(metrics.values())).all()
    for part in ("generator", "discriminator"):
        before, after = getattr(start, part), getattr(end, part)
        still = [name for name in before if not np.abs(after[name] - before[name]).max() > 0]
        # Some of the text's weights reach nothing, as the last block has no text behind it.
        assert not [name for name in still if "add" not in name and "context" not in name], still
    # The backbone is trained, and what is looked through stays as it was.
    for name, array in base[1].items():
        if name.startswith("backbone."):
            np.testing.assert_array_equal(frozen[name], array)
