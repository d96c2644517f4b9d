"""nano's VAE: blocks of 4 x 4 pixels in their principal components.

The components are fixed, and nearly all of a photograph is in them: a network behind this VAE
starts from the image itself. The encoder has a small branch beside them, which begins as nothing
and learns what the LDR loss asks for. Latents come whitened (see `principal_components`), so there
is nothing left to scale.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from .layers import Conv, Rngs
from .vae import Posterior

# Y, Cb, Cr from R, G, B (BT.601), the chroma halved: an error there is seen less.
_YCC = np.diag([1.0, 0.5, 0.5]) @ np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)
CERTAIN = -30.0  # the log-variance of a posterior that is a point


@dataclass(frozen=True)
class PixelVAEConfig:
    latent_channels: int = 24
    patch: int = 4  # the side of a block in pixels
    branch_width: int = 64

    scaling_factor: ClassVar[float] = 1.0
    shift_factor: ClassVar[float] = 0.0
    norm_num_groups: ClassVar[int] = 1  # there are no norms

    def __post_init__(self) -> None:
        if self.latent_channels > (all_of_them := 3 * self.patch**2):
            raise ValueError(
                f"blocks of {self.patch} x {self.patch} pixels have {all_of_them} components, "
                f"latent_channels must not be more, but is {self.latent_channels}"
            )

    @property
    def downsampling(self) -> int:
        """How many image pixels stand behind one latent pixel, per side."""
        return self.patch

    @property
    def features(self) -> int:
        """The channels of the maps between the parts at the image's and the latents' resolution."""
        return self.latent_channels

    @property
    def channels_per_pixel(self) -> int:
        """The channels that meet at the image's resolution, where most memory is needed."""
        return 3 + -(-(self.branch_width + self.latent_channels) // self.patch**2)


class Branch(nnx.Module):
    """Two convolutions. The second begins at 0, so a new branch adds nothing."""

    def __init__(self, c_in: int, width: int, c_out: int, *, rngs: Rngs):
        self.conv1 = Conv(c_in, width, 3, padding=1, rngs=rngs)
        self.conv2 = Conv(width, c_out, 3, padding=1, rngs=rngs)
        if rngs is not None:
            self.conv2.kernel.set_value(jnp.zeros_like(self.conv2.kernel[...]))

    def __call__(self, x: Array, inside: Array | None = None) -> Array:
        """b h w c_in to b h w c_out. `inside` (b h w): the pixels that there are."""

        def only(x: Array) -> Array:
            return x if inside is None else jnp.where(inside[..., None], x, 0)

        return self.conv2(only(jax.nn.silu(self.conv1(only(x)))))


class Encoder(nnx.Module):
    def __init__(self, config: PixelVAEConfig, *, rngs: Rngs):
        latent, patch = config.latent_channels, config.patch
        self.components = Conv(3, latent, patch, stride=patch, rngs=rngs)
        self.branch = Branch(latent, config.branch_width, latent, rngs=rngs)

    def __call__(self, x: Array, inside: Array | None = None) -> Array:
        """b h w 3 to b h/4 w/4 c. `inside` (b h/4 w/4): the blocks that there are."""
        z = self.components(x)
        return z + self.branch(z, inside)

    def features(self, x: Array) -> list[Array]:
        """What a loss or a discriminator may look through: one map."""
        return [self(x)]


class Decoder(nnx.Module):
    def __init__(self, config: PixelVAEConfig, *, rngs: Rngs):
        latent, pixels = config.latent_channels, 3 * config.patch**2
        self.components = Conv(latent, pixels, 1, rngs=rngs)
        self.patch = config.patch

    def __call__(self, z: Array) -> Array:  # b h/4 w/4 c -> b h w 3
        return unfolded(self.components(z), self.patch)


class PixelVAE(nnx.Module):
    """The interface of `vae.VAE`."""

    def __init__(self, config: PixelVAEConfig, *, remat: bool = False, rngs: Rngs):
        del remat  # there is little to recompute
        self.encoder = Encoder(config, rngs=rngs)
        self.decoder = Decoder(config, rngs=rngs)
        self.config = config

    def encode(self, x: Array, inside: Array | None = None) -> Posterior:
        """Images in [-1, 1] to latents; the posterior is a point. See `Encoder` for `inside`."""
        mean = self.encoder(x, inside).astype(jnp.float32)
        return Posterior(mean, jnp.full_like(mean, CERTAIN))

    def latents(self, x: Array, key: Array | None = None) -> Array:
        """Images in [-1, 1] to scaled latents, fp32; a point leaves nothing to sample."""
        del key
        return self.encode(x).mode()

    def decode(self, z: Array) -> Array:
        """Latents to images around [-1, 1]."""
        return self.decoder(z)

    def scale(self, z: Array) -> Array:
        return z

    def unscale(self, z: Array) -> Array:
        return z


def unfolded(x: Array, patch: int) -> Array:  # b h/p w/p (p p c) -> b h w c
    """Puts the pixels of blocks, which stand in the channels row by row, where they belong."""
    b, h, w, _ = x.shape
    x = x.reshape(b, h, w, patch, patch, -1).swapaxes(2, 3)
    return x.reshape(b, h * patch, w * patch, -1)


class Components(NamedTuple):
    """The fixed kernels and biases of a `PixelVAE`, by the names of its weights."""

    encoder_kernel: np.ndarray  # p p 3 c
    encoder_bias: np.ndarray  # c
    decoder_kernel: np.ndarray  # 1 1 c (p p 3)
    decoder_bias: np.ndarray  # (p p 3)

    def weights(self) -> dict[str, np.ndarray]:
        names = (f"{side}.components.{kind}" for side in ("encoder", "decoder")
                 for kind in ("kernel", "bias"))  # fmt: skip
        return dict(zip(names, self, strict=True))


def principal_components(
    images: np.ndarray, config: PixelVAEConfig, whitening: float
) -> Components:
    """The components of the blocks of `images` (b h w 3, in [-1, 1]), most variance first.

    A component is divided by its deviation to the power of `whitening`: with 1 all have the same
    variance, with 0 they keep their own. Then all are scaled so that latents have unit variance.
    """
    p = config.patch
    b, h, w, _ = images.shape
    blocks = images.reshape(b, h // p, p, w // p, p, 3).swapaxes(2, 3).reshape(-1, p * p * 3)
    to_ycc = np.kron(np.eye(p * p), _YCC)  # (p p 3) (p p 3)
    mean = blocks.mean(0, dtype=np.float64)
    covariance = np.cov(blocks, rowvar=False, ddof=0, dtype=np.float64)
    variance, vectors = np.linalg.eigh(to_ycc @ covariance @ to_ycc.T)
    chosen = np.argsort(variance)[::-1][: config.latent_channels]
    deviation = np.sqrt(variance[chosen])
    divisor = deviation**whitening
    divisor *= np.sqrt(np.mean(np.square(deviation / divisor)))
    forth = to_ycc.T @ vectors[:, chosen] / divisor  # (p p 3) c
    back = (divisor * (np.linalg.inv(to_ycc) @ vectors[:, chosen])).T  # c (p p 3)
    found = forth.reshape(p, p, 3, -1), -mean @ forth, back[None, None], mean
    return Components(*(array.astype(np.float32) for array in found))
