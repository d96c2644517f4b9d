"""Validation on a fixed set of pairs, degraded once and always the same."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from ..data import DataConfig, make_pipeline, signed
from ..weights import fill
from .blueprint import Blueprint, Weights
from .config import ValidationConfig
from .layout import Layout, batch_sharding, gathering, replicated
from .state import TrainState

# Images b h w 3 in [0, 1], restored and original, to one number for each pair.
Metric = Callable[[np.ndarray, np.ndarray], Any]


def make_validator(
    blueprint: Blueprint, layout: Layout, frozen: Weights, metrics: Mapping[str, Metric]
) -> Callable[[TrainState], tuple[dict[str, float], dict[str, np.ndarray]]]:
    """A function of the state: the metrics' means, and a picture of input, output and original."""
    config = blueprint.config
    lr, hr = fixed_pairs(config.data, config.validation)
    generator, mesh = gathering(blueprint.generator, layout.weights), layout.mesh
    share = mesh.shape["data"] * mesh.shape["fsdp"]
    restore = jax.jit(
        lambda adapters, frozen, x: jnp.clip(fill(generator, frozen | adapters)(x), -1, 1),
        in_shardings=(
            layout.state_sharding.generator,
            layout.frozen_sharding,
            batch_sharding(mesh),
        ),
        out_shardings=replicated(mesh),
    )

    def restored(adapters: Weights) -> np.ndarray:
        out = []
        for first in range(0, len(lr), share):
            part = lr[first : first + share]
            part = np.concatenate([part, np.repeat(part[-1:], share - len(part), axis=0)])
            with jax.set_mesh(mesh):
                out.append(jax.device_get(restore(adapters, frozen, _spread(part, mesh))))
        return np.concatenate(out)[: len(lr)]

    def validate(state: TrainState) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        x_p = restored(state.ema or state.generator)
        sr, original = unit(x_p), unit(hr)
        found = {
            name: float(np.mean(jax.device_get(metric(sr, original))))
            for name, metric in metrics.items()
        }
        return found, {"validation": _grid(lr, x_p, hr, count=config.validation.shown)}

    return validate


def fixed_pairs(data: DataConfig, validation: ValidationConfig) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that are validated on, the same in every process: b h w 3 in [-1, 1]."""
    pairs = DataConfig(
        sources=validation.sources,
        resolution=data.resolution,
        degradation=data.degradation,
        mixed=data.mixed,
        batch_size=validation.images,
        workers=0,
    )
    batch = next(iter(make_pipeline(pairs, shuffle=False, process_index=0, process_count=1)))
    return signed(batch["lr"]), signed(batch["hr"])


def _spread(array: np.ndarray, mesh: Mesh) -> Array:
    sharding = batch_sharding(mesh)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def unit(x: np.ndarray) -> np.ndarray:
    return np.clip(x * 0.5 + 0.5, 0, 1)


def _grid(*columns: np.ndarray, count: int) -> np.ndarray:
    """Pictures of the first `count` images, or of all: low-quality, restored, original in a row."""
    shown = zip(*(column[:count] for column in columns), strict=True)
    rows = [np.concatenate(images, axis=1) for images in shown]
    return np.rint(unit(np.concatenate(rows)) * 255).astype(np.uint8)
