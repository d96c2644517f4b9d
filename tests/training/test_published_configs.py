"""Every value of the published recipes, with where it was published.

v1 is wuer5/OMGSR at 86297b2, v2 its head 8996613; a file of them is named by its path there. The
paper is the first one, of which there are a section, an equation or a figure.
"""

import importlib.util
from pathlib import Path

import pytest

from conversion.recipes import FLUX_DEV, RECIPES, SD21_BASE, SD_TURBO
from omgsr_jax.models.lora import FLUX_TARGETS, SD_TARGETS
from omgsr_jax.training.config import from_dict

_CONFIGS = Path(__file__).parents[2] / "configs"
_PROMPT = (
    "A high-resolution, 8K, ultra-realistic image with sharp focus, vibrant colors, and natural "
    "lighting."
)
_PAPER = "paper, section 4, Datasets and Settings"
_S1, _F1_512, _F1_1024 = (f"v1: configs/omgsr_{name}.yml" for name in ("s_512", "f_512", "f_1024"))
_S2, _F2 = "v2: configs/omgsr_s_512.yml", "v2: configs/omgsr_f_1024.yml"

# Everything that all of them say alike.
_ADAM = {
    "optimizer.beta1": 0.9,
    "optimizer.beta2": 0.999,
    "optimizer.weight_decay": 1e-4,
    "optimizer.epsilon": 1e-8,
    "optimizer.clip": 1.0,
    "optimizer.warmup": 500,
    "seed": 123,
}
_TOKEN = "v1: vision_aided_loss_v2/cv_discriminator.py, cvmodel.py"
_TOWER = "v2: dinov3_gan/dinov3_convnext_disc.py"
_V1_JUDGE = {
    "discriminator.backbone": ("dinov2", _TOKEN),
    "discriminator.heads": ("token", _TOKEN),
    "discriminator.levels": ((-8, -4, -1), _TOKEN),
    "discriminator.width": (128, _TOKEN),
    "discriminator.image_size": (518, _TOKEN),
}
_V2_JUDGE = {
    "discriminator.backbone": ("dinov3_convnext", _TOWER),
    "discriminator.heads": ("tower", _TOWER),
    "discriminator.levels": ((0, 1, 2), _TOWER),
    "discriminator.image_size": (None, _TOWER),
    "discriminator.chunk": (None, _TOWER),
}
_V1_LOSSES = {
    "losses.ldr": (5.0, "v1: lambda_ldr of configs/*.yml"),
    "losses.mse": (2.0, "v1: lambda_mse of configs/*.yml"),
    "losses.gan": (0.5, "v1: lambda_gan of configs/*.yml"),
}
_OC_LPIPS = {"losses.oc_lpips": (5.0, "v1: lambda_lpips of configs/*.yml; paper, Eq. 16")}
_V2_LOSSES = {
    "losses.ldr": (5.0, "v2: lambda_LRR of configs/*.yml"),
    "losses.l1": (0.5, "v2: lambda_L1 of configs/*.yml"),
    "losses.dv3cd": (5.0, "v2: lambda_Dv3D of configs/*.yml"),
    "losses.gan": (0.5, "v2: lambda_GAN of configs/*.yml"),
}


def _batch(images: int, source: str) -> dict:
    """train_batch_size x gradient_accumulation_steps of a config x num_processes of its script."""
    return {"data.batch_size": (images, source)}


# Of each config: its values by their names, each with its source.
PUBLISHED = {
    "omgsr_s_512": {
        **_V1_LOSSES, **_OC_LPIPS, **_V1_JUDGE,
        "model.mid_timestep": (195, f"{_S1}; paper, Fig. 8"),
        "model.encoder_rank": (16, f"{_S1}; {_PAPER}"),
        "model.backbone_rank": (64, f"{_PAPER}; {_S1} has 32"),
        "optimizer.learning_rate": (2e-5, f"{_S1}; {_PAPER}"),
        "data.resolution": (512, _S1),
        "data.degradation": (512, "v1: dataloader/params_realesrgan.yml"),
        "discriminator.chunk": (None, "v1: OC of train_omgsr_s.py; paper, Fig. 5"),
        "run.steps": (50_000, f"{_S1}; paper, Fig. 12 trains 33k"),
        **_batch(1 * 4 * 2, f"{_S1}, train_omgsr_s_512.sh; {_PAPER}"),
    },
    "omgsr_s_512_oc_dists": {
        **_V1_LOSSES, **_V1_JUDGE,
        "losses.oc_ea_dists": (5.0, f"{_S1}: lambda_ea_dists"),
        "model.mid_timestep": (195, _S1),
        "model.encoder_rank": (16, _S1),
        "model.backbone_rank": (32, _S1),
        "optimizer.learning_rate": (2e-5, _S1),
        "data.resolution": (512, _S1),
        "data.degradation": (512, "v1: dataloader/params_realesrgan.yml"),
        "discriminator.chunk": (None, "v1: OC of train_omgsr_s.py"),
        "run.steps": (50_000, _S1),
        **_batch(1 * 4 * 2, f"{_S1}, train_omgsr_s_512.sh"),
    },
    "omgsr_s_512_dinov3": {
        **_V2_LOSSES, **_V2_JUDGE,
        "model.mid_timestep": (273, _S2),
        "model.encoder_rank": (16, _S2),
        "model.backbone_rank": (32, _S2),
        "optimizer.learning_rate": (5e-5, _S2),
        "data.resolution": (512, _S2),
        "data.degradation": (512, "v2: dataset/params_realesrgan.yml"),
        "discriminator.layout": (512, f"{_TOWER}; resolution of {_S2}"),
        "run.steps": (6000, _S2),
        **_batch(1 * 4 * 4, f"{_S2}, train_omgsr_s_512.sh"),
    },
    "omgsr_f_512": {
        **_V1_LOSSES, **_OC_LPIPS, **_V1_JUDGE,
        "model.mid_timestep": (295, _F1_512),
        "model.encoder_rank": (64, f"{_F1_512}; {_PAPER}"),
        "model.backbone_rank": (64, f"{_F1_512}; {_PAPER}"),
        "optimizer.learning_rate": (2e-5, f"{_F1_512}; {_PAPER}"),
        "data.resolution": (512, _F1_512),
        "data.degradation": (512, "v1: dataloader/params_realesrgan.yml"),
        "discriminator.chunk": (None, "v1: OC of train_omgsr_f.py; paper, Fig. 5"),
        "run.steps": (50_000, _F1_512),
        **_batch(1 * 4 * 2, f"{_F1_512}, train_omgsr_f_512.sh; {_PAPER}"),
    },
    "omgsr_f_1024": {
        **_V1_LOSSES, **_OC_LPIPS, **_V1_JUDGE,
        "model.mid_timestep": (295, _F1_1024),
        "model.encoder_rank": (64, _F1_1024),
        "model.backbone_rank": (64, _F1_1024),
        "optimizer.learning_rate": (5e-5, _F1_1024),
        "data.resolution": (1024, _F1_1024),
        "data.degradation": (1024, "v1: dataloader/realesrgan.py"),
        "discriminator.chunk": (518, "v1: OC of train_omgsr_f.py; paper, Eq. 15"),
        "run.steps": (25_000, _F1_1024),
        **_batch(1 * 4 * 2, f"{_F1_1024}, train_omgsr_f_1024.sh"),
    },
    "omgsr_f_1024_dinov3": {
        **_V2_LOSSES, **_V2_JUDGE,
        "model.mid_timestep": (244, _F2),
        "model.encoder_rank": (64, _F2),
        "model.backbone_rank": (64, _F2),
        "optimizer.learning_rate": (5e-5, _F2),
        "data.resolution": (1024, _F2),
        "data.degradation": (1024, "v2: dataset/realesrgan.py"),
        "discriminator.layout": (1024, f"{_TOWER}; resolution of {_F2}"),
        "run.steps": (6000, _F2),
        **_batch(1 * 4 * 2, f"{_F2}, train_omgsr_f_1024.sh"),
    },
}  # fmt: skip


def _config(name):
    path = _CONFIGS / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return from_dict(module.get_config().to_dict()), module.__doc__


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_config_has_every_published_value(name):
    config, _ = _config(name)
    expected = PUBLISHED[name] | {key: (value, "all configs/*.yml") for key, value in _ADAM.items()}
    wrong = []
    for key, (value, source) in expected.items():
        found = config
        for part in key.split("."):
            found = getattr(found, part)
        if found != value:
            wrong.append(f"{key} is {found!r}, published as {value!r} ({source})")
    assert not wrong
    losses = {key.removeprefix("losses.") for key in expected if key.startswith("losses.")}
    assert set(config.losses.active) == losses


# The base, its t_m and prompt, the published size and ranks: sd_path or flux_path, mid_timestep,
# fixed_prompt and resolution of the version's configs. v1's prompt is also that of its commands.
_RECIPES = {
    "omgsr-s-512-v1": (SD_TURBO, 195, _PROMPT, 512, 16, (32, 64)),
    "omgsr-s-512-v2": (SD21_BASE, 273, "", 512, 16, (32,)),
    "omgsr-f-512-v1": (FLUX_DEV, 295, _PROMPT, 512, 64, (64,)),
    "omgsr-f-1024-v1": (FLUX_DEV, 295, _PROMPT, 1024, 64, (64,)),
    "omgsr-f-1024-v2": (FLUX_DEV, 244, "", 1024, 64, (64,)),
}


def test_recipes_have_the_published_bases_prompts_and_ranks():
    found = {
        r.name: (r.base, r.mid_timestep, r.prompt, r.process_size, r.encoder_rank, r.backbone_ranks)
        for r in RECIPES
        if r.name.startswith("omgsr-")
    }
    assert found == _RECIPES
    for recipe in (recipe for recipe in RECIPES if recipe.name in _RECIPES):
        assert ("86297b2" if recipe.name.endswith("v1") else "8996613") in recipe.code


@pytest.mark.parametrize("name", [name for name in PUBLISHED if "dinov3" not in name])
def test_the_commands_of_v1s_configs_ask_for_its_prompt(name):
    _, described = _config(name)
    assert _PROMPT in " ".join(described.replace("\\\n", "").split()) or "--prompt" not in described


def test_adapters_are_on_the_published_layers():
    """set_vae_encoder_lora and set_unet_lora of train_omgsr_s.py, set_flux_transformer_lora of
    train_omgsr_f.py, at both commits."""
    convolutions = ("conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out")
    assert set(SD_TARGETS) == {*convolutions, "to_k", "to_q", "to_v", "to_out.0"}
    attention = ("to_k", "to_q", "to_v", "to_out.0", "add_k_proj", "add_q_proj", "add_v_proj")
    assert set(FLUX_TARGETS) == {
        "x_embedder", "attn.to_add_out", *(f"attn.{name}" for name in attention),
        "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2",
    }  # fmt: skip
