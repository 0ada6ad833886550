"""Sums over the few cells that have a weight in a bin: RoIAlign as a gather, for CPUs.

Weights of bins are separable, rows and columns; a window is the run of cells that have one. The loop takes as
many turns as the largest window has cells.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


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
    first_row, height = window(rows)
    first_col, width = window(cols)

    def body(i, state):
        row, row_weight = cell(rows, first_row + i // width)
        col, col_weight = cell(cols, first_col + i % width)
        weight = row_weight[:, :, None] * col_weight[:, None, :]
        return visit(row[:, :, None], col[:, None, :], weight, state)

    return jax.lax.fori_loop(0, height * width, body, state)


def window(weights: Float[Array, "R P N"]) -> tuple[Int[Array, "R P"], Int[Array, ""]]:
    """First cell with a weight in each bin, and the length of the longest run of them."""
    used = weights > 0
    first = jnp.argmax(used, axis=-1).astype(jnp.int32)
    last = weights.shape[-1] - 1 - jnp.argmax(used[..., ::-1], axis=-1).astype(jnp.int32)
    spans = jnp.where(used.any(axis=-1), last - first + 1, 0)
    return first, jnp.max(spans, initial=0)


def cell(
    weights: Float[Array, "R P N"], index: Int[Array, "R P"]
) -> tuple[Int[Array, "R P"], Float[Array, "R P"]]:
    """A cell's index, and its weight: zero beyond the end, where the index is that of the last cell."""
    end = weights.shape[-1]
    inside = jnp.minimum(index, end - 1)
    weight = jnp.take_along_axis(weights, inside[..., None], axis=-1)[..., 0]
    return inside, jnp.where(index < end, weight, 0.0)


def _expand(weight, ndim: int):
    return weight.reshape(weight.shape + (1,) * (ndim - weight.ndim))


def pool_windows(
    features: Sequence[Float[Array, "H W C"]],
    rows: Float[Array, "R P H"],
    cols: Float[Array, "R Q W"],
    level: Int[Array, "R"],
) -> Float[Array, "R P Q C"]:
    """RoIAlign as a sum over the cells of each bin; `rows` and `cols` are the bins' weights."""
    flat = jnp.concatenate([f.reshape(-1, f.shape[-1]) for f in features])
    index = flat_index(features, level)
    start = jnp.zeros((*rows.shape[:2], cols.shape[1], flat.shape[1]), flat.dtype)
    return gather_windows(lambda row, col: flat[index(row, col)], rows, cols, start)


def scatter_windows(
    gradient: Float[Array, "R P Q C"],
    features: Sequence[Float[Array, "H W *_"]],
    rows: Float[Array, "R P H"],
    cols: Float[Array, "R Q W"],
    level: Int[Array, "R"],
) -> tuple[Float[Array, "H W C"], ...]:
    """The transpose of `pool_windows`."""
    index = flat_index(features, level)
    sizes = [f.shape[0] * f.shape[1] for f in features]

    def add(row, col, weight, flat):
        share = _expand(weight, 4).astype(gradient.dtype) * gradient
        return flat.at[index(row, col)].add(share)

    flat = jnp.zeros((sum(sizes), gradient.shape[-1]), gradient.dtype)
    flat = _over_windows(add, rows, cols, flat)
    parts = jnp.split(flat, np.cumsum(sizes)[:-1])
    return tuple(part.reshape(f.shape) for part, f in zip(parts, features, strict=True))


def flat_index(
    features: Sequence[Float[Array, "H W *_"]], level: Int[Array, "R"]
) -> Callable[[Int[Array, "R *_"], Int[Array, "R *_"]], Int[Array, "R *_"]]:
    """Where cell (row, column) of a box's level lies when all levels are one list of cells."""
    sizes = [f.shape[0] * f.shape[1] for f in features]
    offset = jnp.array(np.cumsum([0, *sizes[:-1]]), jnp.int32)[level][:, None, None]
    heights, widths = (jnp.array([f.shape[a] for f in features], jnp.int32)[level] for a in (0, 1))
    height, width = heights[:, None, None], widths[:, None, None]
    return lambda row, col: offset + jnp.minimum(row, height - 1) * width + jnp.minimum(col, width - 1)
