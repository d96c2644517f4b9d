"""Z-Image folders and their adapters, to a converted model and back."""

import jax
import numpy as np
import pytest
import torch
from diffusers import ZImageTransformer2DModel
from peft import LoraConfig, PeftModel

from conversion.convert import convert
from conversion.export import export
from conversion.parity.arrays import to_nchw, to_nhwc
from conversion.parity.inference import TorchPipeline, compare_stages
from omgsr_jax import converted
from omgsr_jax.cli.info import describe
from omgsr_jax.errors import InputError
from omgsr_jax.inference.prepare import for_inference
from omgsr_jax.models import lora
from omgsr_jax.models.lora import LoRASpec
from omgsr_jax.models.z_image import Z_IMAGE_TARGETS, ZImage, ZImageConfig
from omgsr_jax.weights import variables
from tests.helpers import images, relative_error, run_readme

from .conftest import SAID


def test_the_targets_wrap_the_layers_that_peft_wraps():
    with torch.device("meta"):
        theirs = ZImageTransformer2DModel()
    targets = list(Z_IMAGE_TARGETS)
    peft_model = PeftModel(theirs, LoraConfig(r=2, lora_alpha=2, target_modules=targets))
    wrapped = {
        name.removeprefix("base_model.model.")
        for name, module in peft_model.named_modules()
        if hasattr(module, "lora_A")
    }
    assert len(wrapped) == 239
    apart = ZImage(ZImageConfig(), scan=False, rngs=None)
    assert set(lora.targeted(apart, LoRASpec(2, 2, Z_IMAGE_TARGETS))) == wrapped
    stacked = ZImage(ZImageConfig(), rngs=None)
    assert lora.inject(stacked, LoRASpec(2, 2, Z_IMAGE_TARGETS), expected=239, rngs=None) == 239


def test_the_step_agrees_with_pytorch(z_base, z_adapter, z_model):
    z = np.random.default_rng(0).standard_normal((2, 8, 12, 16), np.float32)
    prompt = converted.read_prompt(z_model)
    pipeline = TorchPipeline(z_base, z_adapter, SAID["mid_timestep"], prompt)
    with torch.no_grad():
        theirs = to_nhwc(pipeline.predictor.clean(to_nchw(z), pipeline.predict(to_nchw(z))))
    model = for_inference(converted.read(z_model), "fp32")
    assert relative_error(jax.jit(model.one_step)(z), theirs) <= 1e-5


@pytest.mark.slow
def test_every_stage_agrees_with_pytorch(z_base, z_adapter, z_model):
    found = compare_stages(z_base, z_adapter, z_model, images(0, 2, 32, 48, 3))
    print(
        {row: found.errors(*row) for row in (("fp32", "torch_fp64"), ("torch_fp32", "torch_fp64"))}
    )
    assert max(found.errors("fp32", "torch_fp64").values()) <= 1e-5
    ours, theirs = (found.errors(who, "torch_fp64") for who in ("bf16", "torch_bf16"))
    assert all(ours[stage] <= 2 * theirs[stage] for stage in ours), (ours, theirs)


def test_a_base_without_a_recipe_asks_for_what_a_recipe_would_say(z_base, tmp_path):
    with pytest.raises(InputError, match="say --prompt and --mid-timestep and --process-size"):
        convert(str(z_base), tmp_path / "out")


def test_adapters_of_flux_are_refused(z_base, z_adapter, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name, here in (
        ("vae_encoder_adapter", "vae_encoder_adapter"),
        ("z_image_adapter", "flux_adapter"),
    ):
        (adapter / here).symlink_to(z_adapter / name)
    with pytest.raises(InputError, match=r"flux_adapter is for a FluxTransformer2DModel"):
        convert(str(z_base), tmp_path / "out", adapter=str(adapter), **SAID)


def test_the_card_says_what_went_in(z_model):
    card = converted.read_card(z_model)
    assert card.generator.backbone.num_layers == 2
    assert card.generator.process.base_shift == card.generator.process.max_shift
    assert card.origin.license == ""  # not that of FLUX, whose files look alike
    tokens = len("user\nsharp focus\nassistant\n") + 3  # and the marks
    assert card.generator.prompt_shapes == {"context": (tokens, 48)}
    assert card.sources.keys() >= {"tokenizer/tokenizer.json", "scheduler/scheduler_config.json"}
    assert sum(name.startswith("transformer/") and "-of-" in name for name in card.sources) > 2
    described = describe(z_model)
    assert described["backbone"].startswith("z_image")
    assert "on 29 layers" in described["backbone LoRA"]


def test_convert_export_convert_is_bitwise_stable(z_model, tmp_path, monkeypatch):
    out = tmp_path / "exported"
    export(z_model, out)
    convert(str(out), tmp_path / "again", adapter=str(out))
    first, again = (variables(converted.read(d)) for d in (z_model, tmp_path / "again"))
    assert first.keys() == again.keys()
    for name in first:
        np.testing.assert_array_equal(first[name][...], again[name][...], err_msg=name)
    cards = [converted.read_card(d).to_json() for d in (z_model, tmp_path / "again")]
    assert {**cards[0], "sources": None} == {**cards[1], "sources": None}

    # Diffusers has a pipeline of it.
    monkeypatch.chdir(out)
    pipe = run_readme(out)
    adapted = {name for name, _ in pipe.transformer.named_parameters() if "lora_A" in name}
    assert (type(pipe).__name__, len(adapted)) == ("ZImagePipeline", 29)
