"""The smallest runs that have everything: adapters, perceptual loss, discriminator."""

from pathlib import Path
from typing import Any

import numpy as np

from omgsr_jax import converted
from omgsr_jax.generator import OMGSR, OMGSRConfig
from omgsr_jax.training import config
from omgsr_jax.weights import variables

SETTINGS = {
    "name": "smallest",
    "model": {
        "architecture": "smallest",
        "encoder_rank": 2,
        "backbone_rank": 2,
        "precision": "fp32",
    },
    "losses": {"ldr": 5, "mse": 2, "features": 1, "gan": 0.5},
    "discriminator": {
        "backbone": "vae_encoder",
        "heads": "tower",
        "levels": (0, 1, 2),
        "layout": 64,
        "image_size": None,
    },
    "optimizer": {"learning_rate": 1e-3, "warmup": 0, "ema": 0.9},
    "data": {"resolution": 16, "batch_size": 8},
}


def smallest(**changes):
    """The smallest run; `data={"accumulation": 2}` changes one setting of a group."""
    merged = {
        name: {**value, **changes.pop(name, {})} if isinstance(value, dict) else value
        for name, value in SETTINGS.items()
    }
    return config.from_dict(merged | changes)


def batches(count, size=8, resolution=16):
    rng = np.random.default_rng(0)
    shape = (size, resolution, resolution, 3)
    return [
        {name: rng.uniform(-1, 1, shape).astype(np.float32) for name in ("lr", "hr")}
        for _ in range(count)
    ]


def random_base(out: Path, generator: OMGSRConfig, process_size: int) -> dict[str, Any]:
    """Writes a converted model of random weights; returns these by name."""
    rng = np.random.default_rng(0)
    params = {
        name: (0.1 * rng.standard_normal(leaf.shape)).astype(np.float32)
        for name, leaf in variables(OMGSR(generator, rngs=None)).items()
    }
    converted.write(out, converted.ModelCard(generator, process_size, ""), params)
    return params
