"""Reading by index: against NumPy's indexing, and that no gradient scatters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.ops.selection import select


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_each_row_gives_its_own_entry(rng, axis, dtype):
    values, index = rng.normal(0, 9, (6, 3, 4)).astype(dtype), np.array([0, 2, 1, 1, 2, 0])
    expected = values[np.arange(6), index] if axis == 1 else values[np.arange(6), :, index]
    np.testing.assert_array_equal(select(values, index, axis), expected)


def test_what_is_not_chosen_may_be_infinite():
    values = jnp.array([[jnp.inf, 2.0, jnp.nan], [3.0, -jnp.inf, jnp.inf]])
    value, gradient = jax.value_and_grad(lambda v: select(v, jnp.array([1, 0]), 1).sum())(values)
    assert value == 5 and gradient.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_out_of_range_is_zero_and_no_rows_are_legal():
    assert select(jnp.ones((2, 3)), jnp.array([-1, 3]), 1).tolist() == [0, 0]
    assert select(jnp.ones((0, 3, 2)), jnp.zeros(0, jnp.int32), 1).shape == (0, 2)


def test_the_gradient_scatters_nothing():
    gradient = jax.grad(lambda v: jnp.square(select(v, jnp.array([1, 0]), 1)).sum())
    assert "scatter" not in str(jax.make_jaxpr(gradient)(jnp.ones((2, 3))))
