"""Optimiser steps of the published `main()` and of ours, from the same weights, data and numbers.

The published code begins with its own weights; ours takes them over. Both train at 512 px with all
losses of the version, in fp32, and accumulate micro-batches. The published F keeps latents, noise
and predictions in bf16; it is compared so, and with its option that keeps them in fp32.
"""

import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from omgsr_jax.process import FlowMatching
from omgsr_jax.training.blueprint import Blueprint
from omgsr_jax.training.config import TrainConfig, from_dict
from omgsr_jax.training.run import Run

from ... import backbones, peft_adapters
from ...convert import convert
from ...perceptual import convert_perceptual
from ..processes import in_own_process
from ..training import cosine, difference, random_numbers_of_step
from . import judges
from .checkout import Checkout
from .inference import PROMPTS, T_M, write_checkpoint
from .theirs import Arrays, Task, Theirs, train

RESOLUTION = 512
ACCUMULATION = 2
# Adam's. At the published 1e-8 the first steps move every weight equally far, and in the wrong
# direction those whose gradient is no larger than its rounding: an error of 1e-5 in the gradient
# becomes one of its square root in the update.
EPSILON = 1e-3
# So little that no value of x_P is at the clamp's edge, where rounding decides whether it has a
# gradient: one of 1.6 million makes 1e-3 of the gradient's norm.
_CONTRAST = 1
_CONFIGS = {
    ("v1", "s"): "configs/omgsr_s_512.yml",
    ("v1", "f"): "configs/omgsr_f_512.yml",
    ("v2", "s"): "configs/omgsr_s_512.yml",
    ("v2", "f"): "configs/omgsr_f_1024.yml",
}
_RANKS = {"vae_lora_rank": 4, "unet_lora_rank": 8, "flux_transformer_lora_rank": 8}
_RATE = {"v1": 2e-5, "v2": 5e-5}
_LOSSES: dict[str, dict[str, float]] = {
    "v1": {"ldr": 5, "mse": 2, "oc_ea_dists": 5, "gan": 0.5},
    "v2": {"ldr": 5, "l1": 0.5, "dv3cd": 5, "gan": 0.5},
}
# What the published code logs, weighted, by our terms.
_LOGGED = {
    "v1": {"ldr": "loss_ldr", "mse": "loss_mse", "oc_ea_dists": "loss_ea_dists"},
    "v2": {"ldr": "loss_LRR", "l1": "loss_L1", "dv3cd": "loss_Dv3D"},
}
_OF_DISCRIMINATOR = {"v1": ("lossD_real", "lossD_fake"), "v2": ("loss_D_real", "loss_D_fake")}
_DISCRIMINATOR: dict[str, dict[str, Any]] = {
    "v1": {"backbone": "dinov2", "heads": "token", "levels": (-3, -2, -1), "image_size": 518},
    "v2": {
        "backbone": "dinov3_convnext",
        "heads": "tower",
        "levels": (0, 1, 2),
        "layout": RESOLUTION,
        "image_size": None,
    },
}


@dataclass(frozen=True)
class Trained:
    """How far both sides are apart: relative errors of every term, the largest over all steps; of
    what training added, relative in the norm, and 1 - cosine."""

    kind: str
    latents: str  # fp32 or bf16
    steps: int
    epsilon: float
    terms: dict[str, float]
    updates: dict[str, float]
    cosines: dict[str, float]
    ours: list[dict[str, float]]
    theirs: list[dict[str, float]]


def compare(
    checkout: Checkout,
    kind: str,
    *,
    latents: str,
    steps: int,
    seed: int,
    epsilon: float,
) -> Trained:
    """`latents`: fp32 or bf16, of F alone; `epsilon`: Adam's, on both sides."""
    with tempfile.TemporaryDirectory(prefix="omgsr-published-") as scratch:
        return _compare(checkout, kind, latents, steps, seed, epsilon, Path(scratch))


def _compare(
    checkout: Checkout,
    kind: str,
    latents: str,
    steps: int,
    seed: int,
    epsilon: float,
    scratch: Path,
) -> Trained:
    base, _ = write_checkpoint(kind, scratch, seed, _CONTRAST)
    model, networks, converted = (scratch / name for name in ("model", "networks", "judges"))
    version = checkout.version
    convert(
        str(base),
        model,
        mid_timestep=T_M[kind, version],
        prompt=PROMPTS[version],
        process_size=RESOLUTION,
    )
    in_own_process(judges.write, networks, checkout, seed + 2)
    convert_perceptual(networks, converted)
    config = training_config(version, str(model), str(converted), steps, epsilon)
    run = Run.of(config, jax.devices()[:1])
    if (kind, latents) == ("f", "fp32"):
        run = _with_latents_in_fp32(run)
    batches = list(_batches(config, steps, seed))
    numbers: dict[str, Any] = _numbers(run.blueprint, batches)
    np.savez(scratch / "numbers.npz", **numbers)
    task = _task(checkout, kind, latents, steps, epsilon, scratch)
    theirs = in_own_process(train, checkout, task)
    return _trained(run, kind, latents, batches, theirs, scratch / "adapters")


def _with_latents_in_fp32(run: Run) -> Run:
    blueprint = run.blueprint
    config = blueprint.generator_config
    assert isinstance(config.process, FlowMatching)
    process = dataclasses.replace(config.process, rounded_latents=False)
    config = dataclasses.replace(config, process=process)
    generator = type(blueprint.generator)(config, rngs=None)
    changed = dataclasses.replace(blueprint, generator_config=config, generator=generator)
    return Run(changed, run.layout)


def training_config(
    version: str, model: str, perceptual: str, steps: int, epsilon: float
) -> TrainConfig:
    return from_dict(
        {
            "name": f"published-{version}",
            "quirks": version,
            "model": {
                "path": model,
                "perceptual": perceptual,
                "encoder_rank": _RANKS["vae_lora_rank"],
                "backbone_rank": _RANKS["unet_lora_rank"],
                "precision": "fp32",
            },
            "losses": _LOSSES[version],
            "discriminator": _DISCRIMINATOR[version],
            "optimizer": {"learning_rate": _RATE[version], "epsilon": epsilon},
            "data": {
                "resolution": RESOLUTION,
                "batch_size": ACCUMULATION,
                "accumulation": ACCUMULATION,
            },
            "run": {"steps": steps},
        }
    )


def _task(
    checkout: Checkout, kind: str, latents: str, steps: int, epsilon: float, scratch: Path
) -> Task:
    out = scratch / "adapters"
    out.mkdir()
    path = {"s": "sd_path", "f": "flux_path"}[kind]
    changes: dict[str, Any] = {
        **_RANKS,
        path: str(scratch / "base"),
        "output_dir": str(out / "run"),
        "resolution": RESOLUTION,
        "max_train_steps": steps,
        "learning_rate": _RATE[checkout.version],
        "adam_epsilon": epsilon,
        "gradient_accumulation_steps": ACCUMULATION,
        "gradient_checkpointing": False,
        "enable_xformers_memory_efficient_attention": False,
        "dataloader_num_workers": 0,
        "dataset_txt_or_dir_paths": [],  # v1's configs have another name for it
        "checkpointing_steps": steps + 1,
    }
    if kind == "f":
        changes["fixed_prompt_path"] = str(_write_prompt(scratch))
        changes["mixed_precision"] = {"fp32": "no"}.get(latents, latents)
    return Task(
        script=f"train {kind}",
        config=_CONFIGS[checkout.version, kind],
        changes=changes,
        micro_batches=steps * ACCUMULATION,
        numbers=scratch / "numbers.npz",
        weights=scratch / "networks",
        out=out,
    )


def _write_prompt(scratch: Path) -> Path:
    """The embeddings of the converted model, as F's config may name them."""
    import torch

    from omgsr_jax import converted

    prompt = {k: torch.from_numpy(np.array(v)) for k, v in
              converted.read_prompt(scratch / "model").items()}  # fmt: skip
    path = scratch / "prompt.pt"
    torch.save(
        {
            "prompt_embeds": prompt["context"][None],
            "pooled_prompt_embeds": prompt["pooled"][None],
            "text_ids": torch.zeros(len(prompt["context"]), 3),
        },
        path,
    )
    return path


def _batches(config: TrainConfig, steps: int, seed: int) -> Iterator[Arrays]:
    """Smooth random pictures; the low-quality side is coarser."""
    rng, size = np.random.default_rng(seed), config.data.resolution
    for _ in range(steps):
        coarse = rng.uniform(-1, 1, (ACCUMULATION, size // 16, size // 16, 3)).astype(np.float32)
        lr = coarse.repeat(16, 1).repeat(16, 2)
        hr = (lr + np.roll(lr, 4, 1) + np.roll(lr, 4, 2)) / 3
        noisy = hr + 0.05 * rng.standard_normal(hr.shape).astype(np.float32)
        yield {"lr": lr, "hr": np.clip(noisy, -1, 1).astype(np.float32)}


def _numbers(blueprint: Blueprint, batches: list[Arrays]) -> Arrays:
    """Those of our steps, for each micro-batch: n b ..."""
    found: dict[str, list[np.ndarray]] = {}

    def add(name: str, of_step: Any) -> None:
        array = np.asarray(of_step)
        # A micro-batch has every ACCUMULATION-th example.
        micro = [array[i::ACCUMULATION] for i in range(ACCUMULATION)]
        found.setdefault(name, []).extend(micro)

    for number, batch in enumerate(batches):
        (z_l, z_h, eps), looks = random_numbers_of_step(blueprint, number)
        for name, of_step in {**batch, "z_l": z_l, "z_h": z_h, "eps": eps}.items():
            add(name, of_step)
        for look, drawn in zip(("g", "real", "fake"), looks, strict=True):
            # As DiffAugment turns its own numbers into these.
            add(f"{look}.brightness", drawn.brightness + 0.5)
            add(f"{look}.saturation", drawn.saturation / 2)
            add(f"{look}.contrast", drawn.contrast - 0.5)
            add(f"{look}.shift", -np.asarray(drawn.shift, np.int64))
            add(f"{look}.hole", np.asarray(drawn.hole, np.int64))
    return {name: np.stack(arrays) for name, arrays in found.items()}


def _trained(
    run: Run, kind: str, latents: str, batches: list[Arrays], theirs: Theirs, adapters: Path
) -> Trained:
    before, after = (_adapters(run.blueprint, adapters / when) for when in ("before", "after"))
    (heads, vectors), (heads_after, _) = theirs.before, theirs.after
    parts = {"generator": before, "discriminator": heads, "spectral": vectors}
    begun: dict[str, Any] = {
        name: {key: jnp.array(value) for key, value in of.items()} for name, of in parts.items()
    }
    now = run.start()._replace(**begun)
    frozen, ours = run.frozen(), []
    version = run.config.quirks or ""
    expected = _terms(version, run.config, theirs)
    with jax.default_matmul_precision("highest"), jax.set_mesh(run.mesh):
        compiled = run.lower(batches[0]).compile()
        for batch, terms in zip(batches, expected, strict=True):
            now, metrics = compiled(now, frozen, jax.device_put(batch))
            ours.append({name: float(metrics[name]) for name in terms})
    pairs = {
        "adapters": (jax.device_get(now.generator), after, before),
        "heads": (jax.device_get(now.discriminator), heads_after, heads),
    }
    updates = {n: (difference(a, c), difference(b, c)) for n, (a, b, c) in pairs.items()}
    return Trained(
        kind=kind,
        latents=latents,
        steps=len(batches),
        epsilon=run.config.optimizer.epsilon,
        terms={
            name: max(abs(a[name] / b[name] - 1) for a, b in zip(ours, expected, strict=True))
            for name in expected[0]
        },
        updates={name: _relative(*both) for name, both in updates.items()},
        cosines={name: 1 - cosine(*both) for name, both in updates.items()},
        ours=ours,
        theirs=expected,
    )


def _terms(version: str, config: TrainConfig, theirs: Theirs) -> list[dict[str, float]]:
    """Of each step, unweighted, as our metrics have them: means over micro-batches."""
    weights = config.losses.active
    rows = []
    for logged, (total, _) in zip(theirs.logs, theirs.totals, strict=True):
        weighted = {name: logged[key] for name, key in _LOGGED[version].items()}
        weighted["gan"] = total - sum(weighted.values())
        row = {name: value / weights[name] for name, value in weighted.items()}
        own = sum(logged[key] for key in _OF_DISCRIMINATOR[version]) / weights["gan"]
        row["discriminator"] = own + row["gan"]  # whose gradient it applies too
        rows.append(row)
    return [
        {
            name: float(np.mean([row[name] for row in rows[i : i + ACCUMULATION]]))
            for name in rows[0]
        }
        for i in range(0, len(rows), ACCUMULATION)
    ]


def _adapters(blueprint: Blueprint, folder: Path) -> Arrays:
    found: Arrays = {}
    for prefix, names, module in (
        ("vae.encoder", backbones.ENCODER_ADAPTERS, blueprint.generator.vae.encoder),
        ("backbone", backbones.BACKBONE_ADAPTERS, blueprint.generator.backbone),
    ):
        path = peft_adapters.find_adapter(folder, names)
        assert path is not None
        factors = peft_adapters.read_factors(path, module)
        found |= {f"{prefix}.{name}": np.asarray(array) for name, array in factors.items()}
    return found


def _relative(ours: Arrays, theirs: Arrays) -> float:
    far, size = (
        sum(float(np.square(x, dtype=np.float64).sum()) for x in arrays.values())
        for arrays in (difference(ours, theirs), theirs)
    )
    return float((far / size) ** 0.5)
