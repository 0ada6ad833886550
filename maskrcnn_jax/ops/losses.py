"""Losses of single numbers and rows. Nothing is reduced here: the caller knows what to average over."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from maskrcnn_jax.ops.selection import select

_TINY = 1e-7  # square pixels, as fvcore adds


def smooth_l1(difference: Float[Array, "*N"], beta: float) -> Float[Array, "*N"]:
    """d² / (2 beta) where |d| < beta, else |d| - beta / 2 (Girshick 2015, eq. 3); beta 0 is plain L1."""
    # jnp.abs has slope 1 at 0; a difference of exactly 0 shall pull nowhere.
    size = difference * jnp.sign(difference)
    if beta == 0:
        return size
    return jnp.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta)


def generalized_iou_loss(boxes: Float[Array, "*N 4"], targets: Float[Array, "*N 4"]) -> Float[Array, "*N"]:
    """1 - GIoU of each pair of boxes (Rezatofighi et al. 2019): 0 where equal, up to 2 where far apart.

    Args:
      boxes, targets: XYXY corners. Without area, as padding is, the loss is finite, and so is its gradient.
    """
    size = boxes[..., 2:] - boxes[..., :2], targets[..., 2:] - targets[..., :2]
    low = jnp.maximum(boxes[..., :2], targets[..., :2])
    high = jnp.minimum(boxes[..., 2:], targets[..., 2:])
    overlap = jnp.where((high > low).all(axis=-1), (high - low).prod(axis=-1), 0.0)
    union = size[0].prod(axis=-1) + size[1].prod(axis=-1) - overlap
    low = jnp.minimum(boxes[..., :2], targets[..., :2])
    high = jnp.maximum(boxes[..., 2:], targets[..., 2:])
    around = (high - low).prod(axis=-1)
    return 1 - overlap / (union + _TINY) + (around - union) / (around + _TINY)


def sigmoid_cross_entropy(logits: Float[Array, "*N"], targets: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """-t log(sigmoid(x)) - (1 - t) log(1 - sigmoid(x)), finite for every finite logit.

    Args:
      logits: x.
      targets: t, probabilities in 0..1, in the dtype of `logits`.
    """
    return -targets * jax.nn.log_sigmoid(logits) - (1.0 - targets) * jax.nn.log_sigmoid(-logits)


def softmax_cross_entropy(logits: Float[Array, "N K"], labels: Int[Array, "N"]) -> Float[Array, "N"]:
    """-log softmax(x)[label] of each row, finite for every finite logit.

    Args:
      logits: x, one column for each class (the background is one of them).
      labels: in 0..K - 1; another value gives NaN.
    """
    known = (labels >= 0) & (labels < logits.shape[1])
    return -jnp.where(known, select(jax.nn.log_softmax(logits), labels, axis=1), jnp.nan)
