"""Sampling: the few candidates that enter a loss, drawn without replacement."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Int8, PRNGKeyArray


class Sample(NamedTuple):
    """S drawn candidates: positives first, then negatives, then padding.

    Attributes:
      index: which candidate; 0 where not `valid`.
      positive: whether it is a positive one.
      valid: False marks padding: there were fewer candidates than places.
    """

    index: Int[Array, "S"]
    positive: Bool[Array, "S"]
    valid: Bool[Array, "S"]


def sample(labels: Int8[Array, "N"], key: PRNGKeyArray, *, count: int, positive_fraction: float) -> Sample:
    """Draws positives up to a share of `count`, then negatives to fill it (Ren et al. 2015, §3.1.3).

    Args:
      labels: 1 positive, 0 negative; anything else is never drawn. N >= 1.
      key: the draw is a function of it and of those labels that may be drawn: candidates of other labels
        between them, such as anchors in an image's padding, change nothing. Each subset of a label is
        equally likely.
      count: S, the most candidates to draw.
      positive_fraction: at most int(count * positive_fraction) positives are drawn.
    """
    total = labels.shape[0]
    # Numbers are dealt out in order to those that take part. (The first n of a longer draw are a draw of n.)
    turn = jnp.cumsum((labels == 0) | (labels == 1)) - 1
    priority = jax.random.uniform(key, (total,))[turn]

    def draw(label, limit):
        """The `label`led candidates of highest priority, best first, and how many they are."""
        limit = min(limit, total)
        candidates = labels == label
        index = jax.lax.top_k(jnp.where(candidates, priority, -1.0), limit)[1]
        return index, jnp.minimum(candidates.sum(), limit)

    positives, positive_count = draw(1, int(count * positive_fraction))
    negatives, negative_count = draw(0, count)
    drawn = jnp.minimum(positive_count + negative_count, count)

    place = jnp.arange(count)
    positive, valid = place < positive_count, place < drawn
    source = jnp.where(positive, place, place - positive_count + positives.shape[0])
    index = jnp.concatenate([positives, negatives]).at[source].get(mode="clip")
    return Sample(jnp.where(valid, index, 0), positive, valid)
