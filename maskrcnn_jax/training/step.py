"""One training step: losses, gradient, update; a pure function, jitted with its state donated."""

import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from maskrcnn_jax.compilations import CountedJit
from maskrcnn_jax.models.mask_rcnn import MaskRCNN
from maskrcnn_jax.training.placement import DATA
from maskrcnn_jax.training.state import TrainState

Metrics = dict[str, Float[Array, ""]]


def make_train_step(
    model: MaskRCNN,
    optimizer: optax.GradientTransformation,
    tell: Callable[[str], None] = warnings.warn,
    mesh: Mesh | None = None,
) -> CountedJit:
    """Jitted `(state, batch, key) -> (state, metrics)`; the state that goes in is used up.

    `key` is the run's: each step folds its own number in, so a resumed run draws what an unbroken one
    would have. Metrics are the five losses, their sum `loss`, and `gradient_norm` over what is trainable.
    `tell` is told when it is compiled a second time, which a run of one batch shape never should be.
    On a `mesh` of several devices each has a part of the batch and random numbers of its own; losses and
    gradients are the means of theirs, as in Detectron2's data-parallel training.
    """

    def loss(params, batch, key):
        losses = model.apply({"params": params}, batch, key, method="losses")
        return sum(losses.values()), losses

    differentiate = jax.value_and_grad(loss, has_aux=True)
    if mesh is not None and mesh.size > 1:
        differentiate = _on_each_device(differentiate, mesh)

    def train_step(state, batch, key):
        step_key = jax.random.fold_in(key, state.step)
        (total, losses), gradients = differentiate(state.params, batch, step_key)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = losses | {"loss": total, "gradient_norm": optax.tree.norm(gradients)}
        return TrainState(state.step + 1, params, opt_state), metrics

    return CountedJit(train_step, expected=1, tell=tell, donate_argnums=0)


def _on_each_device(function: Callable, mesh: Mesh) -> Callable:
    """The mean of `function(params, part of the batch, key of its own)` over the devices."""

    def on_one(params, batch, key):
        return jax.lax.pmean(function(params, batch, jax.random.fold_in(key, jax.lax.axis_index(DATA))), DATA)

    whole, part = PartitionSpec(), PartitionSpec(DATA)
    # The loops of NMS mix values that differ by device with constants, which the type check refuses.
    return jax.shard_map(on_one, mesh=mesh, in_specs=(whole, part, whole), out_specs=whole, check_vma=False)


def create_state(params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
