"""Functions in other words: primitives that a runtime does not know, put as those that it does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array

# By the name of a primitive, what gives the results of an equation from its parameters and operands.
Rules = Mapping[str, Callable[..., Sequence[Array]]]


def rewritten(function: Callable, rules: Rules) -> Callable:
    """The same function, in which each primitive that has a rule is what the rule makes of it."""

    def run(*args):
        closed, result = jax.make_jaxpr(function, return_shape=True)(*args)
        return jax.tree.unflatten(jax.tree.structure(result), _run(closed, jax.tree.leaves(args), rules))

    return run


def top_k_by_sort(operand: Array, *, k: int, axis: int) -> Sequence[Array]:
    """`jax.lax.top_k`, which TensorFlow 2.21 does not read in the form that JAX 0.10 writes."""
    places = jax.lax.broadcasted_iota(jnp.int32, operand.shape, axis)
    values, places = jax.lax.sort((-operand, places), dimension=axis, num_keys=1, is_stable=True)
    return tuple(jax.lax.slice_in_dim(x, 0, k, axis=axis) for x in (-values, places))


def _run(closed: core.ClosedJaxpr, args: Sequence[Any], rules: Rules) -> list[Any]:
    jaxpr = closed.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *args], strict=True))

    def read(variable):
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    for equation in jaxpr.eqns:
        results = _bind(equation, [read(variable) for variable in equation.invars], rules)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _bind(equation: core.JaxprEqn, operands: list[Any], rules: Rules) -> Sequence[Any]:
    """The results of one equation."""
    primitive, params = equation.primitive, equation.params
    if rule := rules.get(primitive.name):
        return rule(*operands, **params)
    for inner in ("jaxpr", "call_jaxpr"):
        if primitive.name in ("jit", "custom_jvp_call", "custom_vjp_call") and inner in params:
            return _run(params[inner], operands, rules)
    params = {name: _in_other_words(value, rules) for name, value in params.items()}
    results = primitive.bind(*operands, **params)
    return results if primitive.multiple_results else [results]


def _in_other_words(param: Any, rules: Rules) -> Any:
    """A parameter of an equation; the bodies of loops and the branches of choices are functions, too."""
    if isinstance(param, core.ClosedJaxpr):
        return jax.make_jaxpr(lambda *args: _run(param, args, rules))(*param.in_avals)
    if isinstance(param, tuple) and any(isinstance(one, core.ClosedJaxpr) for one in param):
        return tuple(_in_other_words(one, rules) for one in param)
    return param
