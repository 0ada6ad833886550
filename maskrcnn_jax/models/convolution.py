"""Convolution in two forms: the compiler's, and on CPU Winograd's minimal filtering for 3x3 of stride 1.

XLA's CPU backend gives the kernel's gradient as little as a fifth of the speed of its matrix products. In
Winograd's form a tile of 2x2 outputs costs 16 products for each pair of channels, in the direct form 36; the
output and both gradients are sixteen large matrix products each (Lavin and Gray 2016, F(2x2, 3x3), section
4.1). Its small transforms are sums, so that float32 keeps its accuracy.
"""

from collections.abc import Sequence

import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import Array, Float

from maskrcnn_jax.ops.platforms import by_platform

# Lavin and Gray's B^T, G and A^T.
_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))
# With fewer channels the transforms cost more than they save; with less work, their compilation does: a
# second for each layer and direction.
_FEWEST_CHANNELS, _LEAST_PRODUCTS = 128, 2**32

Grid = Sequence[Sequence[Array]]


def convolve(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "k k c D"],
    stride: int = 1,
    *,
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, "B h w D"]:
    """Cross-correlates images with a kernel of odd side, zeros around them: h = ceil(H / stride).

    With `groups`, output g of as many equal parts reads only part g of the C = groups * c inputs; between the
    taps of the kernel lie `dilation` - 1 cells. `x` and `kernel` have one type, which is the result's. Both
    forms agree to the rounding of float32.
    """
    plain = kernel.shape[0] == 3 and (stride, dilation, groups) == (1, 1, 1)
    if plain and x.dtype == jnp.float32 and _is_large(x, kernel):
        return _by_platform(x, kernel)
    return direct(x, kernel, stride, dilation, groups)


def _is_large(x, kernel) -> bool:
    """Whether Winograd's form pays; not known for an export of any number of images, which gets the other."""
    products = x.size // x.shape[-1] * kernel.size
    known = not jax.export.is_symbolic_dim(products)
    return min(kernel.shape[2:]) >= _FEWEST_CHANNELS and known and products >= _LEAST_PRODUCTS


def direct(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "k k c D"],
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, "B h w D"]:
    """The compiler's convolution."""
    reach = kernel.shape[0] // 2 * dilation
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(reach, reach)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def winograd(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"]) -> Float[Array, "B H W D"]:
    """The same by F(2x2, 3x3)."""
    batch, height, width, _ = x.shape
    patches, kernels = _patches(x), _sandwich(_KERNEL, kernel)
    products = [[v @ u for v, u in zip(*rows, strict=True)] for rows in zip(patches, kernels, strict=True)]
    quads = jnp.stack([jnp.stack(row, axis=1) for row in _sandwich(_OUTPUT, products)], axis=1)
    down, across = -(-height // 2), -(-width // 2)
    quads = quads.reshape(batch, down, across, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
    return quads.reshape(batch, 2 * down, 2 * across, -1)[:, :height, :width]


def winograd_gradients(
    x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"], gradient: Float[Array, "B H W D"]
) -> tuple[Float[Array, "B H W C"], Float[Array, "3 3 C D"]]:
    """The gradients of `winograd` by its input and its kernel, from the one by its output."""
    back = winograd(gradient, kernel[::-1, ::-1].swapaxes(2, 3))
    _, height, width, channels = gradient.shape
    whole = jnp.pad(gradient, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    quads = [[whole[:, i::2, j::2].reshape(-1, channels) for j in range(2)] for i in range(2)]
    spread = _sandwich(_transposed(_OUTPUT), quads)
    products = [
        [jax.lax.dot_general(v, m, (((0,), (0,)), ((), ()))) for v, m in zip(*rows, strict=True)]
        for rows in zip(_patches(x), spread, strict=True)
    ]
    return back, jnp.stack([jnp.stack(row) for row in _sandwich(_transposed(_KERNEL), products)])


@jax.custom_vjp
def _by_platform(x, kernel):
    return by_platform(x, kernel, cpu=winograd, default=direct)


def _forward(x, kernel):
    # The transformed input is four times as large as the input: cheaper to make again than to keep.
    return _by_platform(x, kernel), (x, kernel)


def _backward(inputs, gradient):
    def direct_gradients(x, kernel, gradient):
        return jax.vjp(direct, x, kernel)[1](gradient)

    return by_platform(*inputs, gradient, cpu=winograd_gradients, default=direct_gradients)


_by_platform.defvjp(_forward, _backward)


def _patches(x: Float[Array, "B H W C"]) -> Grid:
    """B^T d B of the 4x4 patch d under each 2x2 tile: 4x4 arrays (tiles, C)."""
    _, height, width, channels = x.shape
    down, across = height + height % 2, width + width % 2
    x = jnp.pad(x, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))
    return [
        [part.reshape(-1, channels) for part in row]
        for row in _sandwich(
            _INPUT, [[x[:, i : i + down : 2, j : j + across : 2] for j in range(4)] for i in range(4)]
        )
    ]


def _sandwich(matrix: Sequence[Sequence[float]], grid: Grid) -> Grid:
    """`matrix @ grid @ matrix.T` of a grid of arrays."""
    columns = [[_weighted(weights, column) for weights in matrix] for column in zip(*grid, strict=True)]
    return [[_weighted(weights, row) for weights in matrix] for row in zip(*columns, strict=True)]


def _weighted(weights: Sequence[float], parts: Sequence[Array]) -> Array:
    """The weighted sum, without the terms that are zero."""
    terms = [part if w == 1 else w * part for w, part in zip(weights, parts, strict=True) if w]
    return sum(terms[1:], terms[0])


def _transposed(matrix: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    return tuple(zip(*matrix, strict=True))
