"""The Inception network behind FID: TensorFlow's 2015 graph, with the names of its PyTorch port.

Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, as Heusel et al. (NeurIPS 2017)
use it for FID. The port (`pytorch-fid`, read by `pyiqa` and others) has torchvision's parameters,
but three habits of the TensorFlow graph that torchvision's forward pass lacks: average pooling
counts no padding, the last block pools by maximum, and inputs are TensorFlow's (x - 128) / 128.

Module paths are the keys of the port's state dict: `Mixed_5b.branch1x1.conv.weight` and so on.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from .layers import Conv, Rngs

INPUT_SIZE = 299
FEATURES = 2048
BATCH_NORM_EPS = 1e-3

Size = int | tuple[int, int]


class BatchNorm(nnx.Module):
    """Batch norm with its stored statistics, under PyTorch's names."""

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.running_mean = nnx.BatchStat(jnp.zeros(channels))
        self.running_var = nnx.BatchStat(jnp.ones(channels))

    def __call__(self, x: Array) -> Array:
        y = x.astype(jnp.float32) - self.running_mean[...]
        y = y * jax.lax.rsqrt(self.running_var[...] + BATCH_NORM_EPS)
        return (y * self.scale[...] + self.bias[...]).astype(x.dtype)


class BasicConv2d(nnx.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: Size,
        stride: int = 1,
        padding: Size = 0,
        *,
        rngs: Rngs,
    ):
        rows, columns = (padding, padding) if isinstance(padding, int) else padding
        pads = ((rows, rows), (columns, columns))
        self.conv = Conv(c_in, c_out, kernel, stride=stride, padding=pads, bias=False, rngs=rngs)
        self.bn = BatchNorm(c_out)

    def __call__(self, x: Array) -> Array:
        return jax.nn.relu(self.bn(self.conv(x)))


def conv_1x7(c_in: int, c_out: int, *, rngs: Rngs) -> BasicConv2d:
    return BasicConv2d(c_in, c_out, (1, 7), padding=(0, 3), rngs=rngs)


def conv_7x1(c_in: int, c_out: int, *, rngs: Rngs) -> BasicConv2d:
    return BasicConv2d(c_in, c_out, (7, 1), padding=(3, 0), rngs=rngs)


class InceptionA(nnx.Module):
    def __init__(self, c_in: int, pool_features: int, *, rngs: Rngs):
        self.branch1x1 = BasicConv2d(c_in, 64, 1, rngs=rngs)
        self.branch5x5_1 = BasicConv2d(c_in, 48, 1, rngs=rngs)
        self.branch5x5_2 = BasicConv2d(48, 64, 5, padding=2, rngs=rngs)
        self.branch3x3dbl_1 = BasicConv2d(c_in, 64, 1, rngs=rngs)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1, rngs=rngs)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, padding=1, rngs=rngs)
        self.branch_pool = BasicConv2d(c_in, pool_features, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        branch5x5 = self.branch5x5_2(self.branch5x5_1(x))
        branch3x3 = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pooled = self.branch_pool(average_pool(x))
        return jnp.concatenate([self.branch1x1(x), branch5x5, branch3x3, pooled], axis=-1)


class InceptionB(nnx.Module):
    """35x35 -> 17x17."""

    def __init__(self, c_in: int, *, rngs: Rngs):
        self.branch3x3 = BasicConv2d(c_in, 384, 3, stride=2, rngs=rngs)
        self.branch3x3dbl_1 = BasicConv2d(c_in, 64, 1, rngs=rngs)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1, rngs=rngs)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        branch3x3 = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return jnp.concatenate([self.branch3x3(x), branch3x3, max_pool(x, stride=2)], axis=-1)


class InceptionC(nnx.Module):
    def __init__(self, c_in: int, c_mid: int, *, rngs: Rngs):
        self.branch1x1 = BasicConv2d(c_in, 192, 1, rngs=rngs)
        self.branch7x7_1 = BasicConv2d(c_in, c_mid, 1, rngs=rngs)
        self.branch7x7_2 = conv_1x7(c_mid, c_mid, rngs=rngs)
        self.branch7x7_3 = conv_7x1(c_mid, 192, rngs=rngs)
        self.branch7x7dbl_1 = BasicConv2d(c_in, c_mid, 1, rngs=rngs)
        self.branch7x7dbl_2 = conv_7x1(c_mid, c_mid, rngs=rngs)
        self.branch7x7dbl_3 = conv_1x7(c_mid, c_mid, rngs=rngs)
        self.branch7x7dbl_4 = conv_7x1(c_mid, c_mid, rngs=rngs)
        self.branch7x7dbl_5 = conv_1x7(c_mid, 192, rngs=rngs)
        self.branch_pool = BasicConv2d(c_in, 192, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        branch7x7 = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        pooled = self.branch_pool(average_pool(x))
        return jnp.concatenate([self.branch1x1(x), branch7x7, double, pooled], axis=-1)


class InceptionD(nnx.Module):
    """17x17 -> 8x8."""

    def __init__(self, c_in: int, *, rngs: Rngs):
        self.branch3x3_1 = BasicConv2d(c_in, 192, 1, rngs=rngs)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2, rngs=rngs)
        self.branch7x7x3_1 = BasicConv2d(c_in, 192, 1, rngs=rngs)
        self.branch7x7x3_2 = conv_1x7(192, 192, rngs=rngs)
        self.branch7x7x3_3 = conv_7x1(192, 192, rngs=rngs)
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        branch3x3 = self.branch3x3_2(self.branch3x3_1(x))
        branch7x7 = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        branch7x7 = self.branch7x7x3_4(branch7x7)
        return jnp.concatenate([branch3x3, branch7x7, max_pool(x, stride=2)], axis=-1)


class InceptionE(nnx.Module):
    def __init__(self, c_in: int, *, rngs: Rngs):
        self.branch1x1 = BasicConv2d(c_in, 320, 1, rngs=rngs)
        self.branch3x3_1 = BasicConv2d(c_in, 384, 1, rngs=rngs)
        self.branch3x3_2a = BasicConv2d(384, 384, (1, 3), padding=(0, 1), rngs=rngs)
        self.branch3x3_2b = BasicConv2d(384, 384, (3, 1), padding=(1, 0), rngs=rngs)
        self.branch3x3dbl_1 = BasicConv2d(c_in, 448, 1, rngs=rngs)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3, padding=1, rngs=rngs)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, (1, 3), padding=(0, 1), rngs=rngs)
        self.branch3x3dbl_3b = BasicConv2d(384, 384, (3, 1), padding=(1, 0), rngs=rngs)
        self.branch_pool = BasicConv2d(c_in, 192, 1, rngs=rngs)

    def __call__(self, x: Array, *, pooled: Array) -> Array:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pooled),
        ]
        return jnp.concatenate(branches, axis=-1)


class Inception(nnx.Module):
    """`b 299 299 3` in [-1, 1] -> `b 2048`: the activations before the classifier."""

    def __init__(self, *, rngs: Rngs):
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2, rngs=rngs)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3, rngs=rngs)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, padding=1, rngs=rngs)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1, rngs=rngs)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3, rngs=rngs)
        self.Mixed_5b = InceptionA(192, pool_features=32, rngs=rngs)
        self.Mixed_5c = InceptionA(256, pool_features=64, rngs=rngs)
        self.Mixed_5d = InceptionA(288, pool_features=64, rngs=rngs)
        self.Mixed_6a = InceptionB(288, rngs=rngs)
        self.Mixed_6b = InceptionC(768, 128, rngs=rngs)
        self.Mixed_6c = InceptionC(768, 160, rngs=rngs)
        self.Mixed_6d = InceptionC(768, 160, rngs=rngs)
        self.Mixed_6e = InceptionC(768, 192, rngs=rngs)
        self.Mixed_7a = InceptionD(768, rngs=rngs)
        self.Mixed_7b = InceptionE(1280, rngs=rngs)
        self.Mixed_7c = InceptionE(2048, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = max_pool(x, stride=2)  # b 73 73 64
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = max_pool(x, stride=2)  # b 35 35 192
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6a(x)  # b 17 17 768
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        x = self.Mixed_7a(x)  # b 8 8 1280
        x = self.Mixed_7b(x, pooled=average_pool(x))
        x = self.Mixed_7c(x, pooled=max_pool(x, padding=1))  # the 2015 graph's slip, kept
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


def average_pool(x: Array) -> Array:
    """3x3 at stride 1, over what lies inside the image."""
    return nnx.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def max_pool(x: Array, stride: int = 1, padding: int = 0) -> Array:
    return nnx.max_pool(x, (3, 3), (stride, stride), [(padding, padding)] * 2)
