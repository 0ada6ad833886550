"""Suppression of parts on the device: the same detections stay as by `masks.containment` on the host."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from maskrcnn_jax.ops.boxes import pairwise_intersection


def not_contained(
    pixels: Callable[[Int[Array, ""]], Bool[Array, "H W"]],
    areas: Int[Array, "D"],
    boxes: Float[Array, "D 4"],
    classes: Int[Array, "D"],
    valid: Bool[Array, "D"],
    share: float,
) -> Bool[Array, "D"]:
    """Which masks stay: one that does drops each worse one of its class that lies in it by more than `share`.

    Few boxes overlap enough to matter, so only the masks of those pairs are looked at, pair by pair.

    Args:
      pixels: gives a mask by its number.
      areas: pixels of each mask.
      boxes: XYXY pixels, best first; no pixel of a mask lies outside its box.
      classes: of each.
      valid: False marks padding, which neither stays nor drops.
      share: 0 to 1.
    """
    count = len(areas)
    needed = share * areas.astype(jnp.float32)
    low, high = jnp.floor(boxes[:, :2]), jnp.ceil(boxes[:, 2:])
    common = pairwise_intersection(*(jnp.concatenate([low, high], axis=1),) * 2)
    better = jnp.arange(count)[:, None] < jnp.arange(count)[None, :]
    pairs = better & (common > needed[None, :]) & (classes[:, None] == classes[None, :])
    pairs &= valid[:, None] & valid[None, :]

    def drop_within(b, gone):
        """Goes through the worse ones of a pair with `b`, unless that is gone itself."""

        def drop(state):
            gone, left = state
            worse = jnp.argmax(left)
            shared = (pixels(b) & pixels(worse)).sum()
            inside = shared.astype(jnp.float32) > needed[worse]
            return gone.at[worse].set(gone[worse] | inside), left.at[worse].set(False)

        left = pairs[b] & ~gone & ~gone[b]
        return jax.lax.while_loop(lambda state: state[1].any(), drop, (gone, left))[0]

    return valid & ~jax.lax.fori_loop(0, count, drop_within, jnp.zeros(count, bool))
