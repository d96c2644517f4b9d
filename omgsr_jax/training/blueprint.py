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
from ..models.timestep_head import TimestepHeadConfig
from ..process import Residual, log_noise
from ..weights import PRECISIONS, below, by_name, fill, variables
from .config import LATENTS, ModelConfig, TrainConfig
from .published import as_published

Weights = dict[str, Array]
Shapes = dict[str, jax.ShapeDtypeStruct]

NETWORKS = "networks."
HEADS = "heads."
TIMESTEP_HEAD = "timestep_head."
_OWN_ENCODER = "vae_encoder"
_PREFIXES = {_OWN_ENCODER: "vae.encoder.", LATENTS: ""}  # of weights that are the generator's own
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
        if config.model.shifts:
            _require_patches(generator_config)
        vae = make_vae(generator_config.vae, remat=remat, rngs=None)
        own = {name: of(vae) for name, of in perceptual.OWN.items()}
        parts, judge = set(config.losses.networks), config.discriminator.backbone
        if config.losses.gan:
            parts.add(judge)
        if judge == LATENTS:
            own[LATENTS] = OMGSR(generator_config.without_adapters, remat=remat, rngs=None)
        networks = _networks(config, parts - own.keys())
        blueprint = cls(config, generator_config, generator, vae, networks, None)
        if not config.losses.gan:
            return blueprint
        found = _discriminator(config, {**networks, **own}[judge], blueprint.judged_shape)
        return dataclasses.replace(blueprint, discriminator=found)

    @property
    def judges_latents(self) -> bool:
        return bool(self.config.losses.gan) and self.config.discriminator.sees_latents

    @property
    def judged_shape(self) -> tuple[int, int, int]:
        """What a discriminator sees of a crop, an image or its latents: h w c."""
        pixels = self.config.data.resolution
        if not self.judges_latents:
            return pixels, pixels, 3
        vae = self.generator_config.vae
        return pixels // vae.downsampling, pixels // vae.downsampling, vae.latent_channels

    @property
    def discriminator_loss(self) -> Callable[..., tuple[Array, nnx.State]]:
        return _DISCRIMINATOR_LOSSES[self.config.quirks]

    @property
    def adapters(self) -> Shapes:
        """What is trained of the generator: its adapters, and the parts that are trained whole."""
        found = variables(self.generator)
        return shapes({n: v for n, v in found.items() if _is_adapter(v) or self._is_whole(n)})

    def _is_whole(self, name: str) -> bool:
        return name.startswith((*self.config.model.whole, TIMESTEP_HEAD))

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
            if not (_is_adapter(leaf) or name.startswith(TIMESTEP_HEAD))
            # The targets are the pre-trained VAE's, which stays, as does what latents are seen by.
            and (name.startswith("vae.") or self.judges_latents or not self._is_whole(name))
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
        prefix = _PREFIXES.get(part, f"{NETWORKS}{part}.")
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
    if base.adaptive and model.adaptive:  # its head has begun there
        t_m = base.mid_timestep
    if not 0 <= t_m < base.process.timesteps:
        raise InputError(
            f"config.model.mid_timestep is {t_m}, expected 0 to {base.process.timesteps - 1}"
        )
    return dataclasses.replace(base, mid_timestep=t_m, adaptive=_head(base, model, t_m), **specs)


def _head(base: OMGSRConfig, model: ModelConfig, t_m: int) -> TimestepHeadConfig | None:
    """What chooses each image's mid-timestep: the base's own head, whose training goes on, or a
    new one that begins at t_m. Without one, a timestep that is asked for is that of all images."""
    if not model.adaptive:
        return None if model.mid_timestep is not None else base.adaptive
    if isinstance(base.process, Residual):
        raise InputError(
            "the base takes z_L as it is at any time: set config.model.adaptive to False"
        )
    if not jnp.isfinite(log_noise(base.process, t_m)):
        raise InputError(
            f"config.model.mid_timestep is {t_m}, where there is no noise, or nothing else: choose "
            "another one for model.adaptive to begin at"
        )
    return base.adaptive or TimestepHeadConfig()


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


def _require_patches(config: OMGSRConfig) -> None:
    if config.backbone.patch == 1:
        raise InputError(
            "config.model.shifts moves latents by less than the backbone's patch, and this one "
            "takes latents one by one: set it to False"
        )


def _discriminator(
    config: TrainConfig, backbone: Any, shape: tuple[int, int, int]
) -> Discriminator:
    wanted = config.discriminator
    if wanted.image_size:
        shape = (wanted.image_size, wanted.image_size, 3)
    maps = _maps(backbone, shape)
    try:
        seen_maps = [maps[level] for level in wanted.levels]
    except IndexError:
        raise InputError(
            f"config.discriminator.levels is {wanted.levels}, but {wanted.backbone} has "
            f"{len(maps)} feature maps"
        ) from None
    widths = tuple(map_shape[-1] for map_shape in seen_maps)
    seen: dict[str, Any] = {"levels": wanted.levels, "image_size": wanted.image_size}
    heads: HeadsConfig
    match wanted.heads:
        case "token":
            heads = TokenHeadsConfig(widths[0], wanted.width, **seen)
        case "tower":
            heads = TowerHeadsConfig(widths, wanted.layout, **seen)
        case _:
            _require_halving(seen_maps[0], wanted.backbone)
            heads = UNetHeadsConfig(widths, wanted.width, **seen)
    return Discriminator(backbone, heads, rngs=None)


def _require_halving(shape: tuple[int, ...], backbone: str) -> None:
    if shape[0] % 8 or shape[1] % 8:
        raise InputError(
            f"discriminator.heads 'unet' takes maps whose sides are multiples of 8, but those of "
            f"{backbone} have {shape[0]} x {shape[1]}: take other heads, another level or a larger "
            "data.resolution"
        )


def _maps(backbone: Any, shape: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """The shapes of a backbone's feature maps, of what has this one: h w c."""
    graph, state = nnx.split(backbone)
    seen = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    maps = jax.eval_shape(lambda state, x: nnx.merge(graph, state).features(x), state, seen)
    return [found.shape[1:] for found in maps]
