"""Compilations are counted; late ones are told of, with what has changed."""

import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.compilations import CountedJit


def double(batch, scale):
    return batch["images"] * scale


@pytest.fixture
def told():
    return []


def test_counts_shapes_not_calls(told):
    run = CountedJit(double, expected=2, tell=told.append)
    for side in (3, 3, 4, 3, 4):
        np.testing.assert_array_equal(
            run({"images": jnp.ones((1, side))}, jnp.float32(2)), np.full((1, side), 2)
        )
    assert run.compilations == 2
    assert told == []


def test_tells_of_a_late_one_and_what_has_changed(told):
    run = CountedJit(double, expected=1, tell=told.append)
    run({"images": jnp.ones((1, 3))}, jnp.float32(2))
    run({"images": jnp.ones((1, 5))}, jnp.float32(2))
    assert told == [
        "double is compiled for the 2nd time: [0]['images'] float32[1, 5] (before: float32[1, 3])"
    ]


def test_tells_where_no_shape_has_changed(told):
    run = CountedJit(double, expected=1, tell=told.append)
    run({"images": jnp.ones((1, 3))}, jnp.float32(2))
    run({"images": jnp.ones((1, 3))}, jnp.asarray(2, jnp.float32, copy=True))
    assert run.compilations == 1
    run({"images": jnp.ones((1, 3)), "more": jnp.ones(())}, jnp.float32(2))
    assert "[0]['more'] float32[] (before: nothing)" in told[0]


def test_lowers_and_donates_as_jit_does(told):
    run = CountedJit(lambda x: x + 1, expected=1, tell=told.append, donate_argnums=0)
    given = jnp.zeros((8,))
    run(given)
    assert given.is_deleted()
    assert "add" in run.lower(jnp.zeros((8,))).as_text()


@pytest.mark.parametrize(
    ("times", "text"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (21, "21st"), (112, "112th")],
)
def test_numbers_read_well(times, text, told):
    run = CountedJit(double, expected=0, tell=told.append)
    run.compilations = times - 1
    run({"images": jnp.ones(1)}, jnp.float32(1))
    assert f"for the {text} time" in told[0]
