"""One training step: a pure function of (state, batch, key) that uses its state up and learns."""

import jax
import numpy as np
import optax
import pytest
from tiny_config import get_config

from maskrcnn_jax.data.pipeline import batches
from maskrcnn_jax.data.synthetic import draw_records
from maskrcnn_jax.interop.trees import expected_shapes, flatten, nest
from maskrcnn_jax.models.mask_rcnn import LOSSES
from maskrcnn_jax.training.optimizer import trainable
from maskrcnn_jax.training.step import create_state

pytest_plugins = ("tiny",)


@pytest.fixture(scope="module")
def stream():
    """Two batches of the tiny experiment."""
    config = get_config()
    found = batches(
        draw_records(2, seed=0, size=config.data.size),
        augment=config.data.augment,
        canvas=tuple(config.data.canvas),
        batch_size=config.batch_size,
        max_instances=config.data.max_instances,
        seed=0,
        steps=2,
    )
    return list(found)


@pytest.fixture
def start(model_config, optimizer, rng):
    """Makes the same first state each time."""
    shapes = expected_shapes(model_config).items()
    params = nest({name: (rng.normal(size=shape) / 10).astype(np.float32) for name, shape in shapes})
    return lambda: create_state(jax.device_put(params), optimizer)


def test_metrics_are_the_five_losses_their_sum_and_the_gradients_norm(
    step_function, start, stream, model_config
):
    """After one step the momentum is the gradient and the weight decay: the norm can be found from it."""
    before = flatten(start().params)
    state, metrics = step_function(start(), stream[0], jax.random.key(0))
    assert metrics.keys() == {*LOSSES, "loss", "gradient_norm"}
    assert all(np.isfinite(value) and value.shape == () for value in metrics.values())
    np.testing.assert_allclose(metrics["loss"], sum(metrics[name] for name in LOSSES), rtol=1e-6)
    decay, clip_norm = (get_config().optimizer[name] for name in ("weight_decay", "clip_norm"))
    momentum = flatten(optax.tree.get(state.opt_state, "trace"))
    learns = [name for name, flag in flatten(trainable(model_config, nest(before))).items() if flag]
    gradients = [
        np.float64(momentum[name]) - (0 if "/norm/" in name else decay * before[name]) for name in learns
    ]
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    np.testing.assert_allclose(norm, min(metrics["gradient_norm"], clip_norm), rtol=1e-4)
    assert int(state.step) == 1


def test_what_learns_moves_and_what_is_frozen_does_not(step_function, start, stream, model_config):
    before, state = flatten(start().params), start()
    for batch in stream:  # The first step's rate is 0.
        state, _ = step_function(state, batch, jax.random.key(0))
    after, learns = flatten(state.params), flatten(trainable(model_config, state.params))
    for name, flag in learns.items():
        assert np.array_equal(before[name], after[name]) != flag, name
    assert not all(learns.values())


def test_the_state_is_used_up(step_function, start, stream):
    state = start()
    step_function(state, stream[0], jax.random.key(0))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_the_same_seed_and_step_give_the_same_bits(step_function, start, stream):
    runs = []
    for seed in (3, 3, 4):
        state, first = step_function(start(), stream[0], jax.random.key(seed))
        state, second = step_function(state, stream[1], jax.random.key(seed))
        runs.append(jax.device_get((state, first, second)))
    same, other = (
        [np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, pair), strict=True)]
        for pair in ((runs[0], runs[1]), (runs[0], runs[2]))
    )
    assert all(same) and not all(other)


def test_each_step_draws_its_own_samples(step_function, start, stream):
    """The key of a run is folded with the step: the same batch and parameters give other samples."""
    first = step_function(start(), stream[0], jax.random.key(0))[1]
    later = step_function(start()._replace(step=jax.numpy.int32(5)), stream[0], jax.random.key(0))[1]
    assert first["loss_cls"] != later["loss_cls"]


def test_the_second_step_compiles_nothing(step_function, start, stream):
    state, sizes = start(), []
    for batch in stream:
        state, _ = step_function(state, jax.device_put(batch), jax.random.key(0))
        sizes.append(step_function.compilations)
    assert sizes[0] == sizes[1]
