"""Work on padded rows in chunks that stops after the last valid one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def map_valid(
    function: Callable[..., tuple[Array, ...]],
    rows: tuple[Float[Array, "B R *_"], ...],
    count: Int[Array, ""],
    *,
    chunk: int,
) -> tuple[Array, ...]:
    """`function(*rows)` without the rows past `count`, whose results are zeros.

    Shapes stay fixed, time and memory follow the content: an image of forty objects does not pay for the
    thousand boxes that it might have had. Not to be differentiated.

    Args:
      function: treats every row by itself, (B, r, ...) to (B, r, ...) for any r.
      rows: arrays whose padding comes last.
      count: rows that matter, the most of any image.
      chunk: rows at a time.
    """
    total = rows[0].shape[1]
    chunk = min(chunk, total)
    function = jax.jit(function, inline=True)  # traced once; the loop alone would trace it twice more
    results = jax.eval_shape(function, *(_shrunk(x, chunk) for x in rows))
    results = tuple(jnp.zeros((r.shape[0], total, *r.shape[2:]), r.dtype) for r in results)

    def more(state):
        return state[0] < count

    def add_chunk(state):
        start, results = state
        # At the end the slice is moved back into the array, and so is what it gives.
        parts = function(*(jax.lax.dynamic_slice_in_dim(x, start, chunk, axis=1) for x in rows))
        update = jax.lax.dynamic_update_slice_in_dim
        return start + chunk, tuple(
            update(r, part, start, axis=1) for r, part in zip(results, parts, strict=True)
        )

    return jax.lax.while_loop(more, add_chunk, (jnp.int32(0), results))[1]


def _shrunk(x: Array, chunk: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((x.shape[0], chunk, *x.shape[2:]), x.dtype)
