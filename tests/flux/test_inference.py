"""OMGSR-F through the upscaler: whole and in tiles as PyTorch, in 8 bits, on several devices."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import omgsr_jax
from conversion.parity.arrays import psnr
from conversion.parity.inference import TorchPipeline
from omgsr_jax import Upscaler, architectures, converted
from omgsr_jax.errors import InputError
from omgsr_jax.generator import OMGSR
from omgsr_jax.inference.prepare import for_inference
from omgsr_jax.inference.tiling import blend_weights, in_tiles
from omgsr_jax.models import flux, int8
from omgsr_jax.models.layers import Linear
from omgsr_jax.models.stack import Sequence
from omgsr_jax.models.vae import VAEConfig
from tests.helpers import relative_error
from tests.inference.conftest import photo, restored
from tests.inference.torch_tiles import torch_tiled

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def upscaler(flux_model):
    return omgsr_jax.load(flux_model)


@pytest.fixture(scope="module")
def torch_pipelines(flux_base, flux_adapter, flux_model):
    prompt = converted.read_prompt(flux_model)
    return [
        TorchPipeline(flux_base, flux_adapter, 244, prompt, published=published)
        for published in (False, True)
    ]


@pytest.mark.parametrize("published", [False, True])
def test_tiled_equals_pytorch(upscaler, torch_pipelines, published):
    x_l = photo(80, 64)[None].astype(np.float32) / 127.5 - 1
    chosen = upscaler.with_quirks("v2" if published else None)
    (ours,) = restored(chosen, x_l)
    middle = 16 / 2 if published else 15 / 2
    assert psnr(ours, torch_tiled(torch_pipelines[published], x_l, 16, middle)) > 90


def test_the_quirks_of_v2_take_odd_maps_of_flux():
    """136 x 72 px are 17 x 9 latents. The network is replaced by one for which positions count."""
    vae = VAEConfig(
        block_out_channels=(4,) * 4, layers_per_block=1, norm_num_groups=2, latent_channels=16
    )
    config = replace(architectures.named("smallest-flux"), vae=vae)
    generator = OMGSR(config, rngs=nnx.Rngs(0))
    model = Upscaler(generator, 64, color="none").with_quirks("v2")
    (how,) = model.steps((136, 72), scale=1)
    assert (how.canvas.padded, how.canvas.latents, how.canvas.tile) == ((136, 72), (17, 9), (8, 8))
    assert model.upscale(photo(136, 72), scale=1).size == (72, 136)

    position = jnp.arange(8.0)[:, None] + 10 * jnp.arange(8.0)
    found = in_tiles(lambda tiles: tiles + position[..., None], jnp.zeros((1, 17, 9, 1)), how.tiles)
    weights, total, heaviness = blend_weights((8, 8), 4.0), np.zeros((17, 9)), np.zeros((17, 9))
    for top in (0, 4, 8, 9):
        for left in (0, 1):
            window = np.s_[top : top + 8, left : left + 8]
            total[window] += weights * position
            heaviness[window] += weights
    np.testing.assert_allclose(found[0, ..., 0], total / heaviness, rtol=1e-5)


def test_any_size_comes_out_exactly(upscaler):
    result = upscaler.upscale(photo(17, 19), scale=3)  # 51 x 57, neither a multiple of 8
    assert result.size == (57, 51)


def test_int8_quantises_the_blocks_and_little_is_lost(flux_model):
    z = np.random.default_rng(0).standard_normal((1, 8, 8, 16)).astype(np.float32)
    outputs, sizes = [], []
    for precision in ("bf16", "int8"):
        model = for_inference(converted.read(flux_model), precision)
        outputs.append(jax.jit(model.predict)(z).astype(np.float32))
        blocks = (model.backbone.transformer_blocks, model.backbone.single_transformer_blocks)
        sizes.append(sum(leaf.nbytes for leaf in jax.tree.leaves([nnx.state(b) for b in blocks])))
    kinds = {type(part) for _, part in nnx.iter_modules(model.backbone.transformer_blocks)}
    assert int8.Int8Linear in kinds
    assert Linear not in kinds
    # Half a step of 127 per weight, averaged over channels.
    assert 1e-4 < relative_error(outputs[1], outputs[0]) <= 2e-2
    assert sizes[1] <= 0.6 * sizes[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [flux.DoubleBlock, flux.SingleBlock])
def test_what_8_bits_cost_a_block_of_full_width(kind):
    """pytest -m slow -s -k full_width: the figures of docs/flux.md."""
    config, tokens = flux.FluxConfig(), (512, 1024)
    one = Sequence(lambda rngs: kind(config, rngs=rngs), 1, remat=False, rngs=nnx.Rngs(0))
    holder = nnx.Dict(transformer_blocks=one)
    graph, state = nnx.split(holder)
    state = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state)
    rng = np.random.default_rng(0)
    text, image = (
        jnp.asarray(rng.standard_normal((1, n, config.width)), jnp.bfloat16) for n in tokens
    )
    conditioning = jnp.asarray(rng.standard_normal((1, config.width)), jnp.bfloat16)
    turn = flux.rotation(flux.positions(tokens[0], (64, 64)), config.axes_dims_rope)
    together = (jnp.concatenate([text, image], axis=1),)
    inputs = (image, text) if kind is flux.DoubleBlock else together
    outputs, sizes = [], []
    for precision in ("bf16", "int8"):
        holder = nnx.merge(graph, state)
        if precision == "int8":
            assert int8.quantise(holder, jnp.bfloat16) == (14 if len(inputs) == 2 else 6)
        block = holder["transformer_blocks"][0]
        sizes.append(sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(block))))
        outputs.append(jax.jit(block)(*inputs, conditioning, turn))
    error, change = (
        float(np.linalg.norm([np.linalg.norm(np.asarray(a - b, np.float32)) for a, b in pairs]))
        for pairs in (zip(*outputs, strict=True), zip(outputs[0], inputs, strict=True))
    )
    whole = float(np.linalg.norm([np.linalg.norm(np.asarray(a, np.float32)) for a in outputs[0]]))
    print(f"{kind.__name__}: output {error / whole:.2e}, what the block adds {error / change:.2e}, "
          f"bytes {sizes[1] / sizes[0]:.4f}")  # fmt: skip
    assert sizes[1] <= 0.55 * sizes[0]
    assert error / change <= 2.5e-2


@pytest.mark.parametrize("shape", [(6, 5), (2, 6, 5)])
def test_quantised_weights_are_within_half_a_step(shape):
    kernel = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    kernel[..., 0] = 0
    integers, factor = int8.quantised(kernel)
    assert integers.dtype == np.int8
    assert np.abs(integers).max() == 127
    error = np.abs(integers * factor[..., None, :] - kernel)
    assert (error <= factor[..., None, :] / 2 * (1 + 1e-5)).all()
    abstract = int8.quantised(jax.ShapeDtypeStruct(shape, np.float32))
    assert [leaf.shape for leaf in abstract] == [integers.shape, factor.shape]


def test_weights_that_cannot_be_divided_are_an_error(tiny_model, flux_model):
    with pytest.raises(InputError, match="cannot be divided into groups of 3"):
        omgsr_jax.load(flux_model, shards=3)


# Eight devices of one process; results and what each device held.
_SHARDED = """
import json, sys, jax, numpy as np
import omgsr_jax
from tests.inference.conftest import restored
model, source, out = sys.argv[1:]
x_l = np.load(source)
report = {}
for shards in (1, 8):
    upscaler = omgsr_jax.load(model, devices=jax.devices()[:shards], shards=shards)
    np.save(f"{out}/{shards}.npy", restored(upscaler, x_l))
    leaves = jax.tree.leaves(upscaler.programs.weights)
    report[shards] = {
        "all": sum(leaf.nbytes for leaf in leaves),
        "one": sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves),
    }
print(json.dumps(report))
"""


@pytest.mark.slow
def test_divided_weights_give_the_same_image(flux_model, tmp_path):
    np.save(tmp_path / "in.npy", photo(64, 80)[None].astype(np.float32) / 127.5 - 1)
    flags = "--xla_force_host_platform_device_count=8"
    outcome = subprocess.run(
        [sys.executable, "-c", _SHARDED, str(flux_model), str(tmp_path / "in.npy"), str(tmp_path)],
        cwd=ROOT,
        env={
            **os.environ,
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}",
            "XDG_CACHE_HOME": str(tmp_path),
        },
        check=True,
        capture_output=True,
        text=True,
    )
    held = json.loads(outcome.stdout.splitlines()[-1])
    one, eight = (np.load(tmp_path / f"{shards}.npy") for shards in (1, 8))
    assert held["1"]["one"] == held["1"]["all"] == held["8"]["all"]
    assert held["8"]["one"] < 0.6 * held["8"]["all"]  # what is not in blocks is on all of them
    assert relative_error(eight, one) <= 1e-5


@pytest.mark.slow
def test_the_command_takes_int8(flux_model, tmp_path):
    from omgsr_jax import cli

    Image.fromarray(photo(16, 16)).save(tmp_path / "in.png")
    command = ["upscale", str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png")]
    command += ["--model", str(flux_model), "--precision", "int8", "--scale", "4"]
    assert cli.main(command) == 0
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (64, 64)
