"""Deformable convolution (Dai et al. 2017; Zhu et al. 2019): taps of the kernel read where they are told."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def deformable_conv(
    x: Float[Array, "H W C"],
    kernel: Float[Array, "k k c D"],
    offsets: Float[Array, "h w 2*k*k"],
    weights: Float[Array, "h w k*k"] | None = None,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, "h w D"]:
    """`convolution.convolve` of one image, whose taps are moved and read between the cells.

    Args:
      x: the features; zeros lie around them.
      kernel: of odd side; with `groups`, output g of as many equal parts reads only part g of the C inputs.
      offsets: of each tap, row by row, how many cells down and across it is moved.
      weights: what each tap's value is multiplied by (the second version); None leaves it as it is.
      stride, dilation, groups: as there.
    """
    height, width, side = *offsets.shape[:2], kernel.shape[0]
    steps = (jnp.arange(n, dtype=offsets.dtype) * stride for n in (height, width))
    rows, columns = jnp.meshgrid(*steps, indexing="ij")
    kernel = kernel.reshape(side, side, kernel.shape[2], groups, -1)
    total = 0.0
    for tap, (i, j) in enumerate(np.ndindex(side, side)):
        down, across = ((n - side // 2) * dilation for n in (i, j))
        read = _between(x, rows + down + offsets[..., 2 * tap], columns + across + offsets[..., 2 * tap + 1])
        if weights is not None:
            read = read * weights[..., tap, None].astype(read.dtype)
        total = total + jnp.einsum("hwgc,cgd->hwgd", read.reshape(height, width, groups, -1), kernel[i, j])
    return total.reshape(height, width, -1)


def _between(x: Float[Array, "H W C"], row: Float[Array, "h w"], column: Float[Array, "h w"]):
    """Bilinear between the four nearest cells, of which those outside are zero."""
    height, width, channels = x.shape
    flat = x.reshape(-1, channels)
    top, left = jnp.floor(row), jnp.floor(column)
    total = 0.0
    for i, j in np.ndindex(2, 2):
        y, at = top + i, left + j
        share = (1 - jnp.abs(row - y)) * (1 - jnp.abs(column - at))
        share = jnp.where((y >= 0) & (y < height) & (at >= 0) & (at < width), share, 0.0)
        y, at = (jnp.clip(n, 0, end - 1).astype(jnp.int32) for n, end in ((y, height), (at, width)))
        total = total + share[..., None].astype(x.dtype) * flat[y * width + at]
    return total
