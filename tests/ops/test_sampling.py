"""Sampling: its counts, its order, and that every subset is as likely as any other."""

import functools
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.ops.sampling import sample


def labelled(positives, negatives, ignored, rng):
    labels = np.repeat(np.array([1, 0, -1], np.int8), [positives, negatives, ignored])
    return rng.permutation(labels)


@pytest.mark.parametrize(
    "positives, negatives, ignored, expected",
    [
        (50, 100, 20, (8, 24)),  # plenty: the positives stop at their share
        (3, 100, 20, (3, 29)),  # negatives fill what positives leave
        (50, 4, 20, (8, 4)),  # positives do not fill what negatives leave
        (0, 100, 0, (0, 32)),
        (50, 0, 3, (8, 0)),
        (0, 0, 40, (0, 0)),
        (2, 3, 1, (2, 3)),  # fewer candidates than places
        (1, 0, 0, (1, 0)),
        (0, 32, 0, (0, 32)),
    ],
)
def test_counts_and_order(rng, positives, negatives, ignored, expected):
    labels = labelled(positives, negatives, ignored, rng)
    draw = jax.jit(functools.partial(sample, count=32, positive_fraction=0.25))
    index, positive, valid = map(np.asarray, draw(labels, jax.random.key(0)))
    assert index.shape == positive.shape == valid.shape == (32,)
    assert (int(positive.sum()), int((valid & ~positive).sum())) == expected
    drawn = labels[index]
    assert drawn.tolist() == [1] * expected[0] + [0] * expected[1] + [labels[0]] * (32 - sum(expected))
    np.testing.assert_array_equal(valid, np.arange(32) < sum(expected))
    assert len(set(index[valid])) == valid.sum()
    assert not index[~valid].any()


def test_every_subset_is_equally_likely():
    """Chi-squared over the 3 x 6 ways to draw 1 of 3 positives and 2 of 4 negatives."""
    labels = jnp.array([1, 0, -1, 0, 1, 0, 1, 0], jnp.int8)
    keys = jax.random.split(jax.random.key(7), 18_000)
    draw = jax.jit(jax.vmap(lambda key: sample(labels, key, count=3, positive_fraction=0.34).index))
    seen = Counter((int(p), frozenset((int(a), int(b)))) for p, a, b in np.asarray(draw(keys)))
    ways = [(p, frozenset(n)) for p in (0, 4, 6) for n in itertools.combinations((1, 3, 5, 7), 2)]
    assert set(seen) == set(ways)
    assert sum((seen[way] - 1000) ** 2 / 1000 for way in ways) < 40.8  # 99.9 % of chi-squared, 17 degrees


def test_a_share_of_zero_draws_no_positive():
    drawn = sample(jnp.array([1, 0, 1, 0], jnp.int8), jax.random.key(0), count=3, positive_fraction=0.0)
    assert drawn.valid.tolist() == [True, True, False] and not drawn.positive.any()
    assert set(drawn.index[:2].tolist()) == {1, 3}


def test_is_a_function_of_the_key(rng):
    labels = labelled(40, 400, 10, rng)
    draw = functools.partial(sample, labels, count=64, positive_fraction=0.5)
    first, again, other = (draw(jax.random.key(seed)).index for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_vmap_equals_a_loop(rng):
    labels = np.stack([labelled(n, 60 - n, 5, rng) for n in (0, 10, 60)])
    keys = jax.random.split(jax.random.key(3), 3)
    one = functools.partial(sample, count=16, positive_fraction=0.5)
    batched = jax.jit(jax.vmap(one))(labels, keys)
    for i in range(3):
        for together, alone in zip(batched, one(labels[i], keys[i]), strict=True):
            np.testing.assert_array_equal(together[i], alone)


def test_candidates_that_may_not_be_drawn_change_nothing(rng):
    """A larger canvas puts anchors of its padding between the others."""
    labels = labelled(9, 30, 6, rng)
    taking_part = labels >= 0
    for key in range(5):
        drawn, alone = (
            sample(jnp.asarray(some), jax.random.key(key), count=16, positive_fraction=0.5)
            for some in (labels, labels[taking_part])
        )
        np.testing.assert_array_equal(drawn.index, np.flatnonzero(taking_part)[alone.index])
