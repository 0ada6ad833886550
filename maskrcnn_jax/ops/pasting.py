"""Pasting on the device: predicted masks from their boxes into the whole image, as on the host."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def paste(
    masks: Float[Array, "R M M"], boxes: Float[Array, "R 4"], size: tuple[int, int]
) -> Bool[Array, "R H W"]:
    """Each mask stretched over its box, sampled bilinearly at the pixels' centres, and cut at one half.

    Args:
      masks: probabilities over the boxes.
      boxes: XYXY pixels of the image. A box without area gives an empty mask.
      size: height and width of the image.
    """
    x0, y0, x1, y1 = (boxes[:, i] for i in range(4))
    rows = _bilinear_weights(y0, y1, size[0], masks.shape[1])
    columns = _bilinear_weights(x0, x1, size[1], masks.shape[2])
    # In full float32: a pixel that is half covered stands on the threshold.
    precision = jax.lax.Precision.HIGHEST
    return jnp.einsum("rhm,rmn,rwn->rhw", rows, masks, columns, precision=precision) >= 0.5


def whole_frames(
    masks: Float[Array, "*R M M"], boxes: Float[Array, "*R 4"]
) -> tuple[Float[Array, "*R M+2 M+2"], Float[Array, "*R 4"]]:
    """What `paste` needs to paste as torchvision does: a cell of zeros around each mask, and whole pixels.

    See `masks.pasting`. Padding does not stay zero.
    """
    half = (boxes[..., 2:] - boxes[..., :2]) * 0.5 * ((masks.shape[-1] + 2) / masks.shape[-1])
    centre = (boxes[..., 2:] + boxes[..., :2]) * 0.5
    frames = jnp.concatenate([jnp.trunc(centre - half), jnp.trunc(centre + half) + 1], axis=-1)
    return jnp.pad(masks, [*[(0, 0)] * (masks.ndim - 2), (1, 1), (1, 1)]), frames


def _bilinear_weights(
    low: Float[Array, "R"], high: Float[Array, "R"], pixels: int, cells: int
) -> Float[Array, "R pixels M"]:
    """What each pixel of an axis weighs the cells of masks that span `low` to `high`."""
    centres = jnp.arange(pixels, dtype=jnp.float32) + 0.5
    solid = (high > low)[:, None]
    length = jnp.where(solid, (high - low)[:, None], 1.0)
    # In Detectron2's order: coordinates over -1..1, then in cells with their centres on whole numbers.
    position = (((centres[None, :] - low[:, None]) / length * 2 - 1 + 1) * cells - 1) / 2
    grid = jnp.arange(cells, dtype=jnp.float32)[None, None, :]
    return jnp.where(solid[..., None], jnp.maximum(1 - jnp.abs(position[..., None] - grid), 0.0), 0.0)
