"""Functions in other words give the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np

from maskrcnn_jax.interop.rewriting import rewritten, top_k_by_sort


def primitives(closed):
    """The names of all primitives, those of inner functions too."""
    names = set()
    for equation in closed.jaxpr.eqns:
        names.add(equation.primitive.name)
        for param in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "jaxpr")):
            names |= primitives(param) if hasattr(param, "jaxpr") else set()
    return names


def the_best(tree, start):
    """In a jitted function, a loop, a choice and a function with a gradient of its own."""

    def body(state):
        turn, values = state
        best, places = jax.lax.top_k(values, 3)
        return turn + 1, values.at[..., :3].set(jnp.where(places > 1, best, jax.nn.relu(-best)))

    turn, values = jax.lax.while_loop(lambda state: state[0] < 3, body, (start, tree["a"]))
    last = jax.lax.cond(turn > 2, lambda v: jax.lax.top_k(v, 2)[0], lambda v: v[..., :2], values)
    return {"values": jax.jit(jnp.cumsum)(values), "last": last}


def test_the_same_numbers_without_the_primitive(rng):
    tree, start = {"a": rng.normal(size=(2, 6)).astype(np.float32)}, jnp.int32(0)
    other = rewritten(the_best, {"top_k": top_k_by_sort})
    assert "top_k" in primitives(jax.make_jaxpr(the_best)(tree, start))
    assert "top_k" not in primitives(jax.make_jaxpr(other)(tree, start))
    jax.tree.map(np.testing.assert_array_equal, jax.jit(the_best)(tree, start), jax.jit(other)(tree, start))


def test_the_first_of_equals_comes_first():
    operand = jnp.array([[0.0, 2, 2, -jnp.inf, 2], [5, 4, 4, 4, 5]])
    for found, expected in zip(top_k_by_sort(operand, k=4, axis=1), jax.lax.top_k(operand, 4), strict=True):
        np.testing.assert_array_equal(found, expected)
