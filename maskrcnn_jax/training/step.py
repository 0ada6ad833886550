"""One training step: losses, gradient, update; a pure function, jitted with its state donated."""

import functools
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from maskrcnn_jax.compilations import CountedJit
from maskrcnn_jax.models.mask_rcnn import MaskRCNN
from maskrcnn_jax.structures import Term
from maskrcnn_jax.training.placement import DATA
from maskrcnn_jax.training.state import TrainState

Metrics = dict[str, Float[Array, ""]]


def make_train_step(
    model: MaskRCNN,
    optimizer: optax.GradientTransformation,
    tell: Callable[[str], None] = warnings.warn,
    mesh: Mesh | None = None,
    accumulate: int = 1,
    device_means: bool = False,
) -> CountedJit:
    """Jitted `(state, batch, key) -> (state, metrics)`; the state that goes in is used up.

    `key` is the run's: each step folds its own number in, so a resumed run draws what an unbroken one
    would have. Metrics are the five losses, their sum `loss`, and `gradient_norm` over what is trainable.
    `tell` is told when it is compiled a second time, which a run of one batch shape never should be.

    The batch is shared out among the devices of `mesh`, and by each device computed in `accumulate` parts,
    one after the other, which needs the memory of one part. However it is cut, losses and gradient are
    those of the whole batch, to rounding: draws depend on an image's place in it, and every loss is a sum
    over all its images divided by a count over all of them. With `device_means` it is instead, as in
    Detectron2, the mean over devices of what each finds for its own images, and so depends on their number.
    """

    def differentiate(params, batch, key):
        return _gradient(model, params, batch, key, accumulate, mesh, device_means)

    if mesh is not None and mesh.size > 1:
        whole, part = PartitionSpec(), PartitionSpec(DATA)
        # The loops of NMS mix values that differ by device with constants, which the type check refuses.
        differentiate = jax.shard_map(
            differentiate, mesh=mesh, in_specs=(whole, part, whole), out_specs=whole, check_vma=False
        )

    def train_step(state, batch, key):
        losses, gradients = differentiate(state.params, batch, jax.random.fold_in(key, state.step))
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = losses | {"loss": sum(losses.values()), "gradient_norm": optax.tree.norm(gradients)}
        return TrainState(state.step + 1, params, opt_state), metrics

    return CountedJit(train_step, expected=1, tell=tell, donate_argnums=0)


@functools.partial(jax.jit, static_argnums=1)
def create_state(params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def _gradient(model, params, batch, key, parts, mesh, device_means):
    """Losses of the whole batch and their sum's gradient; `batch` is this device's share of it."""
    several = mesh is not None and mesh.size > 1
    share = len(batch.index)
    start = jax.lax.axis_index(DATA) * share if several else 0

    def everywhere(values):
        return jax.lax.psum(values, DATA) if several else values

    # What a device finds is its part of the whole batch's losses, or the losses of its own images.
    counted, joined = everywhere, everywhere
    if device_means and several:
        counted, joined = (lambda counts: counts), (lambda values: jax.lax.pmean(values, DATA))

    def terms(params, part, first):
        return model.apply({"params": params}, part, key, first, method="terms")

    def losses(params, counts, part, first):
        """What these images add to each loss; the total for the gradient beside it."""
        found = terms(params, part, first)
        if counts is None:
            counts = counted({name: term.count for name, term in found.items()})
        found = {name: Term(term.total, counts[name]).mean for name, term in found.items()}
        return sum(found.values()), found

    differentiate = jax.grad(losses, has_aux=True)
    if parts == 1:
        gradients, found = differentiate(params, None, batch, start)
        return joined((found, gradients))

    batch = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    firsts = start + jnp.arange(parts) * (share // parts)

    def count(_, inputs):
        return None, {name: term.count for name, term in terms(params, *inputs).items()}

    # Counts are known only when all parts were looked at. The heads, which do not change them, are left out.
    counts = counted(jax.tree.map(jnp.sum, jax.lax.scan(count, None, (batch, firsts))[1]))

    def add(sums, inputs):
        gradients, found = differentiate(params, counts, *inputs)
        return jax.tree.map(jnp.add, sums, (found, gradients)), None

    zeros = {name: jnp.zeros(()) for name in counts}, jax.tree.map(jnp.zeros_like, params)
    return joined(jax.lax.scan(add, zeros, (batch, firsts))[0])
