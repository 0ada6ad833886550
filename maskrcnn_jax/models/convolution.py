"""Convolution in the compiler's form, and on CPU two others for 3x3: Winograd's, and a gradient by taps.

XLA's CPU backend gives the kernel's gradient as little as a fifth of the speed of its matrix products: here
it is nine of them, one for each tap. Larger layers of stride 1 are Winograd's minimal filtering: a tile of
2x2 outputs costs 16 products for each pair of channels, in the direct form 36, and the output and both
gradients are sixteen large matrix products each (Lavin and Gray 2016, F(2x2, 3x3), section 4.1). Its small
transforms are sums, so that float32 keeps its accuracy; of bfloat16 they are rounded once, for the products.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import Array, Float

from maskrcnn_jax.models.products import summed, summed_over_rows, summed_turned
from maskrcnn_jax.ops.platforms import by_platform

# Lavin and Gray's B^T, G and A^T.
_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))
# Where the tiles of a kernel lie in those of the mirrored kernel: _KERNEL's middle rows are symmetric.
_MIRRORED = (3, 1, 2, 0)
# With fewer channels the transforms cost more than they save; with less work, their compilation does: a
# second for each layer and direction. Multiplications of a layer by the formula of a convolution; the copies
# that the taps need pay from a quarter of Winograd's on.
_FEWEST_CHANNELS, _LEAST_FOR_WINOGRAD, _LEAST_FOR_TAPS = 128, 2**32, 2**30

Grid = Sequence[Sequence[Array]]
Product = Callable[[Array, Array], Array]


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
    taps of the kernel lie `dilation` - 1 cells. `x` and `kernel` have one type, which is the result's. All
    forms agree to the rounding of that type.
    """
    plain = kernel.shape[0] == 3 and (dilation, groups) == (1, 1)
    if not plain or x.dtype not in (jnp.float32, jnp.bfloat16):
        return direct(x, kernel, stride, dilation, groups)
    products = _products(x, kernel, stride)
    if stride == 1 and min(kernel.shape[2:]) >= _FEWEST_CHANNELS and products >= _LEAST_FOR_WINOGRAD:
        return _with_winograd(x, kernel)
    if products >= _LEAST_FOR_TAPS:
        return _with_taps(x, kernel, stride)
    return direct(x, kernel, stride)


def _products(x, kernel, stride) -> int:
    """Multiplications of the layer; 0 in an export of any number of images: it gets the compiler's form."""
    cells = x.size // x.shape[-1]
    return 0 if jax.export.is_symbolic_dim(cells) else cells * kernel.size // stride**2


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
    return _by_tiles(x, _transformed(_KERNEL, kernel), summed)


def winograd_gradients(
    x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"], gradient: Float[Array, "B H W D"]
) -> tuple[Float[Array, "B H W C"], Float[Array, "3 3 C D"]]:
    """The gradients of `winograd` by its input and its kernel, from the one by its output."""
    kernels = _transformed(_KERNEL, kernel)
    back = _by_tiles(gradient, [[kernels[i][j] for j in _MIRRORED] for i in _MIRRORED], summed_turned)
    _, height, width, channels = gradient.shape
    whole = jnp.pad(gradient, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    quads = [[whole[:, i::2, j::2].reshape(-1, channels) for j in range(2)] for i in range(2)]
    products = [
        [summed_over_rows(v, m) for v, m in zip(*rows, strict=True)]
        for rows in zip(_patches(x), _transformed(_transposed(_OUTPUT), quads), strict=True)
    ]
    by_kernel = jnp.stack([jnp.stack(row) for row in _sandwich(_transposed(_KERNEL), products)])
    return back, by_kernel.astype(x.dtype)


def kernel_gradient(
    x: Float[Array, "B H W C"], gradient: Float[Array, "B h w D"], stride: int = 1
) -> Float[Array, "3 3 C D"]:
    """The gradient of `direct` by a 3x3 kernel, from the one by its output: a matrix product for each tap."""
    _, down, across, channels = gradient.shape
    whole = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    gradient = gradient.reshape(-1, channels)

    def tap(i, j):
        seen = whole[:, i : i + stride * down : stride, j : j + stride * across : stride]
        return summed_over_rows(seen.reshape(-1, x.shape[3]), gradient)

    return jnp.stack([jnp.stack([tap(i, j) for j in range(3)]) for i in range(3)]).astype(x.dtype)


def _direct_gradients(x, kernel, gradient, stride=1):
    return jax.vjp(lambda x, kernel: direct(x, kernel, stride), x, kernel)[1](gradient)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _with_taps(x, kernel, stride):
    return direct(x, kernel, stride)


def _taps_forward(x, kernel, stride):
    return direct(x, kernel, stride), (x, kernel)


def _taps_backward(stride, inputs, gradient):
    def by_taps(x, kernel, gradient):
        (back,) = jax.vjp(lambda x: direct(x, kernel, stride), x)[1](gradient)
        return back, kernel_gradient(x, gradient, stride)

    direct_gradients = functools.partial(_direct_gradients, stride=stride)
    return by_platform(*inputs, gradient, cpu=by_taps, default=direct_gradients)


_with_taps.defvjp(_taps_forward, _taps_backward)


@jax.custom_vjp
def _with_winograd(x, kernel):
    return by_platform(x, kernel, cpu=winograd, default=direct)


def _winograd_forward(x, kernel):
    # The transformed input is four times as large as the input: cheaper to make again than to keep.
    return _with_winograd(x, kernel), (x, kernel)


def _winograd_backward(inputs, gradient):
    return by_platform(*inputs, gradient, cpu=winograd_gradients, default=_direct_gradients)


_with_winograd.defvjp(_winograd_forward, _winograd_backward)


def _by_tiles(x: Float[Array, "B H W C"], kernels: Grid, product: Product) -> Float[Array, "B H W D"]:
    """The convolution from a transformed kernel, whose parts go into `product` as they are."""
    batch, height, width, _ = x.shape
    products = [
        [product(v, u) for v, u in zip(*rows, strict=True)] for rows in zip(_patches(x), kernels, strict=True)
    ]
    quads = jnp.stack([jnp.stack(row, axis=1) for row in _sandwich(_OUTPUT, products)], axis=1)
    down, across = -(-height // 2), -(-width // 2)
    quads = quads.reshape(batch, down, across, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
    return quads.reshape(batch, 2 * down, 2 * across, -1)[:, :height, :width].astype(x.dtype)


def _patches(x: Float[Array, "B H W C"]) -> Grid:
    """B^T d B of the 4x4 patch d under each 2x2 tile: 4x4 arrays (tiles, C)."""
    _, height, width, channels = x.shape
    down, across = height + height % 2, width + width % 2
    x = jnp.pad(x, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))
    return [
        [part.reshape(-1, channels) for part in row]
        for row in _transformed(
            _INPUT, [[x[:, i : i + down : 2, j : j + across : 2] for j in range(4)] for i in range(4)]
        )
    ]


def _transformed(matrix: Sequence[Sequence[float]], grid: Grid) -> Grid:
    """`_sandwich` in float32, rounded to the grid's type for the products."""
    exact = [[part.astype(jnp.float32) for part in row] for row in grid]
    return [[part.astype(grid[0][0].dtype) for part in row] for row in _sandwich(matrix, exact)]


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
