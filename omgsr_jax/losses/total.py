"""The weighted total of the losses on restored images (Eq. 16)."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ..models.alexnet import AlexNet
from ..models.dinov2 import DINOv2
from ..models.dinov3_convnext import DINOv3ConvNeXt
from ..models.features import FeatureBackbone
from ..models.vgg import VGG
from ..process import Process
from .dists import DISTSWeights, oc_dists, oc_ea_dists
from .dv3cd import dv3cd
from .latent import ldr
from .lpips import LPIPSHeads, feature_distance, oc_lpips
from .pixel import l1, mse, spectrum


@dataclass(frozen=True)
class LossWeights:
    """What each loss counts. A loss of weight 0 is not computed, and needs no network."""

    ldr: float = 0.0
    mse: float = 0.0
    l1: float = 0.0
    spectrum: float = 0.0
    oc_lpips: float = 0.0
    oc_dists: float = 0.0
    oc_ea_dists: float = 0.0
    dv3cd: float = 0.0
    features: float = 0.0
    gan: float = 0.0

    @property
    def active(self) -> dict[str, float]:
        """The weights that are not 0, by the losses' names."""
        return {name: weight for name, weight in dataclasses.asdict(self).items() if weight}

    @property
    def networks(self) -> set[str]:
        """The parts of `Networks` that the active losses look through (the discriminator aside)."""
        return {part for name in self.active for part in _NEEDS.get(name, ())}


_NEEDS = {
    "oc_lpips": ("vgg", "lpips_vgg"),
    "oc_dists": ("vgg", "dists"),
    "oc_ea_dists": ("vgg", "dists"),
    "dv3cd": ("dinov3_convnext",),
    "features": ("vae_encoder",),
}


class Networks(nnx.Module):
    """The frozen networks that losses and discriminators look through, each one at most once."""

    def __init__(
        self,
        *,
        vgg: VGG | None = None,
        lpips_vgg: LPIPSHeads | None = None,
        alexnet: AlexNet | None = None,
        lpips_alex: LPIPSHeads | None = None,
        dists: DISTSWeights | None = None,
        dinov2: DINOv2 | None = None,
        dinov3_convnext: DINOv3ConvNeXt | None = None,
        vae_encoder: FeatureBackbone | None = None,
    ):
        self.vgg = vgg
        self.lpips_vgg = lpips_vgg
        self.alexnet = alexnet
        self.lpips_alex = lpips_alex
        self.dists = dists
        self.dinov2 = dinov2
        self.dinov3_convnext = dinov3_convnext
        self.vae_encoder = vae_encoder


class Restoration(NamedTuple):
    """What the losses compare."""

    x_p: Array  # restored images, b h w 3
    x_h: Array  # their HQ originals, b h w 3
    z_l: Array  # the LQ images' latents, scaled, b h/8 w/8 c
    z_h: Array  # the HQ images' latents, scaled
    eps: Array  # noise, like z_h


def total(
    weights: LossWeights,
    networks: Networks,
    restoration: Restoration,
    *,
    process: Process,
    t_m: int,
    gan: Array | None = None,
    quirks: bool = False,
) -> tuple[Array, dict[str, Array]]:
    """The generator's loss, Eq. 16: the sum of weight * loss over the losses that have a weight.

    Args:
        weights: which losses, and what each counts.
        networks: must hold `weights.networks`.
        restoration: images and latents.
        process, t_m: for the LDR loss.
        gan: the value of `generator_loss` on the restored images, where it has a weight.
        quirks: compute every loss as the published code does.

    Returns:
        The total, and the losses in it by name, unweighted.
    """
    absent = [part for part in sorted(weights.networks) if getattr(networks, part) is None]
    absent += ["gan"] if weights.gan and gan is None else []
    if absent:
        raise ValueError(f"the weights {weights.active} need what is not given: {absent}")
    x_p, x_h, z_l, z_h, eps = restoration
    n: Any = networks
    losses: Mapping[str, Callable[[], Any]] = {
        "ldr": lambda: ldr(z_l, z_h, eps, process, t_m),
        "mse": lambda: mse(x_p, x_h),
        "l1": lambda: l1(x_p, x_h),
        "spectrum": lambda: spectrum(x_p, x_h),
        "oc_lpips": lambda: oc_lpips(x_p, x_h, n.vgg, n.lpips_vgg, quirks=quirks),
        "oc_dists": lambda: oc_dists(x_p, x_h, n.vgg, n.dists),
        "oc_ea_dists": lambda: oc_ea_dists(x_p, x_h, n.vgg, n.dists),
        "dv3cd": lambda: dv3cd(x_p, x_h, n.dinov3_convnext),
        "features": lambda: feature_distance(x_p, x_h, n.vae_encoder),
        "gan": lambda: gan,
    }
    found = {name: losses[name]() for name in weights.active}
    return sum((weights.active[name] * loss for name, loss in found.items()), jnp.zeros(())), found
