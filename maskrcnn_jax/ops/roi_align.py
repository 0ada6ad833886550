"""RoIAlign over one or several feature levels, in two exact forms: matrix products, and a gather.

Bilinear interpolation is separable, so the average of a bin's samples is a weighted sum of rows, then
of columns; `bin_weights` holds these weights, whatever the number of samples. On accelerators both
sums are matrix products: no gather, and a gradient without scatter. On CPU the few cells that have a
weight are gathered, which is many times faster there.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Cells. Samples that are exactly one cell outside count; rounding must not decide about them.
_MARGIN = 1e-4


def roi_align(
    features: Sequence[Float[Array, "H W C"]],
    boxes: Float[Array, "R 4"],
    *,
    strides: Sequence[int],
    bins: int,
    samples: int,
    step: int = 1,
    level: Int[Array, "R"] | None = None,
    extents: Int[Array, "V 2"] | None = None,
) -> Float[Array, "R P P C"]:
    """Resamples each box of its feature level to a fixed grid, without rounding (He et al. 2017, §3).

    Gradients flow to the features, not to the boxes.

    Args:
      features: the V levels of one image; cell (i, j) is centred on pixel ((j + .5), (i + .5)) * stride.
      boxes: XYXY corners in image pixels. A box may leave the image; samples more than one cell
        outside a level count as zero, those nearer take the border's value. Padding (empty boxes) is
        legal and its output is finite.
      strides: image pixels per cell of each level.
      bins: output bins along each side of a box.
      samples: sampling points per bin side; 0 is Detectron2's adaptive count, ceil(box side / bins) cells.
      step: keep only every `step`-th bin, from the first; P = ceil(bins / step). A strided convolution
        that reads no other bin gets the same numbers for a quarter of the work.
      level: which level each box reads; None is the first.
      extents: height and width of each level's valid part, in cells; None is all of it. Nothing outside
        is read, so the padding of an image does not change the result.

    Returns:
      The average of the samples in each bin, in the dtype of `features`.
    """
    if level is None:
        level = jnp.zeros(boxes.shape[0], jnp.int32)
    if extents is None:
        extents = jnp.array([f.shape[:2] for f in features], jnp.int32)
    # Half a cell: boxes measure from corners, the grid from cell centres.
    frame = jax.lax.stop_gradient(boxes) / jnp.array(strides, jnp.float32)[level][:, None] - 0.5
    height, width = (max(f.shape[axis] for f in features) for axis in (0, 1))
    weights = partial(bin_weights, bins=bins, samples=samples, step=step)
    counts = sample_counts(frame[:, 2:] - frame[:, :2], bins)
    if samples > 0:
        counts = jnp.full_like(counts, samples)
    rows = weights(frame[:, 1], frame[:, 3], counts[:, 1], extents[level, 0], cells=height)
    cols = weights(frame[:, 0], frame[:, 2], counts[:, 0], extents[level, 1], cells=width)
    return _pool(tuple(features), rows, cols, level)


def sample_counts(sides: Float[Array, "*R"], bins: int) -> Float[Array, "*R"]:
    """ceil(side / bins), Detectron2's adaptive number of samples, of boxes' sides in cells; 0 for empty ones.

    Exact: compilers turn a division by a constant into a product, which puts 21 / 7 above 3.
    """
    counts = jnp.ceil(sides / bins)
    counts = jnp.where((counts - 1) * bins >= sides, counts - 1, counts)
    counts = jnp.where(counts * bins < sides, counts + 1, counts)
    return jnp.maximum(counts, 0.0)


def bin_weights(
    low: Float[Array, "R"],
    high: Float[Array, "R"],
    count: Float[Array, "R"],
    extent: Int[Array, "R"],
    *,
    cells: int,
    bins: int,
    samples: int,
    step: int = 1,
) -> Float[Array, "R P cells"]:
    """Weight of each cell in each bin along one axis: rows sum to one where all samples are inside.

    Args:
      low, high: the box's ends, in cells, measured from the first cell's centre.
      count: sampling points of each box in one bin; none makes the row zero.
      extent: valid cells; samples are clamped to them.
      cells: length of the axis.
      bins, step: as in `roi_align`.
      samples: a bound on `count` that is known now, or 0 where only the values tell.
    """
    start = jnp.arange(0, bins, step, dtype=jnp.float32)[None, :]
    # Points round as in Detectron2, so that a mask's cell that is just half covered falls on the same side:
    # compilers turn a division by a constant into a product, and fuse a product with the sum around it.
    size = (high - low) / jnp.where(count > 0, jnp.float32(bins), 1.0)
    begin = low[:, None] + jnp.maximum(start * size[:, None], 0.0)
    last = (extent - 1).astype(jnp.float32)[:, None]
    grid = jnp.arange(cells, dtype=jnp.float32)[None, None, :]

    def add(sample, weights):
        offset = (sample + 0.5) * size / jnp.maximum(count, 1.0)
        points = begin + offset[:, None]
        inside = (points >= -1.0 - _MARGIN) & (points <= last + 1.0 + _MARGIN) & (sample < count)[:, None]
        distance = jnp.abs(jnp.clip(points, 0.0, last)[..., None] - grid)
        share = jnp.where(inside, 1.0 / jnp.maximum(count, 1.0)[:, None], 0.0)
        return weights + jnp.maximum(1.0 - distance, 0.0) * share[..., None]

    weights = jnp.zeros((low.shape[0], start.size, cells), jnp.float32)
    if samples > 0:
        for sample in range(samples):
            weights = add(jnp.float32(sample), weights)
        return weights
    most = jnp.max(count, initial=0.0).astype(jnp.int32)
    return jax.lax.fori_loop(0, most, lambda i, w: add(i.astype(jnp.float32), w), weights)


def gather_windows(
    read: Callable[[Int[Array, "R P 1"], Int[Array, "R 1 P"]], Float[Array, "R P P *C"]],
    rows: Float[Array, "R P H"],
    cols: Float[Array, "R P W"],
    start: Float[Array, "R P P *C"],
) -> Float[Array, "R P P *C"]:
    """`start` plus the sum over all cells of rows x cols x read(cell), skipping cells of no weight."""

    def add(row, column, weight, total):
        return total + _expand(weight, total.ndim).astype(total.dtype) * read(row, column)

    return _over_windows(add, rows, cols, start)


def _over_windows(visit, rows, cols, state):
    """Folds `visit(row, column, weight, state)` over the cells, relative to each bin's first one."""
    first_row, height = _window(rows)
    first_col, width = _window(cols)

    def body(i, state):
        row, row_weight = _cell(rows, first_row + i // width)
        col, col_weight = _cell(cols, first_col + i % width)
        weight = row_weight[:, :, None] * col_weight[:, None, :]
        return visit(row[:, :, None], col[:, None, :], weight, state)

    return jax.lax.fori_loop(0, height * width, body, state)


def _window(weights: Float[Array, "R P N"]) -> tuple[Int[Array, "R P"], Int[Array, ""]]:
    """First cell with a weight in each bin, and the length of the longest run of them."""
    used = weights > 0
    first = jnp.argmax(used, axis=-1).astype(jnp.int32)
    last = weights.shape[-1] - 1 - jnp.argmax(used[..., ::-1], axis=-1).astype(jnp.int32)
    spans = jnp.where(used.any(axis=-1), last - first + 1, 0)
    return first, jnp.max(spans, initial=0)


def _cell(weights, index):
    """A cell's index, and its weight: zero beyond the end, where the index is that of the last cell."""
    end = weights.shape[-1]
    inside = jnp.minimum(index, end - 1)
    weight = jnp.take_along_axis(weights, inside[..., None], axis=-1)[..., 0]
    return inside, jnp.where(index < end, weight, 0.0)


def _expand(weight, ndim: int):
    return weight.reshape(weight.shape + (1,) * (ndim - weight.ndim))


@jax.custom_vjp
def _pool(features, rows, cols, level):
    return jax.lax.platform_dependent(features, rows, cols, level, cpu=_pool_windows, default=_pool_products)


def _pool_forward(features, rows, cols, level):
    empty = tuple(jnp.zeros((*f.shape, 0), f.dtype) for f in features)  # carries shapes, no memory
    return _pool(features, rows, cols, level), (empty, rows, cols, level)


def _pool_backward(residuals, gradient):
    empty, rows, cols, level = residuals
    features = tuple(jnp.zeros(f.shape[:-1], f.dtype) for f in empty)
    by_products = jax.vjp(lambda f: _pool_products(f, rows, cols, level), features)[1]
    back = jax.lax.platform_dependent(
        gradient,
        cpu=lambda g: _scatter_windows(g, features, rows, cols, level),
        default=lambda g: by_products(g)[0],
    )
    return back, jnp.zeros_like(rows), jnp.zeros_like(cols), np.zeros(level.shape, jax.dtypes.float0)


_pool.defvjp(_pool_forward, _pool_backward)


def _pool_products(features, rows, cols, level):
    """Two matrix products a level; boxes of other levels have zero weight there."""
    total = 0.0
    for v, feature in enumerate(features):
        height, width, _ = feature.shape
        here = (level == v)[:, None, None]
        row = jnp.where(here, rows[..., :height], 0.0).astype(feature.dtype)
        col = cols[..., :width].astype(feature.dtype)
        # Not in fewer bits than the features have, which is some accelerators' default for float32.
        product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
        bands = product("rph,hwc->rpwc", row, feature)
        total = total + product("rqw,rpwc->rpqc", col, bands)
    return total


def _pool_windows(features, rows, cols, level):
    flat = jnp.concatenate([f.reshape(-1, f.shape[-1]) for f in features])
    index = _flat_index(features, level)
    start = jnp.zeros((*rows.shape[:2], cols.shape[1], flat.shape[1]), flat.dtype)
    return gather_windows(lambda row, col: flat[index(row, col)], rows, cols, start)


def _scatter_windows(gradient, features, rows, cols, level):
    """The transpose of `_pool_windows`."""
    index = _flat_index(features, level)
    sizes = [f.shape[0] * f.shape[1] for f in features]

    def add(row, col, weight, flat):
        share = _expand(weight, 4).astype(gradient.dtype) * gradient
        return flat.at[index(row, col)].add(share)

    flat = jnp.zeros((sum(sizes), gradient.shape[-1]), gradient.dtype)
    flat = _over_windows(add, rows, cols, flat)
    parts = jnp.split(flat, np.cumsum(sizes)[:-1])
    return tuple(part.reshape(f.shape) for part, f in zip(parts, features, strict=True))


def _flat_index(features, level):
    """Where cell (row, column) of a box's level lies when all levels are one list of cells."""
    sizes = [f.shape[0] * f.shape[1] for f in features]
    offset = jnp.array(np.cumsum([0, *sizes[:-1]]), jnp.int32)[level][:, None, None]
    heights, widths = (jnp.array([f.shape[a] for f in features], jnp.int32)[level] for a in (0, 1))
    height, width = heights[:, None, None], widths[:, None, None]
    return lambda row, col: offset + jnp.minimum(row, height - 1) * width + jnp.minimum(col, width - 1)
