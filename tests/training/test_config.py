"""Configs: files, arguments, and what is said about wrong ones."""

import importlib.util
from pathlib import Path

import pytest

from omgsr_jax.errors import InputError
from omgsr_jax.training.config import OptimizerConfig, RunConfig, TrainConfig, from_dict, read
from omgsr_jax.training.pretrain import PretrainConfig
from omgsr_jax.training.state import learning_rate
from tests.training.runs import SETTINGS, smallest

_CONFIGS = Path(__file__).parents[2] / "configs"
_BASE = _CONFIGS / "nano_base.py"
_FILES = sorted(set(_CONFIGS.glob("*.py")) - {_BASE})


def _get_config(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert "python scripts/train" in module.__doc__
    return module.get_config


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_every_config_file_is_a_run(path):
    config = _get_config(path)()
    assert config.name == path.stem
    assert from_dict(config.to_dict()).losses.active


def test_the_base_of_nano_is_a_prior():
    assert read(PretrainConfig, _get_config(_BASE)().to_dict()).name == "nano_prior"


def test_the_learning_rate_rises_stays_and_falls_to_nothing():
    rate = learning_rate(OptimizerConfig(learning_rate=2.0, warmup=4), RunConfig(20, cooldown=10))
    assert [float(rate(step)) for step in (0, 2, 4, 10, 15, 20)] == [0, 1, 2, 2, 1, 0]


def test_published_recipes_have_the_published_weights():
    weights = {path.stem: from_dict(_get_config(path)().to_dict()).losses.active for path in _FILES}
    assert weights["omgsr_s_512"] == {"ldr": 5, "mse": 2, "oc_lpips": 5, "gan": 0.5}
    assert weights["omgsr_s_512_dinov3"] == {"ldr": 5, "l1": 0.5, "dv3cd": 5, "gan": 0.5}
    assert weights["omgsr_f_512"] == weights["omgsr_f_1024"] == weights["omgsr_s_512"]
    assert weights["omgsr_f_1024_dinov3"] == weights["omgsr_s_512_dinov3"]
    assert weights["omgsr_z_1024"] == weights["omgsr_s_512_dinov3"]
    assert weights["omgsr_s_512_oc_dists"] == {"ldr": 5, "mse": 2, "oc_ea_dists": 5, "gan": 0.5}


def test_arguments_are_the_ablations():
    get_config = _get_config(next(path for path in _FILES if path.stem == "omgsr_s_512"))
    config = from_dict(get_config("t=999,no_gan").to_dict())
    assert config.model.mid_timestep == 999
    assert "gan" not in config.losses.active
    assert config.name == "omgsr_s_512:t=999,no_gan"
    for wrong in ("no_dv3cd", "t=", "fast"):
        with pytest.raises(InputError, match="no_oc_lpips"):
            get_config(wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discriminator": {"relativistic": True, "chunk": 16}}, "judges whole images"),
        ({"discriminator": {"heads": "unet"}}, r"takes one level .*levels is \(-8, -4, -1\)"),
        (
            {"discriminator": {"heads": "unet", "levels": (0,)}, "data": {"resolution": 20}},
            "multiple of 8; .*resolution is 20",
        ),
        ({"discriminator": {"backbone": "latents"}}, "relativistic to True"),
        (
            {"discriminator": {"backbone": "latents", "relativistic": True}},
            "image_size is 518, .*set it to None",
        ),
    ],
)
def test_what_a_discriminator_cannot_judge_is_said(change, message):
    with pytest.raises(InputError, match=message):
        from_dict({"losses": {"gan": 0.1}, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimiser": {}}, r"did you mean config\.optimizer"),
        ({"optimizer": {"learning_rat": 1.0}}, r"did you mean config\.optimizer\.learning_rate"),
        ({"optimizer": {"learning_rate": "fast"}}, "'fast', expected float"),
        ({"data": {"batch_size": 2.5}}, "2.5, expected int"),
        ({"data": {"sources": "photos"}}, "'photos', expected tuple"),
        ({"seed": True}, "True, expected int"),
        ({"quirks": "published"}, '"v1" .* or "v2" .* not \'published\''),
        ({"model": {"precision": "fp16"}}, "'fp32', 'bf16'"),
        ({"model": {"timestep_spread": -1}}, "timestep_spread is -1"),
        ({"run": {"steps": 0}}, "1 or more"),
        ({"run": {"steps": 5, "cooldown": 6}}, "run.cooldown is 6, expected 0 to run.steps, 5"),
        ({"losses": {"detail": 1.0}, "data": {"resolution": 12}}, "windows of 16 px, .* is 12"),
        ({"validation": {"images": 0}}, r"1 or more: {'validation.images': 0}"),
        ({"validation": {"shown": -1}}, r"1 or more: {'validation.shown': -1}"),
        ({"run": {"resume": "best"}}, r"run.resume is 'best', expected one of 'latest', 'last_w"),
    ],
)
def test_unknown_and_mistyped_settings_are_named(change, message):
    with pytest.raises(InputError, match=message):
        from_dict(change)


def test_a_config_survives_its_own_dict():
    config = smallest()
    assert from_dict(config.to_dict()) == config
    assert from_dict(SETTINGS) == config
    assert from_dict({}) == TrainConfig()
