"""One optimiser step of OMGSR (Fig. 5 of the paper, Eq. 10 to 16) as one pure function.

A scan over micro-batches accumulates the gradients of the generator's adapters and of the
discriminator's heads; then both are clipped and both optimisers step. Every random number comes
from (seed, step, the example's number in the step), so it does not depend on the mesh.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import Mesh
from jax.typing import ArrayLike

from ..compile_options import compiler_options
from ..data import DataConfig, DegradationConfig, signed
from ..data.degradation_jax import degrade_function, plan_shapes
from ..generator import OMGSR
from ..losses.adversarial import (
    generator_loss,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from ..losses.total import Restoration, total
from ..models import shifts
from ..models.sampling import sampled_normal
from ..process import timestep_of
from ..weights import below, fill
from .blueprint import Blueprint, Weights, values
from .layout import (
    Layout,
    Reader,
    batch_sharding,
    check_batch,
    check_rows,
    gathering,
    micro_batches_sharding,
    readers,
    replicated,
)
from .skipping import unless_not_finite, updates
from .state import TrainState, learning_rate, optimizer

_LEAST_ERROR = 1e-6  # of latents, where an image is its own original
# Adam does not mind, and the norm by which all gradients are clipped hardly knows of it.
_SHARE_OF_TIMESTEPS = 0.01
Batch = dict[str, Any]  # lr, hr: b h w 3, uint8 or float in [-1, 1]; or hr, and plan for lr
Metrics = dict[str, Array]
Step = Callable[[TrainState, Weights, Batch], tuple[TrainState, Metrics]]


class _Judged(NamedTuple):
    """What a discriminator sees: images, or their latents."""

    original: Array
    restored: Array


class _Timesteps(NamedTuple):
    """Where z_L enters (b, or all at one), and what it costs to have chosen wrongly, if it was."""

    entered: ArrayLike
    loss: Array | None


class _Sums(NamedTuple):
    """What the micro-batches add up to, and the vectors that they hand on."""

    generator: Weights
    discriminator: Weights
    terms: Metrics
    spectral: Weights


def make_step(blueprint: Blueprint, mesh: Mesh) -> Step:
    """The step as a pure function, to be jitted."""
    config = blueprint.config
    adam = optimizer(config.optimizer, config.run)
    rate = learning_rate(config.optimizer, config.run)
    count = config.data.accumulation
    numbers = _numbers(readers(config.data.batch_size, mesh))
    as_floats = _as_floats(config.data, mesh)

    def step(state: TrainState, frozen: Weights, batch: Batch) -> tuple[TrainState, Metrics]:
        step_key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        micro_batches = _divided(batch | {"number": jnp.asarray(numbers)}, count, mesh)

        def accumulate(sums: _Sums, micro: Batch) -> tuple[_Sums, Array]:
            gradients, terms, spectral, ok = _gradients(
                blueprint, state, sums.spectral, frozen, as_floats(micro), step_key
            )
            g, d, t = jax.tree.map(lambda a, b: a + b / count, sums[:3], (*gradients, terms))
            return _Sums(g, d, t, spectral), ok

        zeros = _Sums(
            jax.tree.map(jnp.zeros_like, state.generator),
            jax.tree.map(jnp.zeros_like, state.discriminator),
            {name: jnp.zeros(()) for name in _term_names(blueprint)},
            state.spectral,
        )
        if count == 1:  # no loop, whose body the compiler would count and schedule by itself
            sums, ok = accumulate(zeros, jax.tree.map(lambda x: x[0], micro_batches))
            ok = ok[None]
        else:
            sums, ok = lax.scan(accumulate, zeros, micro_batches)

        g_update, g_optimizer = adam.update(
            sums.generator, state.generator_optimizer, state.generator
        )
        d_update, d_optimizer = adam.update(
            sums.discriminator, state.discriminator_optimizer, state.discriminator
        )
        generator = optax.apply_updates(state.generator, g_update)
        new = TrainState(
            step=state.step + 1,
            generator=generator,
            discriminator=optax.apply_updates(state.discriminator, d_update),
            spectral=sums.spectral,
            generator_optimizer=g_optimizer,
            discriminator_optimizer=d_optimizer,
            ema=_averaged(state.ema, generator, config.optimizer.ema),
        )
        metrics = sums.terms | {
            "gradient/generator": optax.global_norm(sums.generator),
            "gradient/discriminator": optax.global_norm(sums.discriminator),
            "learning_rate": rate(updates(state)),
            "ok": ok.swapaxes(0, 1).reshape(-1),  # per example, in the order of the batch
        }
        return (
            unless_not_finite(state, new, metrics) if config.run.skip_not_finite else (new, metrics)
        )

    return step


def _as_floats(data: DataConfig, mesh: Mesh) -> Callable[[Batch], Batch]:
    """Of a micro-batch: `lr` and `hr` in [-1, 1], degraded here if so configured.

    Within the step, so that processes cannot begin the two in different orders.
    """
    degradation = data.degradation_config
    if data.degrade_on == "device":
        assert isinstance(degradation, DegradationConfig)
        degrade = degrade_function(degradation, batch_sharding(mesh))

    def as_floats(micro: Batch) -> Batch:
        pairs = {"hr": micro["hr"], "number": micro["number"]}
        pairs["lr"] = degrade(micro["hr"], micro["plan"]) if "plan" in micro else micro["lr"]
        return pairs | {
            name: signed(pairs[name]) for name in ("lr", "hr") if pairs[name].dtype == jnp.uint8
        }

    return as_floats


def compile_ready(blueprint: Blueprint, layout: Layout) -> Any:
    """The jitted step: donates the state, knows every sharding, and can be lowered from shapes."""
    mesh = layout.mesh
    check(blueprint, mesh)
    laid_out = replace(blueprint, generator=gathering(blueprint.generator, layout.weights))
    if blueprint.judges_latents:
        assert blueprint.discriminator is not None
        weights = {f"backbone.{name}": sharding for name, sharding in layout.weights.items()}
        laid_out = replace(laid_out, discriminator=gathering(blueprint.discriminator, weights))
    return jax.jit(
        make_step(laid_out, mesh),
        in_shardings=(layout.state_sharding, layout.frozen_sharding, batch_sharding(mesh)),
        out_shardings=(layout.state_sharding, replicated(mesh)),
        donate_argnums=0,
        compiler_options=compiler_options(mesh),
    )


def check(blueprint: Blueprint, mesh: Mesh) -> None:
    """Can the step's images be divided among the mesh's devices?"""
    data = blueprint.config.data
    check_batch(data.batch_size, data.accumulation, mesh)
    check_rows(data.resolution, blueprint.generator.multiple, mesh)


def batch_shapes(blueprint: Blueprint) -> dict[str, Any]:
    data = blueprint.config.data
    size, degradation = (data.resolution, data.resolution), data.degradation_config
    images = jax.ShapeDtypeStruct((data.batch_size, *size, 3), jnp.uint8)
    if data.degrade_on == "host":
        return {"lr": images, "hr": images}
    assert isinstance(degradation, DegradationConfig)
    return {"plan": plan_shapes(degradation, size, data.batch_size), "hr": images}


def _gradients(
    blueprint: Blueprint,
    state: TrainState,
    spectral: Weights,
    frozen: Weights,
    micro: Batch,
    step_key: Array,
) -> tuple[tuple[Weights, Weights], Metrics, Weights, Array]:
    """Both gradients of one micro-batch, the losses, the next vectors, and which examples are ok.

    Both networks are judged as they were before the step, also where it has many micro-batches.
    """
    config = blueprint.config
    *latent_keys, augment_key = example_keys(step_key, micro["number"])

    def generator_side(adapters: Weights) -> tuple[Array, Any]:
        restored, judged, timesteps = _restore(blueprint, adapters, frozen, micro, latent_keys)
        gan, vectors = None, spectral
        if config.losses.gan:
            parts = blueprint.assemble_discriminator(frozen, state.discriminator, spectral)
            if config.discriminator.relativistic:
                gan, next_state = relativistic_generator_loss(parts, *judged)
            else:
                gan, next_state = generator_loss(
                    parts, judged.restored, augment_key, chunk=config.discriminator.chunk
                )
            vectors = values(next_state)
        loss, terms = total(
            config.losses,
            blueprint.assemble_networks(frozen),
            restored,
            process=blueprint.generator_config.process,
            t_m=timesteps.entered,
            gan=gan,
        )
        if timesteps.loss is not None:
            loss = loss + _SHARE_OF_TIMESTEPS * timesteps.loss
            terms = terms | {"timestep": timesteps.loss}
        ok = jnp.isfinite(restored.x_p).all((1, 2, 3)) & jnp.isfinite(restored.z_l).all((1, 2, 3))
        return loss, (terms, vectors, judged, ok)

    (loss, (terms, spectral, judged, ok)), g_gradient = jax.value_and_grad(
        generator_side, has_aux=True
    )(state.generator)
    terms = terms | {"generator": loss}
    if not config.losses.gan:
        return (g_gradient, {}), terms, spectral, ok

    def discriminator_side(heads: Weights) -> tuple[Array, Any]:
        parts = blueprint.assemble_discriminator(frozen, heads, spectral)
        if config.discriminator.relativistic:
            loss, next_state = relativistic_discriminator_loss(parts, *judged)
        else:
            loss, next_state = blueprint.discriminator_loss(
                parts, *judged, augment_key, chunk=config.discriminator.chunk
            )
        return config.losses.gan * loss, (loss, values(next_state))

    d_gradient, (loss, spectral) = jax.grad(discriminator_side, has_aux=True)(state.discriminator)
    return (g_gradient, d_gradient), terms | {"discriminator": loss}, spectral, ok


def _restore(
    blueprint: Blueprint, adapters: Weights, frozen: Weights, micro: Batch, keys: list[Array]
) -> tuple[Restoration, _Judged, _Timesteps]:
    """x_P from x_L through the adapted generator, and the targets without a gradient."""
    for_z_l, for_z_h, for_eps = keys
    generator = fill(blueprint.generator, frozen | adapters)
    vae = fill(blueprint.vae, below("vae.", frozen))
    z_h = lax.stop_gradient(vae.latents(micro["hr"], for_z_h))
    z_l = generator.encode(micro["lr"], for_z_l)
    timesteps = _Timesteps(generator.t_m, None)
    if generator.timestep_head is not None:
        errors = jnp.square(vae.latents(micro["lr"]) - vae.latents(micro["hr"])).mean((1, 2, 3))
        timesteps = _timesteps(blueprint, generator, z_l, lax.stop_gradient(errors), for_eps)
    z_p = _one_step(blueprint, generator, z_l, timesteps.entered, for_eps)
    x_p = generator.decode(z_p)
    found = Restoration(x_p, micro["hr"], z_l, z_h, sampled_normal(for_eps, z_h.shape))
    judged = _Judged(z_h, z_p) if blueprint.judges_latents else _Judged(micro["hr"], x_p)
    return found, judged, timesteps


def _timesteps(
    blueprint: Blueprint, generator: OMGSR, z_l: Array, errors: Array, for_eps: Array
) -> _Timesteps:
    """Around what the head predicts, which is to be what the pre-trained VAE's `errors` (b) say."""
    assert generator.timestep_head is not None
    process, most = generator.process, blueprint.config.model.timestep_spread
    predicted = generator.timestep_head(lax.stop_gradient(z_l))
    loss = jnp.square(predicted - jnp.log(errors + _LEAST_ERROR)).mean()
    keys = _further_keys(for_eps, 2)
    spread = jax.vmap(lambda key: jax.random.randint(key, (), -most, most + 1))(keys)
    entered = timestep_of(process, lax.stop_gradient(predicted)) + spread
    return _Timesteps(jnp.clip(entered, 0, process.timesteps - 1), loss)


def _one_step(
    blueprint: Blueprint, generator: OMGSR, z_l: Array, t: ArrayLike, for_eps: Array
) -> Array:
    """z_P, where asked for of latents that each lie elsewhere in the backbone's patches."""

    def one_step(z_l: Array) -> Array:
        return generator.one_step(z_l, t)

    if not blueprint.config.model.shifts:
        return one_step(z_l)
    patch = blueprint.generator_config.backbone.patch
    places = shifts.sampled_places(_further_keys(for_eps, 1), patch)
    return shifts.moved(one_step, z_l, places, patch)


def _further_keys(for_eps: Array, number: int) -> Array:
    """Keys for what not every run samples: one that does not samples all else as those that do."""
    return jax.vmap(jax.random.fold_in, (0, None))(for_eps, number)


def _term_names(blueprint: Blueprint) -> list[str]:
    losses = blueprint.config.losses
    adaptive = ["timestep"] if blueprint.generator_config.adaptive else []
    return [*losses.active, *adaptive, "generator", *(["discriminator"] if losses.gan else [])]


def _numbers(all_readers: Sequence[Reader]) -> np.ndarray:
    """The number of each row's example in the step.

    Readers take examples in turn, so that the same example has the same number whatever the number
    of readers and wherever their rows are.
    """
    numbers = np.empty(sum(len(reader.rows) for reader in all_readers), np.int32)
    for reader in all_readers:
        turns = np.arange(len(reader.rows)) * len(all_readers)
        numbers[list(reader.rows)] = turns + reader.number
    return numbers


def example_keys(step_key: Array, numbers: Array) -> Array:
    """Four keys for every example: z_L, z_H, noise, augmentation (4 b)."""

    def of_one(number: Array) -> Array:
        return jax.random.split(jax.random.fold_in(step_key, number), 4)

    return jax.vmap(of_one, out_axes=1)(numbers)


def _divided(batch: Batch, count: int, mesh: Mesh) -> Batch:
    """b ... -> count b/count ...: every device divides what it has, so that nothing is moved."""

    def divide(name: str, x: Array) -> Array:
        x = x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)
        return lax.with_sharding_constraint(x, micro_batches_sharding(name, mesh))

    return {name: jax.tree.map(partial(divide, name), part) for name, part in batch.items()}


def _averaged(ema: Weights, generator: Weights, decay: float) -> Weights:
    return {name: decay * mean + (1 - decay) * generator[name] for name, mean in ema.items()}
