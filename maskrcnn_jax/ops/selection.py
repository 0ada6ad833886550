"""Reading by index, in forms whose gradient scatters nothing: on a GPU a scatter adds in no fixed order."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


def select(values: Array, index: Int[Array, "R"], axis: int) -> Array:
    """The entry of `axis` that each row names, for an axis of few entries: a sum of which one term counts.

    Args:
      values: rows first.
      index: along `axis`, which goes; where it is out of range, the result is zero.
      axis: not the first.
    """
    values = jnp.asarray(values)
    entries = jax.lax.broadcasted_iota(jnp.int32, values.shape, axis % values.ndim)
    chosen = entries == index.reshape((-1,) + (1,) * (values.ndim - 1)).astype(jnp.int32)
    # Not a product with ones and zeros: what is not chosen may be infinite.
    return jnp.where(chosen, values, jnp.zeros((), values.dtype)).sum(axis=axis)
