"""FID's Inception against a PyTorch build of the same network, on the same random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omgsr_jax.models import inception

torch = pytest.importorskip("torch")
from tests.models.torch_inception import random_torch  # noqa: E402


@pytest.fixture(scope="module")
def reference():
    return random_torch()


@pytest.fixture(scope="module")
def tensors(reference):
    """As the published file has them: with the classifier over 1008 classes."""
    state = {key: value.numpy() for key, value in reference.state_dict().items()}
    return state | {"fc.weight": np.zeros((1008, 2048), "f4"), "fc.bias": np.zeros(1008, "f4")}


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


def test_features_match_torch(reference, tensors):
    x = np.random.default_rng(0).uniform(-1, 1, (2, 299, 299, 3)).astype("f4")
    with torch.no_grad():
        expected = reference(torch.from_numpy(x).permute(0, 3, 1, 2)).mean((2, 3)).numpy()
    model = inception.build(tensors)
    features = np.asarray(jax.jit(model)(x))
    assert features.shape == (2, inception.FEATURES)
    # fp32 convolutions summed in another order, 94 layers deep
    error = np.abs(features - expected).max() / np.abs(expected).max()
    assert error < 1e-5, f"first differs: {first_difference(reference, model, x)}"


def test_one_error_lists_every_key_that_does_not_fit(tensors):
    broken = dict(tensors)
    broken.pop("Mixed_5b.branch1x1.conv.weight")
    broken["Mixed_9z.conv.weight"] = np.zeros(3, "f4")
    broken["Conv2d_1a_3x3.bn.bias"] = np.zeros(7, "f4")
    with pytest.raises(ValueError, match="3 of its keys") as caught:
        inception.build(broken)
    for expected in (
        "missing Mixed_5b.branch1x1.conv.weight",
        "unknown Mixed_9z.conv.weight",
        "misshapen Conv2d_1a_3x3.bn.bias: (7,), expected (32,)",
    ):
        assert expected in str(caught.value)
