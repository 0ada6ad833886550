"""RoIAlign as matrix products, for accelerators: nothing is gathered, and no gradient scatters.

A bin is a weighted sum of cells, and its weights are separable. So all bins of all boxes are a product of
three: weights of rows, features, weights of columns. What costs is not the arithmetic but what stands
between the products; a small map needs nothing there, and a pyramid the same for all its levels.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Cells of a map up to which every bin has a weight for every cell: 1 GB of weights at 512 boxes of 7 x 7
# bins and a batch of 8, which is less than the bands between two products.
_FLAT_CELLS = 4096

# Not in fewer bits than the features have, which is some accelerators' default for float32.
_product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def pool_products(
    features: Sequence[Float[Array, "H W C"]],
    rows: Float[Array, "R P H"],
    cols: Float[Array, "R Q W"],
    level: Int[Array, "R"],
) -> Float[Array, "R P Q C"]:
    """Sum over the cells of each box's level, times `rows`, times `cols`; linear in the features."""
    if len(features) == 1 and features[0].shape[0] * features[0].shape[1] <= _FLAT_CELLS:
        return _pool_flat(features[0], rows, cols)
    return _pool_bands(features, rows, cols, level)


def _pool_flat(feature, rows, cols):
    """One product over the flattened map, whose weights are rows times columns."""
    height, width, channels = feature.shape
    weights = rows[:, :, None, :, None] * cols[:, None, :, None, :]
    weights = weights.astype(feature.dtype).reshape(*weights.shape[:3], height * width)
    cells = _whole(height * width)
    flat = _pad(feature.reshape(-1, channels), 0, cells)
    return _product("rpqn,nc->rpqc", _pad(weights, 3, cells), flat)


def _pool_bands(features, rows, cols, level):
    """Sums of rows, then of columns, a strip of columns at a time, over all levels that are so wide.

    The levels lie below each other, so the bands between the two products exist once, not once a level;
    boxes have no weight in the rows of another level. The second product has a batch of bands, which then
    lie as the first one wrote them: with fewer axes in the batch, XLA transposes gigabytes.
    """
    total, start = 0.0, 0
    bins = _whole(cols.shape[1])
    for end in sorted({_whole(f.shape[1]) for f in features}):
        wide = [v for v, f in enumerate(features) if _whole(f.shape[1]) >= end]
        strip = [_pad(_pad(features[v], 0, _whole(features[v].shape[0])), 1, end)[:, start:end] for v in wide]
        row = [_rows_of(v, features[v], rows, level) for v in wide]
        col = _pad(_pad(cols, 2, end)[..., start:end], 1, bins).astype(features[0].dtype)
        bands = _product("rph,hwc->rpwc", jnp.concatenate(row, axis=2), jnp.concatenate(strip))
        col = jnp.broadcast_to(col[:, None], (*bands.shape[:2], *col.shape[1:]))
        total = total + _product("rpqw,rpwc->rpqc", col, bands)
        start = end
    return total[:, :, : cols.shape[1]]


def _rows_of(v: int, feature, rows, level):
    """Weights of one level's rows, zero for boxes of other levels."""
    height = feature.shape[0]
    here = jnp.where((level == v)[:, None, None], rows[..., :height], 0.0)
    return _pad(here, 2, _whole(height)).astype(feature.dtype)


def _whole(size: int) -> int:
    """The next multiple of 8: tensor cores take no other, and XLA would pad each operand in a copy."""
    return -(-size // 8) * 8


def _pad(x, axis: int, size: int):
    """Zeros up to `size`; more than that stays."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, max(size - x.shape[axis], 0))
    return jnp.pad(x, widths)
