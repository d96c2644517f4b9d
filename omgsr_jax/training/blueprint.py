"""The networks of a run with shapes in place of arrays, and the names of their weights.

Weights live in flat dicts by name: sharding rules, checkpoints and exports all speak of names. In
the step the networks are put together from them: the same frozen arrays serve the generator with
its adapters, the VAE without them (for the targets) and, where asked for, the perceptual losses.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from .. import architectures, converted, perceptual
from ..errors import InputError
from ..generator import OMGSR, AnyVAE, OMGSRConfig, make_vae
from ..losses.adversarial import (
    discriminator_loss,
    v1_discriminator_loss,
    v2_discriminator_loss,
)
from ..losses.total import Networks
from ..models.discriminator import (
    Discriminator,
    DiscriminatorParts,
    HeadsConfig,
    TokenHeadsConfig,
    TowerHeadsConfig,
    UNetHeadsConfig,
    take_apart,
)
from ..models.lora import SD_TARGETS, LoRASpec
from ..models.spectral_norm import SpectralVector
from ..weights import PRECISIONS, below, by_name, fill, variables
from .config import ModelConfig, TrainConfig
from .published import as_published

Weights = dict[str, Array]
Shapes = dict[str, jax.ShapeDtypeStruct]

NETWORKS = "networks."
HEADS = "heads."
_OWN_ENCODER = "vae_encoder"
_DISCRIMINATOR_LOSSES: dict[str | None, Callable[..., tuple[Array, nnx.State]]] = {
    None: discriminator_loss,
    "v1": v1_discriminator_loss,
    "v2": v2_discriminator_loss,
}


@dataclass(frozen=True)
class Blueprint:
    config: TrainConfig
    generator_config: OMGSRConfig
    generator: OMGSR  # with adapters
    vae: AnyVAE  # without
    networks: dict[str, nnx.Module]  # by their names in `perceptual.NETWORKS`
    discriminator: Discriminator | None

    @classmethod
    def of(cls, config: TrainConfig) -> "Blueprint":
        """The networks that a config asks for; reads the descriptions of models, and no weights.

        What `config.quirks` asks for is chosen here, and in `discriminator_loss`.
        """
        generator_config, kind = _generator_config(config.model), OMGSR
        if config.quirks:
            generator_config, kind = as_published(generator_config)
            # The published schedule ignores its warm-up.
            unwarmed = dataclasses.replace(config.optimizer, warmup=0)
            config = dataclasses.replace(config, optimizer=unwarmed)
        remat = config.model.remat
        generator = kind(generator_config, remat=remat, rngs=None)
        parts = set(config.losses.networks)
        if config.losses.gan:
            parts.add(config.discriminator.backbone)
        vae = make_vae(generator_config.vae, remat=remat, rngs=None)
        own = {name: of(vae) for name, of in perceptual.OWN.items()}
        networks = _networks(config, parts - own.keys())
        backbones = {**networks, **own}
        discriminator = (
            _discriminator(config, backbones[config.discriminator.backbone])
            if config.losses.gan
            else None
        )
        return cls(config, generator_config, generator, vae, networks, discriminator)

    @property
    def discriminator_loss(self) -> Callable[..., tuple[Array, nnx.State]]:
        return _DISCRIMINATOR_LOSSES[self.config.quirks]

    @property
    def adapters(self) -> Shapes:
        """What is trained of the generator: its adapters, and the parts that are trained whole."""
        found = variables(self.generator)
        return shapes({n: v for n, v in found.items() if _is_adapter(v) or self._is_whole(n)})

    def _is_whole(self, name: str) -> bool:
        return name.startswith(self.config.model.whole)

    @property
    def heads(self) -> Shapes:
        return shapes({n: v for n, v in self._judging.items() if isinstance(v, nnx.Param)})

    @property
    def spectral(self) -> Shapes:
        return shapes({n: v for n, v in self._judging.items() if isinstance(v, SpectralVector)})

    @property
    def _judging(self) -> dict[str, nnx.Variable]:
        if self.discriminator is None:
            return {}
        found = variables(self.discriminator)
        return {name: leaf for name, leaf in found.items() if name.startswith(HEADS)}

    @property
    def frozen(self) -> Shapes:
        """Everything that is not trained, in the precision to compute in."""
        precision = self.config.model.precision
        generator = {
            name: jax.ShapeDtypeStruct(leaf.shape, PRECISIONS[precision])
            for name, leaf in variables(self.generator).items()
            if not _is_adapter(leaf)
            # The targets are the pre-trained VAE's, which stays.
            and (name.startswith("vae.") or not self._is_whole(name))
        }
        looked_through = {
            f"{NETWORKS}{part}.{name}": jax.ShapeDtypeStruct(
                leaf.shape, perceptual.dtype_of(part, precision)
            )
            for part, network in self.networks.items()
            for name, leaf in variables(network).items()
        }
        return generator | looked_through

    def assemble_networks(self, frozen: Mapping[str, Array]) -> Networks:
        """What the losses look through."""
        found = Networks()
        for part, network in self.networks.items():
            found[part] = fill(network, below(f"{NETWORKS}{part}.", frozen))
        if _OWN_ENCODER in self.config.losses.networks:
            found[_OWN_ENCODER] = fill(self.vae.encoder, below("vae.encoder.", frozen))
        return found

    def assemble_discriminator(
        self, frozen: Mapping[str, Array], heads: Weights, spectral: Weights
    ) -> DiscriminatorParts:
        assert self.discriminator is not None
        part = self.config.discriminator.backbone
        prefix = "vae.encoder." if part == _OWN_ENCODER else f"{NETWORKS}{part}."
        backbone = {f"backbone.{k}": v for k, v in below(prefix, frozen).items()}
        return take_apart(fill(self.discriminator, backbone | heads | spectral))


def values(state: nnx.State) -> Weights:
    """The arrays of a state by name."""
    return {name: leaf[...] for name, leaf in by_name(state).items()}


def _is_adapter(leaf: nnx.Variable) -> bool:
    return isinstance(leaf, nnx.LoRAParam)


def shapes(leaves: Mapping[str, nnx.Variable]) -> Shapes:
    return {n: jax.ShapeDtypeStruct(v.shape, jnp.float32) for n, v in leaves.items()}


def _generator_config(model: ModelConfig) -> OMGSRConfig:
    if bool(model.path) == bool(model.architecture):
        raise InputError(
            "set either config.model.path, a converted model (see `omgsr convert`), or "
            "config.model.architecture, for random weights, one of "
            f"{', '.join(architectures.ARCHITECTURES)}"
        )
    if model.path:
        base = converted.read_card(model.path).generator
    else:
        base = architectures.named(model.architecture)
    specs: dict[str, Any] = {
        name: _adapter(getattr(base, name), rank, targets, name)
        for name, rank, targets in (
            ("encoder_lora", model.encoder_rank, SD_TARGETS),
            ("backbone_lora", model.backbone_rank, base.backbone.lora_targets),
        )
    }
    t_m = base.mid_timestep if model.mid_timestep is None else model.mid_timestep
    if not 0 <= t_m < base.process.timesteps:
        raise InputError(
            f"config.model.mid_timestep is {t_m}, expected 0 to {base.process.timesteps - 1}"
        )
    return dataclasses.replace(base, mid_timestep=t_m, **specs)


def _adapter(
    present: LoRASpec | None, rank: int, targets: tuple[str, ...], name: str
) -> LoRASpec | None:
    """The base's own adapter, whose training goes on, or a new one with alpha = rank."""
    if present is None and not rank:
        return None
    if present is None:
        return LoRASpec(rank=rank, alpha=rank, targets=targets)
    if present.rank != rank:
        raise InputError(
            f"the base has a {name} of rank {present.rank} already, the config wants rank {rank}: "
            "set the same rank to train it on, or convert the base without --adapter"
        )
    return present


def _networks(config: TrainConfig, parts: set[str]) -> dict[str, nnx.Module]:
    directory, remat = config.model.perceptual, config.model.remat
    if directory:
        configs = perceptual.configs(directory, parts)
    elif config.model.architecture or not parts:
        configs = {part: perceptual.NETWORKS[part].config() for part in parts}
    else:
        raise InputError(
            f"the losses need {', '.join(sorted(parts))}: set config.model.perceptual to a "
            "directory that `omgsr convert --perceptual` wrote"
        )
    if config.quirks:
        configs = perceptual.as_published(configs)
    return {part: perceptual.abstract(part, configs[part], remat=remat) for part in sorted(parts)}


def _discriminator(config: TrainConfig, backbone: Any) -> Discriminator:
    wanted = config.discriminator
    channels = _channels(backbone, wanted.image_size or 64)
    try:
        widths = tuple(channels[level] for level in wanted.levels)
    except IndexError:
        raise InputError(
            f"config.discriminator.levels is {wanted.levels}, but {wanted.backbone} has "
            f"{len(channels)} feature maps"
        ) from None
    seen: dict[str, Any] = {"levels": wanted.levels, "image_size": wanted.image_size}
    heads: HeadsConfig
    match wanted.heads:
        case "token":
            heads = TokenHeadsConfig(widths[0], wanted.width, **seen)
        case "tower":
            heads = TowerHeadsConfig(widths, wanted.layout, **seen)
        case _:
            heads = UNetHeadsConfig(widths, wanted.width, **seen)
    return Discriminator(backbone, heads, rngs=None)


def _channels(backbone: Any, pixels: int) -> list[int]:
    graph, state = nnx.split(backbone)
    image = jax.ShapeDtypeStruct((1, pixels, pixels, 3), jnp.float32)
    maps = jax.eval_shape(lambda state, x: nnx.merge(graph, state).features(x), state, image)
    return [m.shape[-1] for m in maps]
