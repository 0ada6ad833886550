"""Chunked work on padded rows against doing all of it at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.models.chunks import map_valid


def work(boxes, labels):
    return boxes.sum(axis=-1), boxes * labels[..., None].astype(jnp.float32)


@pytest.mark.parametrize("chunk", [1, 3, 4, 10, 64])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 10])
def test_equals_the_whole_up_to_the_last_chunk_that_counts(count, chunk):
    rng = np.random.default_rng(count)
    boxes, labels = (
        rng.normal(size=(2, 10, 4)).astype(np.float32),
        rng.integers(0, 9, (2, 10)).astype(np.int32),
    )
    run = jax.jit(lambda *rows: map_valid(work, rows[:2], rows[2], chunk=chunk))
    for found, expected in zip(run(boxes, labels, jnp.int32(count)), work(boxes, labels), strict=True):
        np.testing.assert_array_equal(found[:, :count], expected[:, :count])
        computed = min(-(-count // chunk) * chunk, 10)
        np.testing.assert_array_equal(found[:, computed:], 0)


def test_does_no_work_on_rows_that_do_not_count():
    calls = []

    def noted(boxes):
        jax.debug.callback(lambda x: calls.append(x.shape), boxes)
        return (boxes,)

    rows = jnp.ones((1, 12, 4))
    jax.block_until_ready(jax.jit(lambda n: map_valid(noted, (rows,), n, chunk=4))(jnp.int32(5)))
    jax.effects_barrier()
    assert calls == [(1, 4, 4)] * 2
