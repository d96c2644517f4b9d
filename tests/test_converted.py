"""A converted model on disk: described, and refused clearly when it is not whole."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from omgsr_jax import cli, converted
from omgsr_jax.cli.info import describe
from omgsr_jax.errors import InputError
from omgsr_jax.inference.prepare import for_inference
from omgsr_jax.models.lora import LoRA
from omgsr_jax.models.paths import get, modules
from omgsr_jax.weights import variables


@pytest.fixture
def model(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


def test_info_tells_what_the_model_is(tiny_model, capsys):
    assert cli.main(["info", str(tiny_model)]) == 0
    text = capsys.readouterr().out
    assert "mid-timestep:   195" in text
    assert "process size:   512 px" in text
    assert "rank 4, alpha 4, on 19 layers" in text
    assert "'A high-resolution, 8K" in text
    assert "unet/diffusion_pytorch_model.safetensors" in text


def test_a_model_is_found_by_a_relative_path(model, monkeypatch, capsys):
    monkeypatch.chdir(model.parent)
    assert cli.main(["info", model.name]) == 0
    assert "mid-timestep:   195" in capsys.readouterr().out
    assert set(variables(converted.read(model.name))) == set(variables(converted.read(model)))
    assert converted.read_vae(model.name).config == converted.read_card(model).generator.vae


def test_parameter_counts_are_those_of_the_checkpoint(tiny_base, tiny_model):
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(tiny_base / "unet")
    millions = sum(weight.numel() for weight in unet.parameters()) / 1e6
    assert f"{millions:.2f} M" in describe(tiny_model)["backbone"]


def test_a_folder_that_is_no_model_is_refused(tmp_path, capsys):
    assert cli.main(["info", str(tmp_path)]) == 1
    assert "it has no omgsr.json. Make one with `omgsr convert`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda card: card | {"format": 99}, "has format 99"),
        (lambda card: {k: v for k, v in card.items() if k != "prompt"}, "is damaged"),
        (lambda card: card | {"generator": {**card["generator"], "mid_timestep": -1}}, "from 0 to"),
    ],
)
def test_a_damaged_card_is_refused(model, edit, expected):
    path = model / converted.CARD
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=expected):
        converted.read_card(model)


def test_weights_that_do_not_fit_the_card_are_refused(model):
    path = model / converted.CARD
    card = json.loads(path.read_text())
    card["generator"]["encoder_lora"] = None
    path.write_text(json.dumps(card))
    with pytest.raises(InputError, match="0 are missing, 38 too many"):
        converted.read(model)


def test_weights_go_where_the_sharding_says(tiny_model):
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    mesh = jax.make_mesh((1,), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec())
    asked = []

    def rule(name):
        asked.append(name)
        return sharding

    weights = variables(converted.read(tiny_model, sharding=rule))
    assert set(asked) == set(weights)
    assert all(leaf[...].sharding == sharding for leaf in weights.values())


def test_a_model_does_not_tell_where_it_was_written(tiny_model):
    parents = str(tiny_model.parent).encode()
    files = [path for path in tiny_model.rglob("*") if path.is_file()]
    assert not [path for path in files if parents in path.read_bytes()]


def test_adapters_on_a_bf16_base_keep_their_digits_where_fp32_is_asked_for(tiny_model):
    model = converted.read(tiny_model)
    expected = {}
    for path, layer in modules(model.backbone):
        if isinstance(layer, LoRA):
            kernel = layer.base_layer.kernel
            kernel.set_value(jnp.asarray(kernel[...], jnp.bfloat16))
            expected[path] = np.asarray(kernel[...], np.float32) + np.asarray(layer.delta())
    assert expected
    merged = for_inference(model, "fp32").backbone
    for path, kernel in expected.items():
        np.testing.assert_allclose(get(merged, path).kernel[...], kernel, rtol=0, atol=1e-6)
