"""The folder of perceptual weights: what is recognised, what is refused, and what is read back."""

import json

import numpy as np
import pytest
import torch

from conversion.perceptual import NETWORKS, convert_perceptual
from conversion.tensor_files import write_safetensors
from omgsr_jax import perceptual
from omgsr_jax.errors import InputError
from omgsr_jax.models.alexnet import AlexNetConfig
from omgsr_jax.storage import FORMAT
from tests.torch_networks import alexnet

_WIDTHS = (4, 6, 8, 8, 8)


@pytest.fixture
def source(tmp_path):
    """AlexNet and LPIPS' weights for it, as safetensors."""
    folder = tmp_path / "weights"
    (folder / "lpips").mkdir(parents=True)
    torch.manual_seed(0)
    state = {f"features.{key}": w.numpy() for key, w in alexnet(_WIDTHS).state_dict().items()}
    state["classifier.1.weight"] = np.zeros((2, 2), np.float32)  # of no use here
    write_safetensors(folder / "alexnet.safetensors", state)
    heads = {
        f"lin{i}.model.1.weight": np.full((1, c, 1, 1), i, np.float32)
        for i, c in enumerate(_WIDTHS)
    }
    write_safetensors(folder / "lpips" / "alex.safetensors", heads)
    return folder


def test_every_network_has_a_converter():
    assert list(NETWORKS) == list(perceptual.NETWORKS)


def test_what_is_converted_is_read_back_and_described(source, tmp_path):
    card = convert_perceptual(source, tmp_path / "out")
    assert perceptual.read_card(tmp_path / "out") == card
    assert card.configs["alexnet"] == AlexNetConfig(_WIDTHS)
    assert set(card.sources) == {"alexnet.safetensors", "lpips/alex.safetensors"}
    networks = perceptual.read(tmp_path / "out", ["lpips_alex"], precision="bf16")
    assert set(networks) == {"lpips_alex"}
    for i, weight in enumerate(networks.lpips_alex.lin):
        np.testing.assert_array_equal(weight[...], np.full(_WIDTHS[i], i, np.float32))


def test_the_lpips_packages_own_folder_is_recognised(source, tmp_path):
    (source / "weights" / "v0.1").mkdir(parents=True)
    (source / "lpips" / "alex.safetensors").rename(source / "weights/v0.1/alex.safetensors")
    assert set(convert_perceptual(source, tmp_path / "out").configs) == {"alexnet", "lpips_alex"}


def _pickle(source):
    (source / "alexnet.safetensors").unlink()
    torch.save({"features.0.weight": torch.zeros(1)}, source / "alexnet.pth")


def _twice(source):
    (source / "alexnet-owt.safetensors").write_bytes((source / "alexnet.safetensors").read_bytes())


def _truncate(source):
    whole = (source / "alexnet.safetensors").read_bytes()
    (source / "alexnet.safetensors").write_bytes(whole[:-100])


def _lose_a_layer(source):
    state = {"features.0.weight": np.zeros((4, 3, 11, 11), np.float32)}
    write_safetensors(source / "alexnet.safetensors", state)


def _other_heads(source):
    heads = {f"lin{i}.model.1.weight": np.zeros((1, 5, 1, 1), np.float32) for i in range(5)}
    write_safetensors(source / "lpips" / "alex.safetensors", heads)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_pickle, "alexnet.pth is a pickle.*--allow-pickle"),
        (_twice, "several candidates for alexnet: alexnet-owt.safetensors, alexnet.safetensors"),
        (_truncate, "alexnet.safetensors is truncated"),
        (_lose_a_layer, "is not alexnet: it has no 'features.3.weight'"),
        (_other_heads, "lpips_alex is for another network than the alexnet beside it"),
        (lambda s: (s / "alexnet.safetensors").unlink(), "weighs the channels of alexnet"),
    ],
)
def test_bad_folders_are_refused_and_nothing_is_left_behind(source, tmp_path, spoil, message):
    spoil(source)
    with pytest.raises(InputError, match=message):
        convert_perceptual(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_without_networks_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no perceptual network; looked for .*vgg16"):
        convert_perceptual(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="is not a folder"):
        convert_perceptual(tmp_path / "nowhere", tmp_path / "out")


def test_reading_names_what_is_missing_or_damaged(source, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="--perceptual"):
        perceptual.read(out, ["vgg"])
    convert_perceptual(source, out)
    with pytest.raises(InputError, match="has no vgg; it has alexnet, lpips_alex"):
        perceptual.read(out, ["vgg", "alexnet"])
    content = json.loads((out / perceptual.CARD).read_text())
    (out / perceptual.CARD).write_text(json.dumps(content | {"format": FORMAT + 1}))
    with pytest.raises(InputError, match="has format"):
        perceptual.read(out, ["alexnet"])
