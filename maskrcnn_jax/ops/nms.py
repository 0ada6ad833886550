"""Non-maximum suppression with fixed shapes: exact, greedy, and free of per-box loops."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from maskrcnn_jax.ops.boxes import pairwise_iou
from maskrcnn_jax.ops.platforms import by_platform

# Boxes of a block, and rounds among them before the host looks whether any box still changes. For an
# accelerator each look costs more than a round, so it takes fewer, larger blocks; the result is the same.
_CPU = {"block": 256, "rounds": 1}
_OTHERS = {"block": 1024, "rounds": 4}


def nms(
    boxes: Float[Array, "N 4"],
    valid: Bool[Array, "N"],
    *,
    iou_threshold: float,
    max_kept: int,
    groups: Int[Array, "N"] | None = None,
) -> Int[Array, "K"]:
    """Greedy NMS over boxes that are sorted by falling score.

    Blocks of boxes are compared with the boxes kept so far, then with each other until no box
    changes; that fixed point is the greedy answer. The work stops once `max_kept` boxes are kept.

    Args:
      boxes: XYXY corners in pixels, best first.
      valid: False marks padding, which is neither kept nor suppresses.
      iou_threshold: a box that overlaps a better kept one by more than this is dropped.
      max_kept: K, the length of the result.
      groups: boxes of different groups (classes, pyramid levels) never suppress each other; None is
        one group.

    Returns:
      Indices of the kept boxes, best first, padded with N (so `mode="fill"` gathers give padding).
    """
    groups = jnp.zeros(boxes.shape[0], jnp.int32) if groups is None else groups
    suppress = partial(_suppress, iou_threshold=iou_threshold, max_kept=max_kept)
    forms = {"cpu": partial(suppress, **_CPU), "default": partial(suppress, **_OTHERS)}
    return by_platform(boxes, valid, groups, **forms)


def _suppress(boxes, valid, groups, *, iou_threshold, max_kept, block, rounds):
    count = boxes.shape[0]
    block = min(block, max(count, 1))
    padding = max(-count % block, block - count)
    boxes = jnp.pad(boxes, ((0, padding), (0, 0)))
    valid, groups = jnp.pad(valid, (0, padding)), jnp.pad(groups, (0, padding))
    before = jnp.arange(block)[:, None] < jnp.arange(block)[None, :]

    def overlap(a, a_groups, b, b_groups):
        return (pairwise_iou(a, b) > iou_threshold) & (a_groups[:, None] == b_groups[None, :])

    def more(state):
        start, _, total = state
        return (start < count) & (total < max_kept)

    def add_block(state):
        start, kept, total = state
        index = start + jnp.arange(block)
        candidates, candidate_groups = boxes[index], groups[index]
        # Free slots hold N: a box of zeros, which overlaps nothing.
        kept_boxes = boxes.at[kept].get(mode="fill", fill_value=0)
        kept_groups = groups.at[kept].get(mode="fill", fill_value=0)
        alive = valid[index] & ~jnp.any(
            overlap(kept_boxes, kept_groups, candidates, candidate_groups), axis=0
        )
        suppresses = overlap(candidates, candidate_groups, candidates, candidate_groups) & before
        alive = _fixed_point(alive, suppresses, rounds)
        slots = jnp.where(alive, total + jnp.cumsum(alive) - 1, max_kept)
        kept = kept.at[slots].set(index, mode="drop")
        return start + block, kept, jnp.minimum(total + alive.sum(), max_kept)

    return jax.lax.while_loop(more, add_block, (0, jnp.full(max_kept, count), 0))[1]


def _fixed_point(alive: Bool[Array, "N"], suppresses: Bool[Array, "N N"], rounds: int) -> Bool[Array, "N"]:
    """Drops every box that a surviving better box suppresses; takes as many rounds as the longest chain.

    It looks only after every so many rounds whether there is more to do; rounds too many change nothing.
    """

    def turn(state):
        after, _ = state
        for _ in range(rounds):
            before, after = after, alive & ~jnp.any(suppresses & after[:, None], axis=0)
        return after, jnp.any(after != before)

    return jax.lax.while_loop(lambda state: state[1], turn, (alive, jnp.any(alive)))[0]
