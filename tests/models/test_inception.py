"""FID's Inception against a PyTorch build of the same network, on the same random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conversion.inception import read_inception
from omgsr_jax.errors import InputError
from omgsr_jax.models import inception

torch = pytest.importorskip("torch")
import safetensors.torch as safetensors_torch  # noqa: E402

from tests.models.torch_inception import random_torch  # noqa: E402


@pytest.fixture(scope="module")
def reference():
    return random_torch()


@pytest.fixture(scope="module")
def state(reference):
    """As the published file has it: with the classifier over 1008 classes."""
    classifier = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    return reference.state_dict() | classifier


@pytest.fixture(scope="module")
def weights_file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(state, path)
    return path


def first_difference(reference, model, x):
    """The name of the first block whose output differs when both are given torch's input to it."""
    pools = {"Mixed_7b": inception.average_pool, "Mixed_7c": lambda y: inception.max_pool(y, 1, 1)}
    for name, block in reference.named_children():
        with torch.no_grad():
            after = block(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        if hasattr(model, name):
            extra = {"pooled": pools[name](jnp.asarray(x))} if name in pools else {}
            ours = np.asarray(getattr(model, name)(jnp.asarray(x), **extra))
            if np.abs(ours - after).max() > 1e-5 * np.abs(after).max():
                return name
        x = after
    return "none of the blocks: look at the pools between them, and at the mean"


@pytest.mark.slow
def test_features_match_torch(reference, weights_file):
    x = np.random.default_rng(0).uniform(-1, 1, (2, 299, 299, 3)).astype("f4")
    with torch.no_grad():
        expected = reference(torch.from_numpy(x).permute(0, 3, 1, 2)).mean((2, 3)).numpy()
    model = read_inception(weights_file, allow_pickle=True)
    features = np.asarray(jax.jit(model)(x))
    assert features.shape == (2, inception.FEATURES)
    # fp32 convolutions summed in another order, 94 layers deep
    error = np.abs(features - expected).max() / np.abs(expected).max()
    assert error < 1e-5, f"first differs: {first_difference(reference, model, x)}"


def test_the_published_pickle_is_read_only_when_asked(weights_file):
    with pytest.raises(InputError, match="is a pickle"):
        read_inception(weights_file)


def test_safetensors_are_read(state, tmp_path):
    path = tmp_path / "inception.safetensors"
    safetensors_torch.save_file(dict(state), path)
    variance = read_inception(path).Conv2d_1a_3x3.bn.running_var[...]
    np.testing.assert_array_equal(variance, state["Conv2d_1a_3x3.bn.running_var"].numpy())


def test_one_error_lists_every_key_that_does_not_fit(state, tmp_path):
    broken = dict(state)
    broken.pop("Mixed_5b.branch1x1.conv.weight")
    broken["Mixed_9z.conv.weight"] = torch.zeros(3)
    broken["Conv2d_1a_3x3.bn.bias"] = torch.zeros(7)
    safetensors_torch.save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(InputError, match="not hold the weights of FID's Inception") as caught:
        read_inception(tmp_path / "broken.safetensors")
    for expected in (
        "1 key missing:\n    Mixed_5b.branch1x1.conv.weight",
        "1 key not known here:\n    Mixed_9z.conv.weight",
        "Conv2d_1a_3x3.bn.bias: (7,), expected (32,)",
    ):
        assert expected in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no file .*absent\.safetensors"):
        read_inception(tmp_path / "absent.safetensors")
