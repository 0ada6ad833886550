"""Everything that training changes, in one pytree."""

from typing import Any, NamedTuple

import jax


class TrainState(NamedTuple):
    """Steps done so far, parameters, and the optimiser's own state."""

    step: jax.Array
    params: Any
    opt_state: Any

    @property
    def done(self) -> int:
        """`step` as a number of Python's; waits for it."""
        return int(jax.device_get(self.step))
