"""Convolution, normalisation and dense layers, indifferent to the padding of their input."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from maskrcnn_jax.config import Norm
from maskrcnn_jax.models.convolution import convolve
from maskrcnn_jax.models.products import product
from maskrcnn_jax.ops.deformable import deformable_conv

_EPSILON = 1e-5


@dataclass(frozen=True)
class Fill:
    """The distribution that a kernel starts from: a Flax initialiser that says what it draws.

    Attributes:
      kind: standard normal, or uniform over -1..1.
      scale: what a draw is multiplied by, from the kernel's shape (..., inputs, outputs).
    """

    kind: Literal["normal", "uniform"]
    scale: Callable[[tuple[int, ...]], float]

    def __call__(
        self, key: PRNGKeyArray, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32
    ) -> Float[Array, "..."]:
        return self.draw(key, shape).astype(dtype) * self.scale(shape)

    def draw(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
        """Draws before they are scaled: the same for all fills of this kind."""
        if self.kind == "normal":
            return jax.random.normal(key, shape)
        return jax.random.uniform(key, shape, minval=-1.0)


def normal_fill(deviation: float) -> Fill:
    """A normal distribution around 0."""
    return Fill("normal", lambda shape: deviation)


# Detectron2's c2_msra_fill, the same of a transposed convolution (of which torch takes the inputs for
# the outputs), and c2_xavier_fill.
msra_fill = Fill("normal", lambda shape: math.sqrt(2 * shape[-2] / math.prod(shape)))
transposed_msra_fill = Fill("normal", lambda shape: math.sqrt(2 * shape[-1] / math.prod(shape)))
xavier_fill = Fill("uniform", lambda shape: math.sqrt(3 * shape[-1] / math.prod(shape)))


def inside(extent: Int[Array, "B 2"], height: int, width: int) -> Bool[Array, "B H W 1"]:
    """True on the cells that belong to the image, False on its padding."""
    rows = jnp.arange(height)[None, :, None, None] < extent[:, 0, None, None, None]
    cols = jnp.arange(width)[None, None, :, None] < extent[:, 1, None, None, None]
    return rows & cols


def shrink(extent: Int[Array, "B 2"] | None, stride: int) -> Int[Array, "B 2"] | None:
    """The valid extent after a layer of this stride."""
    return None if extent is None else -(-extent // stride)


@jax.custom_jvp
def relu(x: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """max(x, 0), of which nothing but the result is kept for the gradient."""
    return jnp.maximum(x, jnp.zeros((), x.dtype))


@relu.defjvp
def _relu_jvp(inputs, tangents):
    # The next layer keeps the result in any case. Without the barrier, XLA keeps what went in as well, and
    # computes the maximum again wherever it is read.
    result = jax.lax.optimization_barrier(relu(*inputs))
    (tangent,) = tangents
    return result, jnp.where(result > 0, tangent, jnp.zeros((), tangent.dtype))


class Conv(nn.Module):
    """Convolution with optional normalisation; a bias where there is none.

    A kernel larger than 1 sees zeros outside `extent`, as it would at the border of an unpadded image:
    results do not depend on how much padding the canvas has. `epsilon` is a frozen batch norm's. A
    `deformable` one learns where its taps read. 1x1 kernels
    are matrix products, which XLA's CPU backend runs three times as fast as convolutions when their batch is
    one of RoIs.
    """

    channels: int
    kernel: int = 1
    stride: int = 1
    norm: Norm | None = None
    dtype: jnp.dtype = jnp.float32
    kernel_init: Fill = msra_fill
    dilation: int = 1
    groups: int = 1
    epsilon: float = _EPSILON
    deformable: bool = False
    deform_weights: bool = False

    def _deform(self, x, kernel, extent, options):
        """Where the taps read, and with what weight, is itself a convolution, which begins at zero."""
        taps = self.kernel**2
        told = Conv(
            (3 if self.deform_weights else 2) * taps,
            self.kernel,
            self.stride,
            dtype=jnp.float32,
            kernel_init=normal_fill(0.0),
            dilation=self.dilation,
            name="offset",
        )(x, extent)
        weights = jax.nn.sigmoid(told[..., 2 * taps :]) if self.deform_weights else None
        one = functools.partial(deformable_conv, stride=self.stride, **options)
        return jax.vmap(one, (0, None, 0, 0))(x, kernel, told[..., : 2 * taps], weights)

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], extent: Int[Array, "B 2"] | None = None
    ) -> Float[Array, "B h w c"]:
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.channels)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.kernel == 1:
            x = _product(x[:, :: self.stride, :: self.stride], kernel[0, 0])
        else:
            if extent is not None:
                x = jnp.where(inside(extent, *x.shape[1:3]), x, jnp.zeros((), x.dtype))
            options = {"dilation": self.dilation, "groups": self.groups}
            if self.deformable:
                x = self._deform(x, kernel, extent, options)
            else:
                x = convolve(x, kernel, self.stride, **options)
        if self.norm == "frozen_bn":
            return FrozenBatchNorm(self.epsilon, name="norm")(x)
        if self.norm == "group":
            return GroupNorm(name="norm")(x, shrink(extent, self.stride))
        return x + _vector(self.param("bias", nn.initializers.zeros, (self.channels,)), x)


class FrozenBatchNorm(nn.Module):
    """Batch norm with fixed statistics: an affine layer that gets no gradient.

    All four vectors are kept, not their product, so that weights leave as they came.
    """

    epsilon: float = _EPSILON

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        ones, zeros, shape = nn.initializers.ones, nn.initializers.zeros, x.shape[-1:]
        scale, bias, mean, var = (
            jax.lax.stop_gradient(self.param(name, fill, shape))
            for name, fill in (("scale", ones), ("bias", zeros), ("mean", zeros), ("var", ones))
        )
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return x * _vector(factor, x) + _vector(bias - mean * factor, x)


class GroupNorm(nn.Module):
    """Group norm (Wu and He 2018) over 32 groups, or as many as divide the channels.

    Statistics are float32 and leave the padding outside `extent` out.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], extent: Int[Array, "B 2"] | None = None
    ) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        groups = math.gcd(32, channels)

        def over_group(values: Float[Array, "B C"]) -> Float[Array, "B C"]:
            return jnp.repeat(values.reshape(batch, groups, -1).mean(axis=-1), channels // groups, axis=1)

        # Measured from one cell's mean: far from zero, a mean of squares holds no variance.
        origin = over_group(jax.lax.stop_gradient(x[:, 0, 0]).astype(jnp.float32))
        per_channel, count = x.astype(jnp.float32) - origin[:, None, None], jnp.float32(height * width)
        if extent is not None:
            per_channel = jnp.where(inside(extent, height, width), per_channel, 0.0)
            count = jnp.maximum(jnp.prod(extent, axis=1), 1).astype(jnp.float32)[:, None]
        mean = over_group(per_channel.sum(axis=(1, 2)) / count)
        square = over_group(jnp.square(per_channel).sum(axis=(1, 2)) / count)
        factor = jax.lax.rsqrt(jnp.maximum(square - mean**2, 0.0) + _EPSILON) * scale[None]
        offset = bias[None] - (origin + mean) * factor
        factor, offset = (v[:, None, None].astype(x.dtype) for v in (factor, offset))
        return x * factor + offset


class Dense(nn.Module):
    """A fully connected layer; parameters are float32, the product is `dtype`."""

    channels: int
    dtype: jnp.dtype = jnp.float32
    kernel_init: Fill = xavier_fill

    @nn.compact
    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B c"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.channels))
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        x = _product(x.astype(self.dtype), kernel.astype(self.dtype))
        return x + _vector(bias, x)


class Deconv(nn.Module):
    """Transposed 2x2 convolution of stride 2: every cell becomes four, by one matrix product."""

    channels: int
    dtype: jnp.dtype = jnp.float32
    kernel_init: Fill = transposed_msra_fill

    @nn.compact
    def __call__(self, x: Float[Array, "R M M C"]) -> Float[Array, "R 2*M 2*M c"]:
        rois, height, width, inputs = x.shape
        kernel = self.param("kernel", self.kernel_init, (2, 2, inputs, self.channels)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        quads = _product(x.astype(self.dtype), kernel.transpose(2, 0, 1, 3).reshape(inputs, -1))
        quads = quads.reshape(rois, height, width, 2, 2, self.channels).transpose(0, 1, 3, 2, 4, 5)
        x = quads.reshape(rois, 2 * height, 2 * width, self.channels)
        return x + _vector(bias, x)


def _product(x: Float[Array, "*B C"], kernel: Float[Array, "C c"]) -> Float[Array, "*B c"]:
    """The matrix product over the last axis, as one of two matrices.

    So the kernel's gradient is one of two matrices as well; with more axes XLA's CPU backend copies both
    operands first, which costs a third to a half of its speed.
    """
    return product(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], -1)


def _vector(values: Float[Array, "C"], like: Array) -> Array:
    """A channel vector in the rank and type of what it is joined with."""
    return values.astype(like.dtype).reshape((1,) * (like.ndim - 1) + (-1,))
