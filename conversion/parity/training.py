"""Training here and in PyTorch (diffusers, peft), from the same weights, data and random numbers.

The PyTorch loop follows the published one: the generator's step, then the discriminator's, AdamW on
clipped gradients. It gets its noise and augmentation from JAX, so that nothing but arithmetic can
differ. With `quirks` it leaves the generator's gradients in the discriminator, ignores warm-up,
and v2 judges the fake before the real.
"""

import copy
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from omgsr_jax import perceptual as perceptual_networks
from omgsr_jax.losses import adversarial, augment
from omgsr_jax.models.sampling import sampled_normal
from omgsr_jax.training import step
from omgsr_jax.training.blueprint import Blueprint, Weights
from omgsr_jax.training.config import TrainConfig, from_dict
from omgsr_jax.training.run import Run
from omgsr_jax.training.state import TrainState
from omgsr_jax.weights import fill

from .. import peft_adapters
from .torch_training import TorchTraining


def small_training_config(
    model: str, *, quirks: str | None, perceptual: str = "", steps: int = 20
) -> TrainConfig:
    """A run on small images, with the paper's losses through converted `perceptual` networks.

    Without them the VAE's own encoder stands in for both.
    """
    return from_dict(
        {
            "name": "parity",
            "quirks": quirks,
            "model": {
                "path": model,
                "perceptual": perceptual,
                "encoder_rank": 4,
                "backbone_rank": 8,
                "precision": "fp32",
            },
            # At a rate of 2e-5, 20 steps would hardly move the weights. Behind VGG16's kinks,
            # rounding errors grow with every step, and faster at a higher rate.
            "optimizer": {"learning_rate": 3e-4 if perceptual else 1e-3, "warmup": 10},
            "data": {"resolution": 32, "batch_size": 2},
            "run": {"steps": steps},
            **(_through_paper_networks(perceptual) if perceptual else _through_own_encoder()),
        }
    )


def _through_paper_networks(perceptual: str) -> dict[str, Any]:
    dinov2 = perceptual_networks.configs(perceptual, ["dinov2"])["dinov2"]
    depth = dinov2.num_hidden_layers
    return {
        "losses": {"ldr": 5, "mse": 2, "oc_lpips": 5, "gan": 0.5},
        "discriminator": {
            "levels": (-2 * depth // 3, -depth // 3, -1),
            "image_size": dinov2.image_size,
        },
    }


def _through_own_encoder() -> dict[str, Any]:
    return {
        "losses": {"ldr": 5, "mse": 2, "features": 1, "gan": 0.5},
        "discriminator": {
            "backbone": "vae_encoder",
            "heads": "tower",
            "levels": (0, 1, 2),
            "layout": 64,
            "image_size": None,
        },
    }


@dataclass(frozen=True)
class TrainingComparison:
    """Every loss at every step on both sides, and how well the final weights agree."""

    ours: list[dict[str, float]]
    theirs: list[dict[str, float]]
    cosines: dict[str, float]  # of final adapters and heads
    update_cosines: dict[str, float]  # of what training added to them

    @property
    def worst(self) -> dict[str, float]:
        """The largest relative error of each term over all steps."""
        return {
            term: max(
                abs(a[term] / b[term] - 1) for a, b in zip(self.ours, self.theirs, strict=True)
            )
            for term in self.theirs[0]
        }


def compare_training(
    base: Path, config: TrainConfig, perceptual: Path | None = None
) -> TrainingComparison:
    """Trains on both sides.

    `config.model.path` is the converted `base`, `config.model.perceptual` is `perceptual`.
    """
    run = Run.of(config, jax.devices()[:1])
    blueprint, frozen, start = run.blueprint, run.frozen(), run.start()
    with tempfile.TemporaryDirectory(prefix="omgsr-train-parity-") as scratch:
        folders = _write_initial_adapters(blueprint, frozen, start.generator, Path(scratch))
        t_m = blueprint.generator_config.mid_timestep
        theirs = TorchTraining(base, *folders, config, t_m, perceptual=perceptual)
    heads, spectral = theirs.heads()
    now = start._replace(discriminator=_on_device(heads), spectral=_on_device(spectral))
    adapters_before, _ = _snapshot(now)

    losses: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    # Compiled as fast as possible: 20 small steps do not pay for more.
    with jax.default_matmul_precision("highest"), jax.set_mesh(run.mesh):
        compiled = run.lower(next(_batches(config))).compile()
        for number, batch in zip(range(config.run.steps), _batches(config), strict=False):
            sampled = random_numbers_of_step(blueprint, number)
            now, metrics = compiled(now, frozen, jax.device_put(batch))
            losses["theirs"].append(theirs.step(batch, *sampled))
            losses["ours"].append({term: float(metrics[term]) for term in losses["theirs"][-1]})
    ours_after, heads_after = _snapshot(now)
    theirs_after = _adapters_of_pytorch(theirs, blueprint)
    pairs = {
        "adapters": (ours_after, theirs_after, adapters_before),
        "heads": (heads_after, theirs.heads()[0], heads),
    }
    return TrainingComparison(
        **losses,
        cosines={name: cosine(a, b) for name, (a, b, _) in pairs.items()},
        update_cosines={
            name: cosine(difference(a, before), difference(b, before))
            for name, (a, b, before) in pairs.items()
        },
    )


def _batches(config: TrainConfig) -> Iterator[dict[str, np.ndarray]]:
    """Smooth random pictures, and coarser ones of them as their low-quality side."""
    rng = np.random.default_rng(0)
    size, b = config.data.resolution, config.data.batch_size
    while True:
        coarse = rng.uniform(-1, 1, (b, size // 4, size // 4, 3)).astype(np.float32)
        lr = coarse.repeat(4, 1).repeat(4, 2)
        hr = (lr + np.roll(lr, 2, 1) + np.roll(lr, 2, 2)) / 3
        yield {"lr": lr, "hr": hr + 0.05 * rng.standard_normal(hr.shape).astype(np.float32)}


def random_numbers_of_step(blueprint: Blueprint, number: int) -> tuple[list[np.ndarray], list[Any]]:
    """The noise (z_L, z_H, eps) and the augmentations (G, real, fake) of a step of ours."""
    config = blueprint.config
    b, size = config.data.batch_size, config.data.resolution
    vae = blueprint.generator_config.vae
    latent = (b, size // vae.downsampling, size // vae.downsampling, vae.latent_channels)
    step_key = jax.random.fold_in(jax.random.key(config.seed), number)
    *latents, key = step.example_keys(step_key, jnp.arange(b))
    noise = [np.asarray(sampled_normal(one, latent)) for one in latents]
    return noise, [augment.sample(one, b, size, size) for one in adversarial.look_keys(key)]


def _write_initial_adapters(
    blueprint: Blueprint, frozen: Weights, adapters: Weights, folder: Path
) -> tuple[Path, Path]:
    model = fill(blueprint.generator, frozen | adapters)
    specs = blueprint.generator_config
    assert specs.encoder_lora is not None
    assert specs.backbone_lora is not None
    peft_adapters.write_adapter(folder / "encoder", specs.encoder_lora, model.vae.encoder)
    peft_adapters.write_adapter(folder / "backbone", specs.backbone_lora, model.backbone)
    return folder / "encoder", folder / "backbone"


def _adapters_of_pytorch(
    torch_side: TorchTraining, blueprint: Blueprint
) -> Mapping[str, np.ndarray]:
    """PyTorch's adapters, saved by peft and read by our converter."""
    found: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory(prefix="omgsr-parity-") as scratch:
        encoder, backbone = torch_side.save_adapters(Path(scratch))
        for prefix, path, module in (
            ("vae.encoder", encoder, blueprint.generator.vae.encoder),
            ("backbone", backbone, blueprint.generator.backbone),
        ):
            factors = peft_adapters.read_factors(path, module)
            found |= {f"{prefix}.{name}": np.asarray(a) for name, a in factors.items()}
    return found


def _snapshot(now: TrainState) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    return copy.deepcopy(jax.device_get((now.generator, now.discriminator)))


def _on_device(arrays: Mapping[str, np.ndarray]) -> Weights:
    return {name: jnp.array(array) for name, array in arrays.items()}


def difference(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: a[name] - b[name] for name in a}


def cosine(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> float:
    """Of all weights together, in float64."""
    if set(a) != set(b):
        raise ValueError(f"different weights: {sorted(set(a) ^ set(b))}")
    x, y = (
        np.concatenate([np.asarray(tree[name], np.float64).ravel() for name in sorted(a)])
        for tree in (a, b)
    )
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
