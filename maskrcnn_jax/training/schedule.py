"""The learning rate over the steps: linear warm-up, then a drop at each milestone."""

import bisect
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from maskrcnn_jax.errors import UserError


def warmup_steps_decay(
    base: float, *, warmup: int, milestones: Sequence[int], factor: float = 0.1, warmup_factor: float = 0.0
) -> optax.Schedule:
    """base * factor^(milestones passed), times a ramp from `warmup_factor` to 1 over the first steps.

    Detectron2's WarmupMultiStepLR. Steps count from 0; step `warmup` is the first at full rate and a
    milestone's own step the first after its drop.

    Raises:
      UserError: milestones that do not rise.
    """
    if list(milestones) != sorted(set(milestones)):
        raise UserError(f"schedule.milestones must rise: {tuple(milestones)}")

    def rate(step: int) -> float:
        ramp = warmup_factor + (1.0 - warmup_factor) * step / warmup if step < warmup else 1.0
        return base * ramp * factor ** bisect.bisect_right(milestones, step)

    # From tables in double precision: what a step reads is the exact rate, rounded once.
    edges = np.array(milestones, np.int32)
    ramp = np.array([rate(step) for step in range(warmup)] or [0.0], np.float32)
    levels = np.array([base * factor**passed for passed in range(len(milestones) + 1)], np.float32)
    edges, ramp, levels = jax.device_put((edges, ramp, levels))

    def schedule(step):
        level = levels[jnp.searchsorted(edges, step, side="right")] if milestones else levels[0]
        return jnp.where(step < warmup, ramp[jnp.clip(step, 0, ramp.size - 1)], level)

    return schedule


def on_host(schedule: optax.Schedule) -> Callable[[int], float]:
    """The same rates as numbers of Python's, which move to the device and back only where it is said."""
    compiled = jax.jit(schedule)
    return lambda step: float(jax.device_get(compiled(jax.device_put(np.int32(step)))))
