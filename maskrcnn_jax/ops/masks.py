"""Mask targets of RoIs, sampled from the layered instance map."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from maskrcnn_jax.ops.platforms import by_platform
from maskrcnn_jax.ops.roi_align import bin_weights, box_ends, sample_counts
from maskrcnn_jax.ops.roi_windows import cell, gather_windows, window


def mask_targets(
    instance_map: Int[Array, "L H W"],
    instance: Int[Array, "R"],
    layer: Int[Array, "R"],
    boxes: Float[Array, "R 4"],
    extent: Int[Array, "2"],
    *,
    size: int,
    aligned: bool = True,
) -> Float[Array, "R M M"]:
    """RoIAlign of each RoI's ground-truth mask, with adaptive sampling, as Detectron2 crops bitmasks.

    Samples `instance_map[layer] == instance + 1`: the same numbers as from the full mask of every
    instance, without ever making one.

    Args:
      instance_map: value g + 1 marks instance g.
      instance: the ground truth of each RoI; one that is not in the map has an empty mask.
      layer: the layer that holds it.
      boxes: XYXY corners in pixels.
      extent: height and width of the image's content in pixels; where a RoI reaches beyond it, the border
        goes on, and what stands in the padding is never read.
      size: M, cells along each side.
      aligned: see `roi_align.box_ends`.

    Returns:
      The covered share of each cell, 0 to 1. Detectron2's target is this >= 0.5.
    """
    _, height, width = instance_map.shape
    ends = box_ends(boxes, aligned=aligned)
    counts = sample_counts(ends[:, 2:] - ends[:, :2], size)
    full = jnp.broadcast_to(extent, (boxes.shape[0], 2))
    rows, cols = (
        bin_weights(
            ends[:, axis], ends[:, axis + 2], counts[:, axis], full[:, 1 - axis],
            cells=cells, bins=size, samples=0,
        )
        for axis, cells in ((1, height), (0, width))
    )  # fmt: skip
    value = (instance + 1).astype(instance_map.dtype)

    def by_windows(rows, cols):
        def read(row, col):
            return (instance_map[layer[:, None, None], row, col] == value[:, None, None]).astype(jnp.float32)

        return gather_windows(read, rows, cols, jnp.zeros((boxes.shape[0], size, size), jnp.float32))

    def by_rows(rows, cols):
        first, count = window(rows)

        def add_row(i, total):
            row, weight = cell(rows, first + i)
            line = instance_map[layer[:, None], row] == value[:, None, None]
            return total + jnp.where(line, weight[..., None], 0.0)

        bands = jnp.zeros((boxes.shape[0], size, width), jnp.float32)
        bands = jax.lax.fori_loop(0, count, add_row, bands)
        # In full float32: a cell that is half covered stands on the threshold.
        return jnp.einsum("rmw,rnw->rmn", bands, cols, precision=jax.lax.Precision.HIGHEST)

    return by_platform(rows, cols, cpu=by_windows, default=by_rows)
