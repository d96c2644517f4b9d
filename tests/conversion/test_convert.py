"""Conversion there and back: what comes out is what PyTorch computes, and it is stable."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from flax import nnx
from transformers import AutoTokenizer, CLIPTextModel

from conversion.convert import convert
from conversion.export import export
from conversion.parity.arrays import to_nhwc
from conversion.parity.inference import TorchPipeline, compare_stages, jax_stages
from omgsr_jax import converted
from omgsr_jax.inference.prepare import for_inference
from omgsr_jax.weights import variables
from tests.helpers import images, relative_error, run_readme


def test_converted_model_agrees_with_pytorch_at_every_stage(tiny_base, tiny_adapter, tiny_model):
    x = images(0, 2, 64, 96, 3)
    parity = compare_stages(tiny_base, tiny_adapter, tiny_model, x, precisions=["fp32"])
    # Errors add up from stage to stage, hence more than the 1e-5 of a single network.
    for reference in ("torch_fp32", "torch_fp64"):
        errors = parity.errors("fp32", reference)
        assert max(errors.values()) <= 2e-5, (reference, errors)
        assert parity.psnr("fp32", reference) >= 90


@pytest.mark.slow
def test_in_bf16_no_stage_loses_twice_what_pytorch_loses(tiny_base, tiny_adapter, tiny_model):
    parity = compare_stages(tiny_base, tiny_adapter, tiny_model, images(0, 2, 64, 96, 3))
    ours, theirs = (parity.errors(who, "torch_fp64") for who in ("bf16", "torch_bf16"))
    assert all(ours[stage] <= 2 * theirs[stage] for stage in ours), (ours, theirs)


def test_prompt_embeddings_are_those_of_transformers(tiny_base, tiny_model):
    card = converted.read_card(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base / "tokenizer")
    ids = tokenizer(card.prompt, padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = CLIPTextModel.from_pretrained(tiny_base / "text_encoder")(ids.input_ids)[0]
    ours = converted.read_prompt(tiny_model)["context"]
    assert relative_error(ours, expected[0].numpy()) <= 1e-5


def test_the_recipe_of_the_base_fills_in_what_is_not_said(tiny_model):
    card = converted.read_card(tiny_model)
    assert (card.generator.mid_timestep, card.process_size, card.color) == (195, 512, "adain")
    assert card.prompt.startswith("A high-resolution, 8K")
    assert card.sources.keys() >= {
        "unet/diffusion_pytorch_model.safetensors",
        "tokenizer/vocab.json",
        "unet_lora_adapter/adapter_model.safetensors",
    }


def test_alpha_bar_is_that_of_the_checkpoints_scheduler(tiny_base, tiny_model):
    process = converted.read_card(tiny_model).generator.process
    expected = DDPMScheduler.from_pretrained(tiny_base / "scheduler").alphas_cumprod.numpy()
    np.testing.assert_allclose(process.alpha_bar(np.arange(1000)), expected, rtol=2e-6)


def test_convert_export_convert_is_bitwise_stable(tiny_model, tmp_path):
    export(tiny_model, tmp_path / "exported")
    convert(str(tmp_path / "exported"), tmp_path / "again", adapter=str(tmp_path / "exported"))
    first, again = (variables(converted.read(d)) for d in (tiny_model, tmp_path / "again"))
    assert first.keys() == again.keys()
    for name in first:
        np.testing.assert_array_equal(first[name][...], again[name][...], err_msg=name)
    cards = [converted.read_card(d).to_json() for d in (tiny_model, tmp_path / "again")]
    assert {**cards[0], "sources": None} == {**cards[1], "sources": None}


def test_pytorch_loads_what_is_exported_and_computes_the_same(
    tiny_base, tiny_adapter, tiny_model, tmp_path, monkeypatch
):
    out = tmp_path / "exported"
    export(tiny_model, out)
    x = images(3, 1, 32, 32, 3)
    prompt = converted.read_prompt(tiny_model)
    original = TorchPipeline(tiny_base, tiny_adapter, 195, prompt).stages(x)
    exported = TorchPipeline(out, out, 195, prompt).stages(x)
    for stage, values in original.items():
        np.testing.assert_array_equal(values, exported[stage], err_msg=stage)
    # And as the README beside it says, with a pipeline of diffusers.
    monkeypatch.chdir(out)
    image = _one_step(run_readme(out), torch.from_numpy(x).permute(0, 3, 1, 2), prompt["context"])
    assert relative_error(image, original["decode"]) <= 1e-5


@torch.no_grad()
def _one_step(pipe, x, context) -> np.ndarray:
    scale, alpha = pipe.vae.config.scaling_factor, pipe.scheduler.alphas_cumprod[195]
    z_l = pipe.vae.encode(x).latent_dist.mode() * scale
    noise = pipe.unet(z_l, 195, torch.from_numpy(np.array(context))[None]).sample
    z_p = (z_l - (1 - alpha).sqrt() * noise) / alpha.sqrt()
    return to_nhwc(pipe.vae.decode(z_p / scale).sample.clamp(-1, 1))


def test_bf16_conversion_stores_the_base_in_bf16_and_the_adapters_in_fp32(
    tiny_base, tiny_adapter, tmp_path
):
    convert(str(tiny_base), tmp_path / "m", adapter=str(tiny_adapter), precision="bf16")
    for name, leaf in converted.stored_shapes(tmp_path / "m").items():
        fp32 = ".lora_" in name or name.startswith("prompt.")
        assert leaf.dtype == (jnp.float32 if fp32 else jnp.bfloat16), name
    model = for_inference(converted.read(tmp_path / "m"), "bf16")
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype(jnp.bfloat16)}
    image = jax_stages(model, images(0, 1, 32, 32, 3))["decode"]
    assert np.isfinite(image).all()


@pytest.fixture
def variants(tiny_base, tmp_path):
    """The same UNet and VAE as fp16 variant files, and in shards with an index."""
    fp16, sharded = tmp_path / "fp16", tmp_path / "sharded"
    for part, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        module = kind.from_pretrained(tiny_base / part)
        module.save_pretrained(sharded / part, max_shard_size="200KB")
        module.half().save_pretrained(fp16 / part, variant="fp16")
    for folder in (fp16, sharded):
        for part in ("scheduler", "tokenizer", "text_encoder"):
            (folder / part).symlink_to(tiny_base / part)
    return {"fp16": fp16, "sharded": sharded}


def test_sharded_and_fp16_checkpoints_convert_to_the_same_weights(variants, tiny_base, tmp_path):
    out = tmp_path / "converted"
    out.mkdir()
    assert len(list((variants["sharded"] / "unet").glob("*.safetensors"))) > 3
    assert not list((variants["fp16"] / "unet").glob("diffusion_pytorch_model.safetensors"))
    for name, folder in {"single": tiny_base, **variants}.items():
        convert(str(folder), out / name)
    single, sharded, fp16 = (
        variables(converted.read(out / name)) for name in ("single", "sharded", "fp16")
    )
    for name, leaf in single.items():
        np.testing.assert_array_equal(leaf[...], sharded[name][...], err_msg=name)
        expected = leaf[...] if name.startswith("prompt.") else leaf[...].astype(jnp.float16)
        assert fp16[name].dtype == jnp.float32
        np.testing.assert_array_equal(expected, fp16[name][...], err_msg=name)


def test_old_names_of_the_vae_attention_and_of_clip_are_understood(tiny_base, tmp_path):
    from safetensors.torch import load_file, save_file

    base = tmp_path / "old"
    for part in ("unet", "scheduler", "tokenizer"):
        (base / part).parent.mkdir(exist_ok=True)
        (base / part).symlink_to(tiny_base / part)
    renames = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    vae = load_file(tiny_base / "vae" / "diffusion_pytorch_model.safetensors")
    old_vae = {}
    for key, tensor in vae.items():
        for new, old in renames.items():
            key = key.replace(f"attentions.0.{new}", f"attentions.0.{old}")
        old_vae[key] = tensor
    text = load_file(tiny_base / "text_encoder" / "model.safetensors")
    old_text = {f"text_model.{key}": tensor for key, tensor in text.items()}
    old_text["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    for part, stem, tensors in (
        ("vae", "diffusion_pytorch_model", old_vae),
        ("text_encoder", "model", old_text),
    ):
        (base / part).mkdir()
        save_file(tensors, base / part / f"{stem}.safetensors")
        config = json.loads((tiny_base / part / "config.json").read_text())
        (base / part / "config.json").write_text(json.dumps(config))
    convert(str(base), tmp_path / "from_old")
    convert(str(tiny_base), tmp_path / "from_new")
    old, new = (variables(converted.read(tmp_path / name)) for name in ("from_old", "from_new"))
    for name in new:
        np.testing.assert_array_equal(old[name][...], new[name][...], err_msg=name)
