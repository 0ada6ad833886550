"""RoIAlign over one or several feature levels, in exact forms for CPU, GPU and other devices.

Bilinear interpolation is separable, so the average of a bin's samples is a weighted sum of rows, then
of columns; `bin_weights` holds these weights, whatever the number of samples. On accelerators both sums are
matrix products, whose gradient scatters nothing; a GPU gathers the few cells under each sample where their
number is known, and takes the products for the gradient alone. On CPU the cells that have a weight are
gathered in a loop, and the gradient is scattered, which is many times faster there.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from maskrcnn_jax.ops.platforms import by_platform, on_cpu_alone
from maskrcnn_jax.ops.roi_products import pool_products
from maskrcnn_jax.ops.roi_windows import flat_index, pool_windows, scatter_windows

# Cells. Samples that are exactly one cell outside count; rounding must not decide about them.
_MARGIN = 1e-4

# Samples per bin side up to which a GPU gathers each of the four cells under each.
_FEW_SAMPLES = 2


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
    aligned: bool = True,
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
      aligned: see `box_ends`.

    Returns:
      The average of the samples in each bin, in the dtype of `features`.
    """
    if level is None:
        level = jnp.zeros(boxes.shape[0], jnp.int32)
    if extents is None:
        extents = jnp.array([f.shape[:2] for f in features], jnp.int32)
    frame = jax.lax.stop_gradient(boxes) / jnp.array(strides, jnp.float32)[level][:, None]
    frame = box_ends(frame, aligned=aligned)
    height, width = (max(f.shape[axis] for f in features) for axis in (0, 1))
    counts = sample_counts(frame[:, 2:] - frame[:, :2], bins)
    if samples > 0:
        counts = jnp.full_like(counts, samples)
    ends = [
        (frame[:, axis], frame[:, axis + 2], counts[:, axis], extents[level, 1 - axis]) for axis in (1, 0)
    ]
    options = {"bins": bins, "samples": samples, "step": step}
    rows, cols = (
        bin_weights(*axis, cells=cells, **options) for axis, cells in zip(ends, (height, width), strict=True)
    )
    gathers = 0 < samples <= _FEW_SAMPLES and not on_cpu_alone()
    taps = tuple(bin_taps(*axis, **options) for axis in ends) if gathers else None
    return _pool(tuple(features), rows, cols, taps, level)


def box_ends(boxes: Float[Array, "R 4"], *, aligned: bool) -> Float[Array, "R 4"]:
    """Boxes in cells, from their corners, as RoIAlign measures them on the grid of the cells' centres.

    Args:
      aligned: moves them by the half cell between the two; False leaves that out, and makes a box at least
        one cell long, as RoIAlign was first written.
    """
    if aligned:
        return boxes - 0.5
    return jnp.concatenate([boxes[:, :2], jnp.maximum(boxes[:, 2:], boxes[:, :2] + 1)], axis=1)


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
    grid = jnp.arange(cells, dtype=jnp.float32)[None, None, :]
    share_of = _sampler(low, high, count, extent, bins=bins, step=step)

    def add(sample, weights):
        points, share = share_of(sample)
        return weights + jnp.maximum(1.0 - jnp.abs(points[..., None] - grid), 0.0) * share[..., None]

    weights = jnp.zeros((low.shape[0], -(-bins // step), cells), jnp.float32)
    if samples > 0:
        for sample in range(samples):
            weights = add(jnp.float32(sample), weights)
        return weights
    most = jnp.max(count, initial=0.0).astype(jnp.int32)
    return jax.lax.fori_loop(0, most, lambda i, w: add(i.astype(jnp.float32), w), weights)


class Taps(NamedTuple):
    """The cells along one axis that make up each bin, two for each sample; some may come twice."""

    cells: Int[Array, "R P T"]
    weights: Float[Array, "R P T"]


def bin_taps(
    low: Float[Array, "R"],
    high: Float[Array, "R"],
    count: Float[Array, "R"],
    extent: Int[Array, "R"],
    *,
    bins: int,
    samples: int,
    step: int = 1,
) -> Taps:
    """What `bin_weights` gives, as a list: `count` is `samples`, at least one, in every box."""
    share_of = _sampler(low, high, count, extent, bins=bins, step=step)
    last = jnp.maximum(extent - 1, 0)[:, None]
    cells, weights = [], []
    for sample in range(samples):
        points, share = share_of(jnp.float32(sample))
        first = jnp.clip(points.astype(jnp.int32), 0, last)
        beyond = points - first.astype(jnp.float32)
        cells += [first, jnp.minimum(first + 1, last)]
        weights += [(1.0 - beyond) * share, beyond * share]
    return Taps(jnp.stack(cells, axis=-1), jnp.stack(weights, axis=-1))


def _sampler(low, high, count, extent, *, bins, step):
    """Function of a sample's number in its bin: its points (R, P), kept inside, and their weights (R, P)."""
    start = jnp.arange(0, bins, step, dtype=jnp.float32)[None, :]
    # Points round as in Detectron2, so that a mask's cell that is just half covered falls on the same side:
    # compilers turn a division by a constant into a product, and fuse a product with the sum around it.
    size = (high - low) / jnp.where(count > 0, jnp.float32(bins), 1.0)
    begin = low[:, None] + jnp.maximum(start * size[:, None], 0.0)
    last = (extent - 1).astype(jnp.float32)[:, None]

    def share_of(sample):
        offset = (sample + 0.5) * size / jnp.maximum(count, 1.0)
        points = begin + offset[:, None]
        inside = (points >= -1.0 - _MARGIN) & (points <= last + 1.0 + _MARGIN) & (sample < count)[:, None]
        share = jnp.where(inside, 1.0 / jnp.maximum(count, 1.0)[:, None], 0.0)
        return jnp.clip(points, 0.0, last), share

    return share_of


@jax.custom_vjp
def _pool(features, rows, cols, taps, level):
    forms = {"cpu": pool_windows, "default": pool_products}
    if taps is not None:
        forms["cuda"] = lambda features, rows, cols, level: _pool_taps(features, *taps, level)
    return by_platform(features, rows, cols, level, **forms)


def _pool_forward(features, rows, cols, taps, level):
    empty = tuple(jnp.zeros((*f.shape, 0), f.dtype) for f in features)  # carries shapes, no memory
    return _pool(features, rows, cols, taps, level), (empty, rows, cols, taps, level)


def _pool_backward(residuals, gradient):
    empty, *others = residuals
    rows, cols, _, level = others
    # The products' weights, which follow from these, take as much memory as what they are multiplied with:
    # they are not made before their turn, which is when the gradient is there.
    gradient, rows, cols = jax.lax.optimization_barrier((gradient, rows, cols))
    features = tuple(jnp.zeros(f.shape[:-1], f.dtype) for f in empty)
    by_products = jax.vjp(lambda f: pool_products(f, rows, cols, level), features)[1]
    back = by_platform(
        gradient,
        cpu=lambda g: scatter_windows(g, features, rows, cols, level),
        default=lambda g: by_products(g)[0],
    )
    return back, *jax.tree.map(_no_gradient, others)


def _no_gradient(x):
    return (
        jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.floating) else np.zeros(x.shape, jax.dtypes.float0)
    )


_pool.defvjp(_pool_forward, _pool_backward)


def _pool_taps(features, row_taps, col_taps, level):
    """Every tap of rows with every tap of columns, in one pass: the sum is float32, and written once."""
    flat = jnp.concatenate([f.reshape(-1, f.shape[-1]) for f in features])
    index = flat_index(features, level)
    # Known before the gather: XLA would find each tap anew for every channel.
    rows, cols = jax.lax.optimization_barrier((row_taps, col_taps))
    total = jnp.zeros((), jnp.float32)
    for i, j in np.ndindex(rows.cells.shape[-1], cols.cells.shape[-1]):
        cell = index(rows.cells[:, :, None, i], cols.cells[:, None, :, j])
        weight = rows.weights[:, :, None, i] * cols.weights[:, None, :, j]
        total = total + weight[..., None] * flat[cell].astype(jnp.float32)
    return total.astype(flat.dtype)
