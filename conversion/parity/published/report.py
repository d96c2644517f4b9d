"""Everything that is compared with a checkout, as a table and as JSON."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import inference, training
from .checkout import Checkout
from .stand_ins import STAND_INS
from .training import EPSILON

# The published F trains on latents in bf16.
PARTS = ("infer s", "infer f", "train s", "train f", "train f bf16")
MOST_LEVELS = 1  # of 255
MOST_OF_A_TERM = 1e-4
MOST_OF_AN_UPDATE = 1e-3
# A latent that fp32's rounding moves across one of bf16 moves by 4e-3, so there terms alone are
# held; the published LDR has three digits.
MOST_OF_A_TERM_IN_BF16 = 4e-3
_COLUMNS = (
    "| scale | colours | input | output | grey levels at most | values that differ |\n"
    "|---|---|---|---|---|---|"
)


def compare(
    folder: Path, parts: Sequence[str], *, steps: int, seed: int, epsilon: float = EPSILON
) -> dict[str, Any]:
    checkout = Checkout.at(folder)
    report: dict[str, Any] = {
        "version": checkout.version,
        "scripts": checkout.digests,
        "stand_ins": [row._asdict() for row in STAND_INS],
        "inference": [],
        "training": [],
    }
    agree = True
    for part in parts:
        action, kind, latents = (*part.split(), "fp32")[:3]
        print(f"{checkout.version}, {part}", flush=True)
        started = time.time()
        if action == "infer":
            print(_COLUMNS)
            for found in inference.compare(checkout, kind, seed=seed):
                print(_of_picture(found), flush=True)
                report["inference"].append(asdict(found))
                agree &= found.levels <= MOST_LEVELS
        else:
            trained = training.compare(
                checkout, kind, latents=latents, steps=steps, seed=seed, epsilon=epsilon
            )
            report["training"].append(asdict(trained))
            print(_of_training(trained))
            agree &= _agree(trained)
        print(f"{(time.time() - started) / 60:.1f} minutes", flush=True)
    return report | {"agree": agree}


def _agree(trained: training.Trained) -> bool:
    if trained.latents == "bf16":
        return max(trained.terms.values()) <= MOST_OF_A_TERM_IN_BF16
    terms, updates = max(trained.terms.values()), max(trained.updates.values())
    return terms <= MOST_OF_A_TERM and updates <= MOST_OF_AN_UPDATE


def _of_picture(found: inference.Found) -> str:
    return (
        f"| x{found.scale} | {found.color} | {_px(found.source)} | {_px(found.output)} "
        f"| {found.levels} | {found.share:.3%} |"
    )


def _px(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"


def _of_training(trained: training.Trained) -> str:
    rows = [
        f"| {trained.steps} steps, latents in {trained.latents}, epsilon {trained.epsilon:g} "
        "| largest relative error |",
        "|---|---|",
    ]
    rows += [f"| {name} | {error:.1e} |" for name, error in trained.terms.items()]
    rows += [
        f"| what training added to {name} | {error:.1e}, 1 - cosine {trained.cosines[name]:.1e} |"
        for name, error in trained.updates.items()
    ]
    return "\n".join(rows)
