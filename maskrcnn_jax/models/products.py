"""Matrix products of layers, and of their gradients; on CPU those of bfloat16 have forms of their own.

Processors that multiply bfloat16 do it at two to five times the rate of float32, but XLA's CPU backend takes
that path only where the sum is declared float32 and both operands lie row by row.
"""

import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import Array, Float

from maskrcnn_jax.ops.platforms import by_platform

_LEAST = 2**24  # multiplications; smaller products gain nothing


def product(x: Float[Array, "M C"], kernel: Float[Array, "C c"]) -> Float[Array, "M c"]:
    """`x @ kernel`, both of the result's type."""
    large = not jax.export.is_symbolic_dim(x.shape[0]) and x.shape[0] * kernel.size >= _LEAST
    return _product(x, kernel) if x.dtype == jnp.bfloat16 and large else x @ kernel


def summed(x: Float[Array, "M C"], y: Float[Array, "C c"]) -> Float[Array, "M c"]:
    """`x @ y`, added up and given in float32."""
    return jax.lax.dot_general(x, y, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)


def summed_turned(x: Float[Array, "M c"], y: Float[Array, "C c"]) -> Float[Array, "M C"]:
    """`x @ y.T`, added up and given in float32."""
    return jax.lax.dot_general(x, y, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def summed_over_rows(x: Float[Array, "M C"], y: Float[Array, "M c"]) -> Float[Array, "C c"]:
    """`x.T @ y`, added up and given in float32."""
    if x.dtype != jnp.bfloat16:
        return jax.lax.dot_general(x, y, (((0,), (0,)), ((), ())))
    if x.shape[1] > y.shape[1]:
        # Without the barrier XLA would turn the product around, into a form that it then refuses.
        return jax.lax.optimization_barrier(summed_over_rows(y, x)).T
    # Without the batch axis it would read `x` column by column rather than turn it: 2.5 times the time.
    rows = jax.lax.optimization_barrier(x.T)
    dimensions = (((2,), (1,)), ((0,), (0,)))
    return jax.lax.dot_general(rows[None], y[None], dimensions, preferred_element_type=jnp.float32)[0]


@jax.custom_vjp
def _product(x, kernel):
    def on_cpu(x, kernel):
        return summed(x, kernel).astype(x.dtype)

    return by_platform(x, kernel, cpu=on_cpu, default=jnp.matmul)


def _forward(x, kernel):
    return _product(x, kernel), (x, kernel)


def _backward(inputs, gradient):
    def on_cpu(x, kernel, gradient):
        gradients = summed_turned(gradient, kernel), summed_over_rows(x, gradient)
        return tuple(values.astype(x.dtype) for values in gradients)

    def elsewhere(x, kernel, gradient):
        return jax.vjp(jnp.matmul, x, kernel)[1](gradient)

    return by_platform(*inputs, gradient, cpu=on_cpu, default=elsewhere)


_product.defvjp(_forward, _backward)
