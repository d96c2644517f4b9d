"""LPIPS and DISTS of images, through networks in their published layouts, against PyTorch."""

import numpy as np
import pytest
import torch

from omgsr_jax import cli, evaluation
from omgsr_jax.evaluation import Settings, deep
from tests.evaluation.images import photograph, save
from tests.losses import references
from tests.torch_networks import alexnet, vgg16

_WIDTHS = (4, 6, 8, 8, 8)


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return {
        "vgg": vgg16(_WIDTHS),
        "alexnet": alexnet(_WIDTHS),
        "heads": [torch.rand(c) for c in _WIDTHS],
        "alpha": torch.rand(3 + sum(_WIDTHS)),
        "beta": torch.rand(3 + sum(_WIDTHS)),
    }


@pytest.fixture(scope="module")
def perceptual(theirs, tmp_path_factory):
    """The same, saved as torchvision, lpips and DISTS do, and converted by the command."""
    folder = tmp_path_factory.mktemp("weights")
    for file, network in (("vgg16.pth", "vgg"), ("alexnet.pth", "alexnet")):
        state = theirs[network].state_dict()
        torch.save({f"features.{key}": w for key, w in state.items()}, folder / file)
    (folder / "lpips").mkdir()
    heads = {f"lin{i}.model.1.weight": w.view(1, -1, 1, 1) for i, w in enumerate(theirs["heads"])}
    for name in ("vgg", "alex"):
        torch.save(heads, folder / "lpips" / f"{name}.pth")
    weights = {name: theirs[name].view(1, -1, 1, 1) for name in ("alpha", "beta")}
    torch.save(weights, folder / "dists.pt")
    out = folder / "converted"
    argv = ["convert", "--perceptual", str(folder), "--out", str(out), "--allow-pickle"]
    assert cli.main(argv) == 0
    return out


def _alexnet_maps(network, x):
    x, maps = references.normalized(x), []
    for layer in network:
        x = layer(x)
        maps += [x] if isinstance(layer, torch.nn.ReLU) else []
    return maps


def _expected(name, theirs, x, y):
    vgg, heads = theirs["vgg"].double(), [w.double() for w in theirs["heads"]]
    if name == "lpips_vgg":
        return references.lpips(vgg, heads, x, y)
    if name == "dists":
        return references.dists(vgg, theirs["alpha"].double(), theirs["beta"].double(), x, y)
    maps = [_alexnet_maps(theirs["alexnet"].double(), image) for image in (x, y)]
    levels = []
    for weight, a, b in zip(heads, *maps, strict=True):
        a, b = (torch.nn.functional.normalize(m, dim=1) for m in (a, b))
        levels.append(((a - b).square() * weight.view(-1, 1, 1)).sum(1).mean((1, 2)))
    return torch.stack(levels).sum(0)


@pytest.mark.parametrize("name", deep.DISTANCES)
def test_a_distance_agrees_with_pytorch(theirs, perceptual, name):
    hr = np.stack([photograph(i, 72, 96) for i in range(2)])
    sr = np.clip(hr.astype(int) + np.random.default_rng(0).integers(-30, 30, hr.shape), 0, 255)
    sr = sr.astype(np.uint8)
    found = deep.prepare(name, perceptual)(sr, hr)
    x, y = (torch.from_numpy(i.transpose(0, 3, 1, 2) / 127.5 - 1) for i in (sr, hr))
    with torch.no_grad():
        expected = _expected(name, theirs, x, y).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_table_has_them_where_networks_are_given(perceptual, tmp_path):
    hr = save(tmp_path / "hr", {f"{i}.png": photograph(i, 48, 48) for i in range(2)})
    sr = save(tmp_path / "sr", {f"{i}.png": photograph(i + 5, 48, 48) for i in range(2)})
    found = evaluation.run(
        sr, hr, metrics=["lpips", "lpips_vgg", "dists"], settings=Settings(perceptual=perceptual)
    )
    assert not found.not_run
    assert all(np.all(found.systems[0].scores[key] > 0) for key in deep.DISTANCES)


def test_networks_that_are_not_there_are_told(perceptual, theirs, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    state = {f"features.{key}": w for key, w in theirs["vgg"].state_dict().items()}
    torch.save(state, folder / "vgg16.pth")
    only_vgg = tmp_path / "converted"
    argv = ["convert", "--perceptual", str(folder), "--out", str(only_vgg), "--allow-pickle"]
    assert cli.main(argv) == 0
    hr, sr = (save(tmp_path / name, {"0.png": photograph(0, 48, 48)}) for name in ("hr", "sr"))
    found = evaluation.run(
        sr, hr, metrics=["psnr", "dists"], settings=Settings(perceptual=only_vgg)
    )
    assert found.not_run == {"dists": f"{only_vgg} has no dists"}
