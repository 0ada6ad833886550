"""In which order training draws records: each epoch a permutation, of which any place can be entered at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from jaxtyping import Int

from maskrcnn_jax.errors import UserError


def make_deck(names: Sequence[str], shares: Mapping[str, float]) -> Int[np.ndarray, "draws"]:
    """Positions of `names`, repeated so that one pass through them draws each kind by its share.

    A kind are the names that begin alike. The least drawn record comes four times in a pass, the others
    as often as their kind's share asks, rounded: shares hold to an eighth of themselves at worst.

    Raises:
      UserError: a name belongs to no kind or to several, or a kind has no names.
    """
    kinds = [[kind for kind in shares if name.startswith(kind)] for name in names]
    wrong = [name for name, found in zip(names, kinds, strict=True) if len(found) != 1]
    empty = [kind for kind in shares if [kind] not in kinds]
    if wrong:
        raise UserError(f"data.shares {dict(shares)}: these names begin with none or several: {wrong[:5]}")
    if empty:
        raise UserError(f"data.shares: no record's name begins with {', '.join(empty)}")
    wanted = np.array([shares[found[0]] / kinds.count(found) for found in kinds])
    return np.repeat(np.arange(len(names)), np.rint(4 * wanted / wanted.min()).astype(int))


def permuted(number: tf.Tensor, count: int, seed: int) -> Int[tf.Tensor, ""]:
    """The record of a sample: place `number` % `count` of the epoch's permutation, with no state."""
    epoch, place = number // count, number % count
    key = tf.stack([tf.constant(seed, tf.int64), epoch])
    return tf.random.experimental.index_shuffle(place, key, tf.constant(count - 1, tf.int64))
