"""Rows, tokens and features divided among simulated devices: the same numbers, none left whole."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omgsr_jax.models.ops import rows

_ROOT = Path(__file__).parents[3]


def _mesh(spatial, axes=("data", "fsdp", "spatial", "tensor")):
    sizes = tuple(spatial if axis == "spatial" else 1 for axis in axes)
    automatic = (jax.sharding.AxisType.Auto,) * len(axes)
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh(sizes, axes, automatic))


def test_devices_share_images_in_training_only():
    assert rows.devices() == 1
    with _mesh(4):
        assert rows.devices() == 4
    with _mesh(4, ("data", "spatial", "tensor")):  # inference's
        assert rows.devices() == 1


def test_every_device_joins_its_shares_of_two_sequences():
    text, image = jnp.arange(4).reshape(1, 4, 1), 10 + jnp.arange(8).reshape(1, 8, 1)
    with _mesh(2):
        both = rows.joined(text, image)
        assert both[0, :, 0].tolist() == [0, 1, 10, 11, 12, 13, 2, 3, 14, 15, 16, 17]
        for part, expected in zip(rows.parted(both, 4), (text, image), strict=True):
            np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize(("spatial", "text"), [(1, 4), (8, 4), (2, 3)])
def test_sequences_that_have_no_even_shares_stand_one_after_the_other(spatial, text):
    first, second = jnp.zeros((1, text, 2)), jnp.ones((1, 8, 2))
    with _mesh(spatial):
        both = rows.joined(first, second)
        np.testing.assert_array_equal(both, jnp.concatenate([first, second], axis=1))
        assert [part.shape[1] for part in rows.parted(both, text)] == [text, 8]


_COMMON = """
import re, sys
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
jax.config.update("jax_default_matmul_precision", "highest")
from omgsr_jax.models.blocks import Attention, Downsample, ResnetBlock, Upsample
from omgsr_jax.models.ops import direct, group_norm, tpu_strips
from omgsr_jax.models.ops.product import product_of_parts
from omgsr_jax.training.config import MeshConfig
from omgsr_jax.training.layout import make_mesh

devices = int(sys.argv[1])
rng = np.random.default_rng(0)
x = rng.standard_normal((1, 128, 12, 16)).astype(np.float32)

def found(function, operands, specs=None, **axes):
    # The compiled text and the result; on one device without specs.
    mesh = make_mesh(MeshConfig(data=1, **axes), jax.devices()[: devices if axes else 1])
    specs = specs or [()] * len(operands)
    shardings = tuple(NamedSharding(mesh, PartitionSpec(*spec)) for spec in specs)
    with jax.set_mesh(mesh):
        compiled = jax.jit(function, in_shardings=shardings).lower(*operands).compile()
        return compiled.as_text(), jax.device_get(compiled(*operands))

def compare(divided, expected):
    for a, b in zip(jax.tree.leaves(divided), jax.tree.leaves(expected), strict=True):
        assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()
"""
_NETWORK = """
class Network(nnx.Module):
    def __init__(self, rngs):
        self.parts = nnx.List([
            ResnetBlock(16, 16, groups=4, eps=1e-5, rngs=rngs),
            Downsample(16, pad_all_sides=False, rngs=rngs),
            Upsample(16, rngs=rngs),
            Downsample(16, pad_all_sides=True, rngs=rngs),
        ])
        self.attend = Attention(16, heads=2, rngs=rngs)

    def __call__(self, x):
        for part in self.parts:
            x = part(x)
        tokens = x.reshape(len(x), -1, 16)
        return jnp.square(tokens + self.attend(tokens)).mean()

x = x[:, :24]
graph, weights = nnx.split(Network(nnx.Rngs(0)))
gradients = jax.value_and_grad(lambda weights, x: nnx.merge(graph, weights)(x), (0, 1))
_, expected = found(gradients, (weights, x))
text, divided = found(gradients, (weights, x), [(), (None, "spatial")], spatial=devices)
compare(divided, expected)
halo = 4
maps = {(int(h), int(w)) for h, w in re.findall(r"f32\\[1,(\\d+),(\\d+),16\\]", text)}
assert maps
for height, width in maps:  # 24 rows of 12 pixels, 12 rows of 6
    whole = 24 if width >= 12 else 12
    assert height <= -(-whole // devices) + halo < whole, maps
"""
_STRIPS = """
def strips(x, kernel, scale):
    norm = group_norm.Norm(4, 1e-5, True)
    y = tpu_strips.convolve(x, kernel, None, padding=((1, 1), (1, 1)))
    return tpu_strips.convolve_doubled(group_norm.by_strips(norm, y, scale, scale), kernel, None)

kernel = rng.standard_normal((3, 3, 16, 16)).astype(np.float32)
scale = np.linspace(0.5, 1.5, 16, dtype=np.float32)
_, expected = found(strips, (x, kernel, scale))
text, divided = found(strips, (x, kernel, scale), [(None, "spatial"), (), ()], spatial=devices)
compare(divided, expected)
assert "all-gather" not in text
"""
_PARTS = """
def product(first, second, kernel):
    return product_of_parts((first, second), kernel)

operands = x[:, :, 0, :8].repeat(3, -1), x[:, :, 1, :8], x[0, :32, 0]
divided = (None, None, "tensor")
text, y = found(product, operands, [divided, divided, (None, "tensor")], tensor=devices)
compare(y, np.concatenate(operands[:2], -1) @ operands[2])
assert "all-gather" not in text
"""
_KERNELS = """
from omgsr_jax.models.layers import Conv

conv, weights = nnx.split(Conv(16, 16, 3, padding=1, rngs=nnx.Rngs(0)))
weights = dict(nnx.to_flat_state(weights))
kernel, bias = (weights[name,][...] for name in ("kernel", "bias"))

def convolved(x, kernel, bias):
    state = nnx.from_flat_state({("kernel",): nnx.Param(kernel), ("bias",): nnx.Param(bias)})
    return nnx.merge(conv, state)(x)

operands = x[:, :4].repeat(2, 0), kernel, bias  # few rows: XLA would add up too often
divided = [("fsdp", "spatial"), (None, None, "fsdp"), ()]
_, expected = found(convolved, operands)
compare(found(convolved, operands, divided, fsdp=2, spatial=devices // 2)[1], expected)
"""


@pytest.mark.parametrize("devices", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_what_devices_share_is_what_one_computes(devices):
    """A network with its gradients: no device has more of a map than its rows and a halo, also
    where they are uneven. Strips, as TPUs have them. Features in parts. Kernels in parts."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    outcome = subprocess.run(
        [sys.executable, "-c", _COMMON + _KERNELS + _STRIPS + _PARTS + _NETWORK, str(devices)],
        cwd=_ROOT,
        env={**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr[-3000:]
