"""The VAE on a canvas of fixed shape that holds an image, or a tile of one, of any size.

The modules are the ones of `models.vae`; this is another way to walk through them. Three things
differ from their own forward pass, so that one compiled program serves every size:

- What lies outside an item's box is zeroed in front of every convolution. That is the zero padding
  which the convolution would see if the canvas had the size of the box.
- Group norms count only the pixels of an item's core. They can also be given the statistics of the
  whole image that a tile belongs to, and they report what they counted.
- Attention passes over keys outside the box.

On an item that fills the canvas the result is that of the module itself.

Encoder and decoder come in two halves. The outer ones work at the image's resolutions, where the
memory goes, and see little further than a halo: they can be tiled. The inner ones, around the
middle block, work at the latents' resolution and attend to the whole image.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..generator import AnyVAE
from ..models.blocks import Downsample, ResnetBlock, SpatialAttention, Upsample
from ..models.layers import Conv, GroupNorm
from ..models.ops.attention import attention
from ..models.pixel_vae import CERTAIN, Branch, PixelVAE
from ..models.vae import MidBlock

# Which statistics a group norm uses: those of its item; those of the whole image; or the latter,
# moved by as much as the item's own have moved since those of the image were counted.
OWN, SHARED, DRIFTED = 0, 1, 2

_UNSEEN = -1e5  # the logit of a key that must not be seen, times sqrt(d)


class Statistics(NamedTuple):
    """What the group norms of a tile are given, in the order in which they come: k norms, g groups.

    The last axis of `image` and `before` holds mean and variance.
    """

    mode: Any  # scalar: OWN, SHARED or DRIFTED
    image: Any  # k b g 2: of the whole image that each item belongs to
    before: Any  # k b g 2: what the items had on their own when `image` was counted


class Items(NamedTuple):
    """What lies on the canvas: b items, in pixels of the image."""

    box: Any  # b 4: top, bottom, left, right of what exists
    core: Any  # b 4: of what is counted
    statistics: Statistics | None = None  # by default a group norm uses the item's own


def encode_outer(vae: AnyVAE, x: Array, items: Items) -> tuple[Array, Array]:
    """Images (b h w 3 in [-1, 1]) to features (b h/8 w/8 c), and the group norms' statistics."""
    walk = _Walk(items, x.shape[1])
    if isinstance(vae, PixelVAE):
        z = vae.encoder.components(x)
        return z + walk.branch(vae.encoder.branch, z), walk.counted()
    x = walk.conv(vae.encoder.conv_in, x)
    for block in vae.encoder.down_blocks:
        for resnet in block.resnets:
            x = walk.resnet(resnet, x)
        for downsample in block.downsamplers:
            x = walk.resample(downsample, x)
    return x, walk.counted()


def encode_inner(vae: AnyVAE, x: Array, items: Items) -> Array:
    """Features to the posterior's mean and log-variance, b h/8 w/8 2c."""
    if isinstance(vae, PixelVAE):
        mean = x.astype(jnp.float32)
        return jnp.concatenate([mean, jnp.full_like(mean, CERTAIN)], axis=-1)
    walk = _Walk(items, x.shape[1] * vae.config.downsampling)
    x = walk.middle(vae.encoder.mid_block, x)
    x = walk.conv(vae.encoder.conv_out, walk.norm_silu(vae.encoder.conv_norm_out, x))
    return (x if vae.quant_conv is None else vae.quant_conv(x)).astype(jnp.float32)


def decode_inner(vae: AnyVAE, z: Array, items: Items) -> Array:
    """Unscaled latents to features, b h/8 w/8 c."""
    if isinstance(vae, PixelVAE):
        return z
    walk = _Walk(items, z.shape[1] * vae.config.downsampling)
    z = z if vae.post_quant_conv is None else vae.post_quant_conv(z)
    return walk.middle(vae.decoder.mid_block, walk.conv(vae.decoder.conv_in, z))


def decode_outer(vae: AnyVAE, x: Array, items: Items) -> tuple[Array, Array]:
    """Features to images (b h w 3, around [-1, 1]), and the group norms' statistics."""
    walk = _Walk(items, x.shape[1] * vae.config.downsampling)
    if isinstance(vae, PixelVAE):
        return vae.decode(x).astype(jnp.float32), walk.counted()
    for block in vae.decoder.up_blocks:
        for resnet in block.resnets:
            x = walk.resnet(resnet, x)
        for upsample in block.upsamplers:
            x = walk.resample(upsample, x)
    x = walk.conv(vae.decoder.conv_out, walk.norm_silu(vae.decoder.conv_norm_out, x))
    return x.astype(jnp.float32), walk.counted()


def outer_norms(vae: AnyVAE) -> tuple[int, int]:
    """How many group norms the outer halves of encoder and decoder have."""
    if isinstance(vae, PixelVAE):
        return 0, 0
    encoder = sum(2 * len(block.resnets) for block in vae.encoder.down_blocks)
    return encoder, sum(2 * len(block.resnets) for block in vae.decoder.up_blocks) + 1


class _Walk:
    """One pass through a half; collects the statistics of its group norms."""

    def __init__(self, items: Items, canvas_height: int):
        self.items = items
        self.canvas_height = canvas_height
        self.moments: list[Array] = []

    def counted(self) -> Array:  # k b g 2
        if not self.moments:
            return jnp.zeros((0, len(self.items.box), 1, 2))
        return jnp.stack(self.moments)

    def branch(self, branch: Branch, x: Array) -> Array:
        return self.conv(branch.conv2, jax.nn.silu(self.conv(branch.conv1, x)))

    def conv(self, layer: Conv, x: Array) -> Array:
        return layer(self._only(self.items.box, x))

    def resample(self, layer: Downsample | Upsample, x: Array) -> Array:
        return layer(self._only(self.items.box, x))

    def resnet(self, block: ResnetBlock, x: Array) -> Array:
        h = self.conv(block.conv1, self.norm_silu(block.norm1, x))
        h = self.conv(block.conv2, self.norm_silu(block.norm2, h))
        return h + (x if block.conv_shortcut is None else block.conv_shortcut(x))

    def middle(self, block: MidBlock, x: Array) -> Array:
        x = self.resnet(block.resnets[0], x)
        for layer in block.attentions:
            x = self.attend(layer, x)
        return self.resnet(block.resnets[1], x)

    def norm_silu(self, layer: GroupNorm, x: Array) -> Array:
        return jax.nn.silu(self.norm(layer, x))

    def norm(self, layer: GroupNorm, x: Array) -> Array:
        b, h, w, c = x.shape
        of_group = c // layer.groups
        core = self._mask(self.items.core, x).reshape(b, h * w, 1)
        count = core.sum(1) * of_group  # b 1

        def averaged(values: Array) -> Array:  # b hw c -> b g
            of_channel = jnp.where(core, values, 0).sum(1)
            return of_channel.reshape(b, -1, of_group).sum(-1) / count

        def spread(per_group: Array) -> Array:  # b g -> b 1 c
            return jnp.repeat(per_group, of_group, axis=-1)[:, None]

        y = x.astype(jnp.float32).reshape(b, h * w, c)
        mean = averaged(y)
        variance = averaged(jnp.square(y - spread(mean)))
        self.moments.append(jnp.stack([mean, variance], axis=-1))
        mean, variance = self._of_image(mean, variance, layer.eps)
        scale = lax.rsqrt(spread(variance) + layer.eps) * layer.scale[...]
        y = (y - spread(mean)) * scale + layer.bias[...]
        return y.reshape(x.shape).astype(x.dtype)

    def _of_image(self, mean: Array, variance: Array, eps: float) -> tuple[Array, Array]:
        """What to normalise with, where an item counted `mean` and `variance` (b g) by itself."""
        given = self.items.statistics
        if given is None:
            return mean, variance
        image, before = given.image[len(self.moments) - 1], given.before[len(self.moments) - 1]
        growth = (variance + eps) / (before[..., 1] + eps)
        modes = [given.mode == OWN, given.mode == SHARED]
        return (
            jnp.select(modes, [mean, image[..., 0]], image[..., 0] + mean - before[..., 0]),
            jnp.select(modes, [variance, image[..., 1]], image[..., 1] * growth),
        )

    def attend(self, layer: SpatialAttention, x: Array) -> Array:
        """`SpatialAttention`, blind to what is outside the box.

        One more feature carries that: 1 in the queries, a large negative number in such keys. So
        every attention back-end can be used, whether it knows of masks or not.
        """
        b, h, w, c = x.shape
        tokens = self.norm(layer.group_norm, x).reshape(b, h * w, c)
        q, k, v = (project(tokens)[:, :, None] for project in (layer.to_q, layer.to_k, layer.to_v))
        seen = self._mask(self.items.box, x).reshape(b, h * w, 1, 1)
        extra = 8  # keeps the head size a multiple of 8
        ones = jnp.full((b, h * w, 1, extra), 1 / extra, q.dtype)
        q = jnp.concatenate([q * ((c + extra) / c) ** 0.5, ones], axis=-1)
        unseen = jnp.broadcast_to(jnp.where(seen, 0, _UNSEEN).astype(k.dtype), ones.shape)
        k = jnp.concatenate([k, unseen], axis=-1)
        v = jnp.concatenate([v, jnp.zeros_like(ones)], axis=-1)
        y = attention(q, k, v)[..., :c].reshape(b, h * w, c)
        return x + layer.to_out[0](y).reshape(x.shape)

    def _only(self, region: Array, x: Array) -> Array:
        return jnp.where(self._mask(region, x), x, 0)

    def _mask(self, region: Array, x: Array) -> Array:  # b h w 1
        shrunk = region // (self.canvas_height // x.shape[1])
        rows, columns = jnp.arange(x.shape[1])[None, :], jnp.arange(x.shape[2])[None, :]
        inside_rows = (rows >= shrunk[:, 0:1]) & (rows < shrunk[:, 1:2])
        inside_columns = (columns >= shrunk[:, 2:3]) & (columns < shrunk[:, 3:4])
        return (inside_rows[:, :, None] & inside_columns[:, None, :])[..., None]
