"""The weighted total of the losses on restored images (Eq. 16), and the table of all losses."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ..process import Process
from .detail import detail
from .dists import oc_dists, oc_ea_dists
from .dv3cd import dv3cd
from .frequencies import frequencies
from .latent import ldr
from .lpips import WINDOW, feature_distance, oc_lpips
from .pixel import l1, mse, spectrum


class Networks(nnx.Dict[Any]):
    """The frozen networks that losses look through, by their names in `perceptual`'s tables."""


class Restoration(NamedTuple):
    """What the losses compare."""

    x_p: Array  # restored images, b h w 3
    x_h: Array  # their HQ originals, b h w 3
    z_l: Array  # the LQ images' latents, scaled, b h/8 w/8 c
    z_h: Array  # the HQ images' latents, scaled
    eps: Array  # noise, like z_h


class Given(NamedTuple):
    """All that a loss may be computed from: the arguments of `total`."""

    x_p: Array
    x_h: Array
    z_l: Array
    z_h: Array
    eps: Array
    n: Any  # Networks, whose members differ in type
    process: Process
    t_m: ArrayLike
    gan: Any  # Array where it is needed


class Look(NamedTuple):
    """How the restored images and their originals are looked at, for counting FLOPs."""

    network: str
    window: int | None = None  # px, of overlapping windows; None: whole images
    times: int = 1


class Loss(NamedTuple):
    compute: Callable[[Given], Array]
    needs: tuple[str, ...] = ()  # of networks
    asks: tuple[str, ...] = ()  # of the arguments of `total` that may be left out
    look: Look | None = None


_VGG = Look("vgg", WINDOW)

# A new loss is a function in this folder, a row here and a field of `LossWeights`.
LOSSES: dict[str, Loss] = {
    "ldr": Loss(lambda g: ldr(g.z_l, g.z_h, g.eps, g.process, g.t_m)),
    "mse": Loss(lambda g: mse(g.x_p, g.x_h)),
    "l1": Loss(lambda g: l1(g.x_p, g.x_h)),
    "spectrum": Loss(lambda g: spectrum(g.x_p, g.x_h)),
    "frequencies": Loss(lambda g: frequencies(g.x_p, g.x_h)),
    "detail": Loss(lambda g: detail(g.x_p, g.x_h)),
    "oc_lpips": Loss(
        lambda g: oc_lpips(g.x_p, g.x_h, g.n.vgg, g.n.lpips_vgg),
        needs=("vgg", "lpips_vgg"),
        look=_VGG,
    ),
    "oc_dists": Loss(
        lambda g: oc_dists(g.x_p, g.x_h, g.n.vgg, g.n.dists),
        needs=("vgg", "dists"),
        look=_VGG,
    ),
    "oc_ea_dists": Loss(
        lambda g: oc_ea_dists(g.x_p, g.x_h, g.n.vgg, g.n.dists),
        needs=("vgg", "dists"),
        look=_VGG._replace(times=2),  # at the images and at their edges
    ),
    "dv3cd": Loss(
        lambda g: dv3cd(g.x_p, g.x_h, g.n.dinov3_convnext),
        needs=("dinov3_convnext",),
        look=Look("dinov3_convnext"),
    ),
    "features": Loss(
        lambda g: feature_distance(g.x_p, g.x_h, g.n.vae_encoder),
        needs=("vae_encoder",),
        look=Look("vae_encoder"),
    ),
    "gan": Loss(lambda g: g.gan, asks=("gan",)),
}


@dataclass(frozen=True)
class LossWeights:
    """What each loss of `LOSSES` counts. One of weight 0 is not computed, and needs no network."""

    ldr: float = 0.0
    mse: float = 0.0
    l1: float = 0.0
    spectrum: float = 0.0
    frequencies: float = 0.0
    detail: float = 0.0
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
        """The networks that the active losses look through (the discriminator aside)."""
        return {network for name in self.active for network in LOSSES[name].needs}


def total(
    weights: LossWeights,
    networks: Networks,
    restoration: Restoration,
    *,
    process: Process,
    t_m: ArrayLike,
    gan: Array | None = None,
) -> tuple[Array, dict[str, Array]]:
    """The generator's loss, Eq. 16: the sum of weight * loss over the losses that have a weight.

    Args:
        weights: which losses, and what each counts.
        networks: must hold `weights.networks`.
        restoration: images and latents.
        process, t_m: for the LDR loss; t_m is one, or one of each image (b).
        gan: the value of `generator_loss` on the restored images, where it has a weight.

    Returns:
        The total, and the losses in it by name, unweighted.
    """
    given = Given(*restoration, networks, process, t_m, gan)
    absent = sorted(weights.networks - set(networks))
    for name in weights.active:
        absent += [asked for asked in LOSSES[name].asks if getattr(given, asked) is None]
    if absent:
        raise ValueError(f"the weights {weights.active} need what is not given: {absent}")
    found = {name: LOSSES[name].compute(given) for name in weights.active}
    return sum((weights.active[name] * loss for name, loss in found.items()), jnp.zeros(())), found
