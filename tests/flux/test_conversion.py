"""FLUX folders and their adapters, to a converted model and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from peft import LoraConfig, PeftModel

from conversion.convert import convert
from conversion.export import export
from conversion.parity.inference import TorchPipeline, compare_stages
from omgsr_jax import converted
from omgsr_jax.cli.info import describe
from omgsr_jax.inference.prepare import for_inference
from omgsr_jax.models import lora
from omgsr_jax.models.flux import Flux, FluxConfig
from omgsr_jax.models.lora import FLUX_TARGETS, LoRASpec
from omgsr_jax.process import FlowMatching
from omgsr_jax.weights import variables
from tests.helpers import images, relative_error, run_readme


def test_the_published_targets_wrap_the_layers_that_peft_wraps():
    with torch.device("meta"):
        theirs = FluxTransformer2DModel(guidance_embeds=True)
    peft_model = PeftModel(theirs, LoraConfig(r=2, lora_alpha=2, target_modules=list(FLUX_TARGETS)))
    wrapped = {
        name.removeprefix("base_model.model.")
        for name, module in peft_model.named_modules()
        if hasattr(module, "lora_A")
    }
    assert len(wrapped) == 343
    apart = Flux(FluxConfig(), scan=False, rngs=None)
    assert set(lora.targeted(apart, LoRASpec(2, 2, FLUX_TARGETS))) == wrapped
    stacked = Flux(FluxConfig(), rngs=None)
    assert lora.inject(stacked, LoRASpec(2, 2, FLUX_TARGETS), expected=343, rngs=None) == 343
    assert lora.count(stacked) == 343


def test_the_full_size_has_as_many_weights_as_flux():
    with torch.device("meta"):
        theirs = FluxTransformer2DModel(guidance_embeds=True)
    ours = variables(Flux(FluxConfig(), rngs=None))
    size = sum(int(np.prod(leaf.shape)) for leaf in ours.values())
    assert size == sum(weight.numel() for weight in theirs.parameters()) == 11_901_408_320


def test_every_stage_agrees_with_pytorch(flux_base, flux_adapter, flux_model):
    x, prompt = images(0, 2, 32, 48, 3), converted.read_prompt(flux_model)
    correct, published = (
        TorchPipeline(flux_base, flux_adapter, 244, prompt, published=choice).stages(x)
        for choice in (False, True)
    )
    model = for_inference(converted.read(flux_model), "fp32")
    z_l = jax.jit(model.encode)(jnp.asarray(x))
    z_p = jax.jit(model.one_step)(z_l)
    assert relative_error(z_l, correct["encode"]) <= 1e-5
    assert relative_error(z_p, correct["z_P"]) <= 1e-5
    # Errors add up from stage to stage.
    assert relative_error(jax.jit(model.decode)(z_p), correct["decode"]) <= 2e-5

    model.process = model.process.as_published()
    quirky = jax.jit(model.one_step)(z_l)
    assert relative_error(quirky, published["z_P"]) <= 1e-5
    assert relative_error(quirky, z_p) > 2e-5, "the rounding must matter"


@pytest.mark.slow
def test_bf16_loses_no_more_than_pytorchs(flux_base, flux_adapter, flux_model):
    found = compare_stages(flux_base, flux_adapter, flux_model, images(0, 2, 32, 48, 3))
    assert max(found.errors("fp32", "torch_fp64").values()) <= 2e-5
    ours, theirs = (found.errors(who, "torch_fp64") for who in ("bf16", "torch_bf16"))
    assert all(ours[stage] <= 2 * theirs[stage] for stage in ours), (ours, theirs)


def test_the_recipe_of_flux_fills_in_what_is_not_said(flux_model):
    card = converted.read_card(flux_model)
    assert (card.generator.mid_timestep, card.prompt) == (244, "")
    assert card.generator.process == FlowMatching()
    assert card.generator.prompt_shapes == {"context": (24, 48), "pooled": (48,)}
    assert card.sources.keys() >= {
        "tokenizer_2/tokenizer.json",
        "flux_adapter/adapter_model.safetensors",
    }
    assert sum(name.startswith("transformer/") and "-of-" in name for name in card.sources) > 2
    described = describe(flux_model)
    assert described["backbone"].startswith("flux")
    assert "on 34 layers" in described["backbone LoRA"]


def test_convert_export_convert_is_bitwise_stable(
    flux_base, flux_adapter, flux_model, tmp_path, monkeypatch
):
    out = tmp_path / "exported"
    export(flux_model, out)
    convert(str(out), tmp_path / "again", adapter=str(out))
    first, again = (variables(converted.read(d)) for d in (flux_model, tmp_path / "again"))
    assert first.keys() == again.keys()
    for name in first:
        np.testing.assert_array_equal(first[name][...], again[name][...], err_msg=name)
    cards = [converted.read_card(d).to_json() for d in (flux_model, tmp_path / "again")]
    assert {**cards[0], "sources": None} == {**cards[1], "sources": None}

    # Diffusers has a pipeline of it.
    monkeypatch.chdir(out)
    pipe = run_readme(out)
    adapted = {name for name, _ in pipe.transformer.named_parameters() if "lora_A" in name}
    assert (type(pipe).__name__, len(adapted)) == ("FluxPipeline", 34)
    # And PyTorch loads it, with peft's own reader, and computes the same.
    x, prompt = images(3, 1, 16, 16, 3), converted.read_prompt(flux_model)
    original = TorchPipeline(flux_base, flux_adapter, 244, prompt).stages(x)
    for stage, values in TorchPipeline(out, out, 244, prompt).stages(x).items():
        # The same weights; PyTorch's sums depend on how they lie in memory.
        assert relative_error(values, original[stage]) <= 1e-5, stage


@pytest.mark.parametrize(("t", "sigma"), [(244, 0.50511), (295, 0.569595)])
def test_sigmas_are_those_of_the_published_code(t, sigma):
    import math

    unshifted = torch.linspace(1, 0, 1000)[-(t + 1)]
    published = math.exp(1.15) / (math.exp(1.15) + (1 / unshifted - 1))
    process = FlowMatching()
    np.testing.assert_allclose(process.sigma(t), published, rtol=1e-6)
    np.testing.assert_allclose(process.sigma(t), sigma, atol=5e-6)


def test_the_published_conditioning_is_rounded_and_the_step_is_not(flux_base, flux_model):
    process = FlowMatching()
    told = torch.tensor([float(process.sigma(244))]).bfloat16() * 1000
    assert float(1000 * process.as_published().conditioning(244)) == float(told) == 504.0
    assert float(process.conditioning(244)) == float(process.sigma(244))

    model = for_inference(converted.read(flux_model), "fp32")
    z = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 6, 16), np.float32))
    model.process = model.process.as_published()
    velocity = jax.jit(model.predict)(z)
    step = z - process.sigma(244) * velocity
    one_step = jax.jit(model.one_step)(z)
    np.testing.assert_allclose(one_step, step, rtol=0, atol=1e-6)  # fused differently
