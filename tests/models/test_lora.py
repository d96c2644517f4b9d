"""LoRA with peft's meaning: the same layers, the same outputs, merged and unmerged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from flax import nnx
from peft import LoraConfig, PeftModel

from conversion import peft_adapters
from conversion.parity.arrays import to_nchw, to_nhwc
from conversion.parity.random_checkpoints import PRESETS
from omgsr_jax.models import lora
from omgsr_jax.models.lora import SD_TARGETS, LoRASpec
from omgsr_jax.models.unet import UNet, UNetConfig
from omgsr_jax.models.vae import VAE, VAEConfig
from omgsr_jax.weights import by_name, fill, variables
from tests.helpers import drawn, images, read_network, relative_error


@pytest.mark.parametrize(
    ("build_torch", "build_ours"),
    [
        (
            lambda: UNet2DConditionModel(**PRESETS["sd-turbo"].backbone),
            lambda: UNet(UNetConfig(), rngs=None),
        ),
        (
            lambda: AutoencoderKL(**PRESETS["sd-turbo"].vae).encoder,
            lambda: VAE(VAEConfig(), rngs=None).encoder,
        ),
    ],
    ids=["unet", "encoder"],
)
def test_the_published_targets_wrap_the_layers_that_peft_wraps(build_torch, build_ours):
    with torch.device("meta"):
        theirs = build_torch()
    config = LoraConfig(r=2, lora_alpha=2, target_modules=list(SD_TARGETS))
    peft_model = PeftModel(theirs, config)
    wrapped = {
        name.removeprefix("base_model.model.")
        for name, module in peft_model.named_modules()
        if hasattr(module, "lora_A")
    }
    ours = build_ours()
    assert set(lora.targeted(ours, LoRASpec(2, 2))) == wrapped
    assert lora.inject(ours, LoRASpec(2, 2), expected=len(wrapped), rngs=None) == len(wrapped)
    assert lora.count(ours) == len(wrapped)


def test_a_wrong_number_of_targets_is_an_error():
    model = UNet(UNetConfig(), rngs=None)
    with pytest.raises(ValueError, match="match 194 layers of UNet, expected 193"):
        lora.inject(model, LoRASpec(2, 2), expected=193, rngs=None)
    with pytest.raises(ValueError, match="match 0 layers of UNet"):
        lora.inject(model, LoRASpec(2, 2, targets=("no_such_layer",)), rngs=None)


@pytest.fixture(scope="module", params=[False, True], ids=["lora", "rslora"])
def adapted(request, tmp_path_factory):
    """A VAE encoder with an adapter (convolutions, strided ones, linear layers), here and there."""
    folder = tmp_path_factory.mktemp("adapted")
    torch.manual_seed(0)
    vae = AutoencoderKL(**PRESETS["tiny"].vae).eval()
    vae.save_pretrained(folder / "vae")
    config = LoraConfig(
        r=4, lora_alpha=6, target_modules=list(SD_TARGETS), use_rslora=request.param,
        init_lora_weights="gaussian",
    )  # fmt: skip
    peft_encoder = PeftModel(vae.encoder, config, adapter_name="vae_encoder_lora_adapter")
    for key, weight in peft_encoder.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(weight, std=0.05)
    peft_encoder.save_pretrained(folder)
    adapter = folder / "vae_encoder_lora_adapter"

    ours = read_network("vae", folder / "vae").encoder
    bare = variables(ours)
    lora.inject(ours, peft_adapters.read_spec(adapter), rngs=nnx.Rngs(0))
    factors = peft_adapters.read_factors(adapter, ours)
    ours = fill(ours, {**{k: v[...] for k, v in bare.items()}, **factors})
    return ours, peft_encoder.eval()


def test_unmerged_merged_and_unmerged_again_agree_with_peft(adapted):
    ours, theirs = adapted
    x = images(0, 1, 32, 24, 3)
    with torch.no_grad():
        expected = to_nhwc(theirs(to_nchw(x)))
        with theirs.disable_adapter():
            bare = to_nhwc(theirs(to_nchw(x)))
    assert relative_error(expected, bare) > 1e-2, "the adapter must matter"

    assert relative_error(jax.jit(ours)(x), expected) <= 1e-5
    adapters = lora.merge(ours)
    assert lora.count(ours) == 0
    assert len(adapters) == 19
    assert relative_error(jax.jit(ours)(x), expected) <= 1e-5
    lora.unmerge(ours, adapters)
    assert lora.count(ours) == 19
    assert relative_error(jax.jit(ours)(x), expected) <= 1e-5


def test_exported_adapters_mean_the_same_to_peft(adapted, tmp_path):
    ours, theirs = adapted
    spec = LoRASpec(4, 6, rslora=theirs.peft_config["vae_encoder_lora_adapter"].use_rslora)
    peft_adapters.write_adapter(tmp_path / "adapter", spec, ours)
    encoder = AutoencoderKL(**PRESETS["tiny"].vae).eval().encoder
    # The bare weights are those of the adapted encoder with the adapter taken out.
    state = theirs.base_model.model.state_dict()
    encoder.load_state_dict(
        {k.replace(".base_layer", ""): v for k, v in state.items() if "lora_" not in k}
    )
    reloaded = PeftModel.from_pretrained(encoder, tmp_path / "adapter").eval()
    x = to_nchw(images(1, 1, 32, 32, 3))
    with torch.no_grad():
        np.testing.assert_array_equal(reloaded(x).numpy(), theirs(x).numpy())


def test_fresh_adapters_change_nothing_and_are_what_trains():
    config = VAEConfig(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4)
    encoder = drawn(VAE(config, rngs=None)).encoder
    x = jnp.asarray(images(0, 1, 16, 16, 3))
    before = jax.jit(encoder)(x)
    lora.inject(encoder, LoRASpec(64, 64), rngs=nnx.Rngs(1))
    np.testing.assert_array_equal(before, jax.jit(encoder)(x))

    factors = variables(encoder)
    spread = [float(jnp.std(v[...])) for k, v in factors.items() if "lora_A" in k]
    np.testing.assert_allclose(spread, 1 / 64, rtol=0.2)  # peft's "gaussian" start

    graph, trained, frozen = nnx.split(encoder, nnx.LoRAParam, ...)
    gradient = jax.jit(jax.grad(lambda t: jnp.sum(nnx.merge(graph, t, frozen)(x) ** 2)))(trained)
    moved = {k: float(jnp.abs(v[...]).max()) for k, v in by_name(gradient).items()}
    assert all(
        ("lora_B" in name) == (size > 0) for name, size in moved.items()
    )  # B is 0, so A rests
