"""SGD with momentum as Detectron2 runs it, with parameters that stay fixed, and optional extras."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from maskrcnn_jax.config import MaskRCNNConfig


def make_optimizer(
    config: MaskRCNNConfig,
    schedule: optax.Schedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    clip_norm: float = 0.0,
    ema: float = 0.0,
) -> optax.GradientTransformation:
    """v <- momentum v + (g + weight_decay p), p <- p - rate v, on what is trainable.

    Args:
      config: says which stages are frozen.
      schedule: learning rate by step.
      weight_decay: added to every gradient but those of normalisation layers.
      clip_norm: gradients of a larger global norm are scaled down to it; 0 for no limit.
      ema: decay of an exponential moving average of the parameters, see `averaged_params`; 0 for none.
    """
    steps = [
        # Clipping has no state: it may be switched on to rescue a run.
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.add_decayed_weights(weight_decay, lambda params: _by_path(lambda p: "norm" not in p, params)),
        optax.trace(momentum),
        optax.scale_by_learning_rate(schedule),
    ]
    optimizer = optax.partition(
        {True: optax.chain(*steps), False: optax.set_to_zero()}, lambda params: trainable(config, params)
    )
    return optax.chain(optimizer, average_params(ema)) if ema else optimizer


def trainable(config: MaskRCNNConfig, params: Any) -> Any:
    """True for each parameter that learns: not in a frozen stage, not of a frozen batch norm."""
    backbone = config.backbone
    frozen = {"stem"} if backbone.freeze_at >= 1 else set()
    frozen |= {f"res{stage}" for stage in range(2, backbone.freeze_at + 1)}

    def learns(path: tuple[str, ...]) -> bool:
        if path[0] == "backbone" and path[1] in frozen:
            return False
        return path[:-1] not in fixed

    # Only batch norms keep a mean; theirs is frozen.
    means = _by_path(lambda path: path[-1] == "mean", params)
    fixed = {
        tuple(key.key for key in path[:-1])
        for path, mean in jax.tree_util.tree_leaves_with_path(means)
        if mean
    }
    return _by_path(learns, params)


class AverageState(NamedTuple):
    """The moving average of the parameters, and how many steps are in it."""

    count: jax.Array
    average: Any


def average_params(decay: float) -> optax.GradientTransformation:
    """Keeps a moving average of the parameters; leaves the updates as they are.

    The decay grows as (1 + n) / (10 + n) up to `decay`, so that early steps do not linger.
    """

    def init(params):
        return AverageState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

    def update(updates, state, params):
        count = state.count.astype(jnp.float32)
        weight = 1.0 - jnp.minimum(decay, (1.0 + count) / (10.0 + count))
        average = jax.tree.map(lambda a, p, u: a + weight * (p + u - a), state.average, params, updates)
        return updates, AverageState(state.count + 1, average)

    return optax.GradientTransformation(init, update)


def averaged_params(params: Any, opt_state: Any) -> Any:
    """The moving average where the optimiser keeps one, otherwise `params`."""
    average = optax.tree_utils.tree_get(opt_state, "average")
    return params if average is None else average


def _by_path(test, params):
    """`test` of each leaf's path of names."""
    return jax.tree_util.tree_map_with_path(lambda path, _: test(tuple(key.key for key in path)), params)
