"""The VAE in strips of rows, and on canvases that are larger than the images on them.

The modules are those of `models`; this is another way to walk through them, with the same result.

- A convolution, with the norm before and the sum behind it, goes over a map strip by strip: a strip
  with its halo is normalised, convolved and written. Only whole maps are kept, nothing between.
- The moments that the next group norm needs are counted on the way.
- What lies outside an image's box is zeroed before every convolution: that is the padding which the
  convolution would see at the image's own edge. Moments count the box only, attention passes over
  keys outside of it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..generator import AnyVAE
from ..models.blocks import Downsample, ResnetBlock, SpatialAttention, Upsample
from ..models.layers import Conv, GroupNorm
from ..models.pixel_vae import PixelVAE
from ..models.vae import VAE, MidBlock, Posterior
from .options import LEAST_STRIP
from .sizes import Size


class Moments(NamedTuple):
    """What a group norm needs to know, of each image and group: b g."""

    number: Array  # of values
    mean: Array
    squares: Array  # the sum of squared deviations

    def with_more(self, more: "Moments") -> "Moments":
        number = self.number + more.number
        share = more.number / jnp.maximum(number, 1)
        apart = more.mean - self.mean
        return Moments(
            number,
            self.mean + apart * share,
            self.squares + more.squares + jnp.square(apart) * self.number * share,
        )


class Map(NamedTuple):
    """Features with a row of margin above and below, whose content does not matter."""

    x: Array  # b h+2 w c
    moments: Moments | None = None

    @property
    def size(self) -> Size:
        return self.x.shape[1] - 2, self.x.shape[2]

    def rows(self, start: Any, count: int) -> Array:
        """From row `start` on, where -1 is the margin."""
        return lax.dynamic_slice_in_dim(self.x, start + 1, count, axis=1)


def walk(vae: AnyVAE, canvas: Size, box: Array | None, strip: int) -> "VAEWalk | PixelVAEWalk":
    """`encode` and `decode` of a VAE.

    Args:
        canvas: height and width of the images.
        box: those of what each image fills (b 2), if that is less.
        strip: the pixels of a strip, 0 for all at once.
    """
    layers = Layers(canvas, box, strip)
    return PixelVAEWalk(vae, layers) if isinstance(vae, PixelVAE) else VAEWalk(vae, layers)


class PixelVAEWalk:
    """nano's VAE has no norms, and works on small maps: it is never done in strips."""

    def __init__(self, vae: PixelVAE, layers: "Layers"):
        self.vae, self.layers = vae, layers

    def encode(self, x: Array) -> Posterior:
        patch = self.vae.config.patch
        return self.vae.encode(x, self.layers.inside((x.shape[1] // patch, x.shape[2] // patch)))

    def decode(self, z: Array) -> Array:
        return self.vae.decode(z)


class VAEWalk:
    """`models.vae.VAE`."""

    def __init__(self, vae: VAE, layers: "Layers"):
        self.vae, self.layers = vae, layers
        self.groups = vae.config.norm_num_groups

    def encode(self, x: Array) -> Posterior:
        encoder = self.vae.encoder
        y = self._conv(encoder.conv_in, _with_margin(x))
        for block in encoder.down_blocks:
            for resnet in block.resnets:
                y = self._resnet(resnet, y)
            for downsample in block.downsamplers:
                y = self._halved(downsample, y)
        y = self._middle(encoder.mid_block, y)
        y = self._conv(encoder.conv_out, y, norm=encoder.conv_norm_out, counted=False)
        return self.vae.posterior(y.rows(0, y.size[0]))

    def decode(self, z: Array) -> Array:
        decoder = self.vae.decoder
        y = self._conv(decoder.conv_in, _with_margin(self.vae.decoded_from(z)))
        y = self._middle(decoder.mid_block, y)
        for block in decoder.up_blocks:
            for resnet in block.resnets:
                y = self._resnet(resnet, y)
            for upsample in block.upsamplers:
                y = self._doubled(upsample, y)
        y = self._conv(decoder.conv_out, y, norm=decoder.conv_norm_out, counted=False)
        return y.rows(0, y.size[0])

    def _middle(self, block: MidBlock, y: Map) -> Map:
        y = self._resnet(block.resnets[0], y)
        for layer in block.attentions:
            y = self._attended(layer, y)
        return self._resnet(block.resnets[1], y)

    def _resnet(self, block: ResnetBlock, y: Map) -> Map:
        h = self._conv(block.conv1, y, norm=block.norm1)
        shortcut = block.conv_shortcut or (lambda x: x)
        return self._conv(block.conv2, h, norm=block.norm2, add=lambda *at: shortcut(y.rows(*at)))

    def _conv(
        self,
        layer: Conv,
        y: Map,
        *,
        norm: GroupNorm | None = None,
        add: Callable[[Any, int], Array] | None = None,
        counted: bool = True,
    ) -> Map:
        """A 3 x 3 convolution, of `y` normalised and through SiLU where there is a norm."""

        def strip(start: Any, count: int) -> Array:
            x = y.rows(start - 1, count + 2)
            x = x if norm is None else jax.nn.silu(normalised(x, norm, y.moments))
            found = layer.of_strip(self.layers.only_inside(x, start - 1, y.size))
            return found if add is None else found + add(start, count)

        return self.layers.in_strips(strip, y.size, self.groups if counted else None)

    def _halved(self, layer: Downsample, y: Map) -> Map:
        def strip(start: Any, count: int) -> Array:
            x = y.rows(2 * start, 2 * count + 1)
            return layer.conv.of_strip(self.layers.only_inside(x, 2 * start, y.size))

        h, w = y.size
        return self.layers.in_strips(strip, (h // 2, w // 2), self.groups)

    def _doubled(self, layer: Upsample, y: Map) -> Map:
        def strip(start: Any, count: int) -> Array:
            first = start // 2
            x = y.rows(first - 1, count // 2 + 2)
            found = layer.conv.of_doubled(self.layers.only_inside(x, first - 1, y.size))
            return found[:, 2:-2]  # what the halo's rows became

        h, w = y.size
        return self.layers.in_strips(strip, (2 * h, 2 * w), self.groups)

    def _attended(self, layer: SpatialAttention, y: Map) -> Map:
        x = y.rows(0, y.size[0])
        tokens = normalised(x, layer.group_norm, y.moments).reshape(x.shape[0], -1, x.shape[-1])
        found = layer.attend(tokens, tokens, self.layers.unseen(y.size))
        return self.layers.counted(x + found.reshape(x.shape), self.groups)


class Layers:
    """How layers go over maps: in strips, within boxes."""

    def __init__(self, canvas: Size, box: Array | None, strip: int):
        self.canvas, self.box, self.strip = canvas, box, strip

    def in_strips(
        self, compute: Callable[[Any, int], Array], size: Size, groups: int | None
    ) -> Map:
        """The map (h w) whose rows `compute` gives: `count` of them from a row on."""
        h, w = size
        rows = self.strip // w // LEAST_STRIP * LEAST_STRIP if self.strip else h
        rows = min(max(rows, LEAST_STRIP), h)
        if rows == h:
            return self.counted(compute(0, h), groups)
        shape = jax.eval_shape(lambda: compute(0, rows))
        b, c = shape.shape[0], shape.shape[-1]
        nothing = None if groups is None else Moments(*jnp.zeros((3, b, groups)))

        def turn(i: Array, done: Map) -> Map:
            start = jnp.minimum(i * rows, h - rows)
            found = compute(start, rows)
            moments = done.moments
            if moments is not None and groups is not None:
                # A row that the strip before had is not counted again.
                new = (start + jnp.arange(rows) >= i * rows)[:, None]
                inside = self.inside(size, start, rows)
                counts = new if inside is None else new & inside
                moments = moments.with_more(moments_of(found, groups, counts))
            return Map(lax.dynamic_update_slice_in_dim(done.x, found, start + 1, 1), moments)

        blank = Map(jnp.zeros((b, h + 2, w, c), shape.dtype), nothing)
        return lax.fori_loop(0, -(-h // rows), turn, blank)

    def counted(self, x: Array, groups: int | None) -> Map:
        inside = self.inside((x.shape[1], x.shape[2]))
        return _with_margin(x, None if groups is None else moments_of(x, groups, inside))

    def only_inside(self, x: Array, start: Any, size: Size) -> Array:
        """Rows of a map (h w) from `start` on, with 0 outside of the map and of the box."""
        inside = self.inside(size, start, x.shape[1])
        if inside is None:
            rows = start + jnp.arange(x.shape[1])
            inside = ((rows >= 0) & (rows < size[0]))[:, None]
        return jnp.where(inside[..., None], x, 0)

    def inside(self, size: Size, start: Any = 0, count: int | None = None) -> Array | None:
        """Which pixels lie in the box, b h w; None where all do."""
        if self.box is None:
            return None
        box = self.box // (self.canvas[1] // size[1])
        rows = start + jnp.arange(size[0] if count is None else count)
        columns = jnp.arange(size[1])
        within = (rows >= 0) & (rows < box[:, :1]), columns < box[:, 1:]
        return within[0][:, :, None] & within[1][:, None, :]

    def unseen(self, size: Size) -> Array | None:
        """Which keys of attention lie outside the box, b n."""
        inside = self.inside(size)
        return None if inside is None else ~inside.reshape(len(inside), -1)


def normalised(x: Array, norm: GroupNorm, moments: Moments | None) -> Array:
    """A group norm of rows of a map whose moments are known."""
    assert moments is not None
    of_group = x.shape[-1] // norm.groups

    def spread(per_group: Array) -> Array:  # b g -> b 1 1 c
        return jnp.repeat(per_group, of_group, axis=-1)[:, None, None]

    variance = moments.squares / jnp.maximum(moments.number, 1)
    scale = spread(lax.rsqrt(variance + norm.eps)) * norm.scale[...]
    y = (x.astype(jnp.float32) - spread(moments.mean)) * scale + norm.bias[...]
    return y.astype(x.dtype)


def moments_of(x: Array, groups: int, counts: Array | None) -> Moments:
    """Of features (b h w c); `counts` (b h w, or h w) says which pixels do, if not all."""
    b, h, w, c = x.shape
    of_group = c // groups
    counts = jnp.ones((), bool) if counts is None else counts
    counts = jnp.broadcast_to(counts, (b, h, w)).reshape(b, h * w, 1)
    number = counts.sum(1).astype(jnp.float32) * of_group  # b 1
    x = x.astype(jnp.float32).reshape(b, h * w, c)

    def summed(values: Array) -> Array:  # b hw c -> b g
        values = jnp.where(counts, values, 0)
        return values.sum(1).reshape(b, groups, of_group).sum(-1)

    mean = summed(x) / jnp.maximum(number, 1)
    centred = x - jnp.repeat(mean, of_group, axis=-1)[:, None]
    return Moments(jnp.broadcast_to(number, mean.shape), mean, summed(jnp.square(centred)))


def _with_margin(x: Array, moments: Moments | None = None) -> Map:
    return Map(jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0))), moments)
