"""The two noise processes of the paper behind one interface, and two variants of the first.

A process knows how a clean latent z_0 becomes the noisy z_t, how much signal z_t still holds, and
how the network's prediction leads back to a clean latent in one step. Arithmetic is fp32.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike


class Process(Protocol):
    @property
    def timesteps(self) -> int:
        """How many timesteps there are; t runs from 0 to timesteps - 1."""

    def noised(self, z0: Array, eps: Array, t: ArrayLike) -> Array:
        """z_t, from the clean latent and Gaussian noise (Eq. 1 and 3)."""

    def target(self, z0: Array, eps: Array) -> Array:
        """What the network is trained to predict of z_t, before OMGSR."""

    def injected(self, z_l: Array, t: ArrayLike) -> Array:
        """What takes the place of z_t where an LQ image's latent z_L enters at `t`."""

    def clean(self, z_t: Array, prediction: Array, t: ArrayLike) -> Array:
        """The clean latent, from z_t and what the network predicts there (Eq. 12 and 13)."""

    def noise(self, z_0: Array, prediction: Array) -> Array:
        """The noise in a z_t, from what the network predicts there and the clean latent."""

    def snr(self, t: ArrayLike, power: ArrayLike) -> Array:
        """The signal-to-noise ratio of z_t, for clean latents of mean square `power`."""

    def conditioning(self, t: ArrayLike) -> Array:
        """The time that the network is told."""

    def as_published(self, *, training: bool = False) -> "Process":
        """This process, telling the network what the published code tells it; in training, with
        latents in its precision."""


@dataclass(frozen=True)
class DDPM:
    """Denoising diffusion with Stable Diffusion's schedule; the network predicts the noise."""

    beta_start: float = 0.00085
    beta_end: float = 0.012
    timesteps: int = 1000

    def alpha_bar(self, t: ArrayLike) -> Array:
        """The share of signal power left at `t`."""
        betas = np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.timesteps) ** 2
        return jnp.asarray(np.cumprod(1 - betas), jnp.float32)[t]

    def noised(self, z0: Array, eps: Array, t: ArrayLike) -> Array:
        alpha_bar = _per_example(self.alpha_bar(t), z0)
        return jnp.sqrt(alpha_bar) * z0 + jnp.sqrt(1 - alpha_bar) * eps

    def target(self, z0: Array, eps: Array) -> Array:
        return eps

    def injected(self, z_l: Array, t: ArrayLike) -> Array:
        return z_l

    def clean(self, z_t: Array, prediction: Array, t: ArrayLike) -> Array:
        alpha_bar = _per_example(self.alpha_bar(t), z_t)
        noise = prediction.astype(jnp.float32)
        return (z_t - jnp.sqrt(1 - alpha_bar) * noise) / jnp.sqrt(alpha_bar)

    def noise(self, z_0: Array, prediction: Array) -> Array:
        return prediction.astype(jnp.float32)

    def snr(self, t: ArrayLike, power: ArrayLike) -> Array:
        alpha_bar = self.alpha_bar(t)
        return alpha_bar * power / (1 - alpha_bar)

    def conditioning(self, t: ArrayLike) -> Array:
        return jnp.asarray(t, jnp.float32)

    def as_published(self, *, training: bool = False) -> "DDPM":
        return self


@dataclass(frozen=True)
class ScaledDDPM(DDPM):
    """DDPM into which z_L enters scaled by sqrt(abar), which is z_t's mean. Not the printed form.

    As printed, z_L enters as it is, and the clean prediction divides it by sqrt(abar): a network
    must predict much to change nothing. Here a prediction of 0 leaves z_L as it is.
    """

    def injected(self, z_l: Array, t: ArrayLike) -> Array:
        return jnp.sqrt(_per_example(self.alpha_bar(t), z_l)) * z_l


@dataclass(frozen=True)
class Residual(DDPM):
    """DDPM's network put to another use (PiSA-SR): it predicts z_L - z_0, what a restorer takes
    away, and z_L enters as it is. The time is a constant that tells it so."""

    def clean(self, z_t: Array, prediction: Array, t: ArrayLike) -> Array:
        return z_t - prediction.astype(jnp.float32)


@dataclass(frozen=True)
class FlowMatching:
    """Rectified flow with FLUX's shifted sigmas; the network predicts the velocity eps - z_0.

    FLUX shifts its schedule by the number of image tokens. OMGSR uses the shift of a 1024-pixel
    image (4096 tokens) at every size, so `tokens` is a constant of the model.
    """

    timesteps: int = 1000
    tokens: int = 4096
    base_tokens: int = 256
    max_tokens: int = 4096
    base_shift: float = 0.5
    max_shift: float = 1.15
    # The published code rounds the network's time to bf16, and again in thousandths: it tells
    # .50511 as .504. In training its latents and its noise are bf16 too. Chosen by who builds a
    # network, so neither is in a model's description.
    rounded_time: bool = field(default=False, metadata={"stored": False})
    rounded_latents: bool = field(default=False, metadata={"stored": False})

    def __post_init__(self) -> None:
        if self.max_tokens <= self.base_tokens:
            raise ValueError(
                f"max_tokens, {self.max_tokens}, must be more than base_tokens, {self.base_tokens}"
            )

    def sigma(self, t: ArrayLike) -> Array:
        """The share of noise at `t`: 0 at t = 0, 1 at the last timestep.

        To the last digit of fp32 as the published code has it, or diffusers where one shift is for
        all sizes: networks are told a thousand times as much.
        """
        slope = (self.max_shift - self.base_shift) / (self.max_tokens - self.base_tokens)
        shift = math.exp(self.base_shift + slope * (self.tokens - self.base_tokens))
        unshifted = _falling(self.timesteps)[::-1]
        if self.base_shift == self.max_shift:  # the same function, written otherwise
            return jnp.asarray(shift * unshifted / (1 + (shift - 1) * unshifted))[t]
        with np.errstate(divide="ignore"):
            return jnp.asarray(1 / (shift + (1 / unshifted - 1)) * shift)[t]

    def noised(self, z0: Array, eps: Array, t: ArrayLike) -> Array:
        sigma, stored = _per_example(self.sigma(t), z0), self.stored
        return stored(stored((1 - sigma) * stored(z0)) + stored(sigma * stored(eps)))

    def target(self, z0: Array, eps: Array) -> Array:
        return eps - z0

    def injected(self, z_l: Array, t: ArrayLike) -> Array:
        return self.stored(z_l)

    def clean(self, z_t: Array, prediction: Array, t: ArrayLike) -> Array:
        sigma, stored = _per_example(self.sigma(t), z_t), self.stored
        return stored(z_t - stored(sigma * stored(prediction.astype(jnp.float32))))

    def noise(self, z_0: Array, prediction: Array) -> Array:
        return z_0 + prediction.astype(jnp.float32)

    def stored(self, z: Array) -> Array:
        """A latent as it is kept between two operations."""
        return _in_bf16(z) if self.rounded_latents else z

    def snr(self, t: ArrayLike, power: ArrayLike) -> Array:
        sigma = self.sigma(t)
        return jnp.square(1 - sigma) * power / jnp.square(sigma)

    def conditioning(self, t: ArrayLike) -> Array:
        sigma = self.sigma(t)
        if not self.rounded_time:
            return sigma
        return _in_bf16(_in_bf16(sigma) * 1000) / 1000

    def as_published(self, *, training: bool = False) -> "FlowMatching":
        return replace(self, rounded_time=True, rounded_latents=training)


def log_noise(process: Process, t: ArrayLike) -> Array:
    """The logarithm of the noise's power in z_t over the clean latent's."""
    return -jnp.log(process.snr(t, 1.0))


def timestep_of(process: Process, log_error: Array) -> Array:
    """Where the noise in z_t is as strong as an error of z_L: the SNR criterion (b -> b).

    SNR(z_L) = |z_H|^2 / |z_L - z_H|^2, and SNR(z_t) has |z_H|^2 in it too: the error decides alone.
    """
    noise = log_noise(process, jnp.arange(process.timesteps))
    return jnp.argmin(jnp.abs(noise - log_error[:, None]), axis=1)


def _in_bf16(x: Array) -> Array:
    """Rounded. XLA may leave out a conversion to bf16 and back, and does so in loops."""
    return lax.reduce_precision(x, 8, 7)


def _falling(count: int) -> np.ndarray:
    """From 1 to 0, as torch.linspace rounds it: either half counts from its own end."""
    step = np.float64(np.float32(1) / np.float32(count - 1))
    number = np.arange(count)
    return np.where(number < count // 2, 1 - number * step, (count - 1 - number) * step).astype(
        np.float32
    )


def _per_example(value: Array, z: Array) -> Array:
    """A scalar as it is, a value per example (b) with axes for z's remaining ones."""
    return value if value.ndim == 0 else value.reshape(-1, *[1] * (z.ndim - 1))
