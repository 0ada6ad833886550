"""Data parallelism on two (CPU) devices against the mean of what each part of the batch gives alone."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from tiny_config import get_config

from maskrcnn_jax.data.pipeline import batches
from maskrcnn_jax.data.synthetic import draw_records
from maskrcnn_jax.models.mask_rcnn import MaskRCNN, init_params
from maskrcnn_jax.training import placement
from maskrcnn_jax.training.optimizer import make_optimizer
from maskrcnn_jax.training.step import create_state, make_train_step

pytest_plugins = ("tiny",)


@pytest.fixture
def mesh():
    return Mesh(np.array(jax.devices()[:2]), (placement.DATA,))


def test_a_step_on_two_devices_is_the_mean_of_their_parts(compiled_once, model_config, mesh):
    config, key = get_config(), jax.random.key(3)
    (batch,) = batches(
        draw_records(2, seed=0, size=config.data.size),
        augment=config.data.augment,
        canvas=tuple(config.data.canvas),
        batch_size=2,
        max_instances=config.data.max_instances,
        seed=0,
        steps=1,
    )
    optimizer = make_optimizer(model_config, lambda step: 0.1, momentum=0.0, weight_decay=0.0)
    model, params = MaskRCNN(model_config), init_params(model_config, jax.random.key(0))
    state = create_state(params, optimizer)

    def differentiate(params, batch, key):
        def loss(params):
            return sum(model.apply({"params": params}, batch, key, method="losses").values())

        return jax.value_and_grad(loss)(params)

    alone = jax.jit(differentiate)
    step_key = jax.random.fold_in(key, 0)
    results = [
        alone(params, jax.tree.map(lambda x, d=d: x[d : d + 1], batch), jax.random.fold_in(step_key, d))
        for d in range(2)
    ]
    loss, gradients = jax.tree.map(lambda a, b: (a + b) / 2, *results)
    expected = jax.tree.map(lambda p, g: p - np.float32(0.1) * g, params, gradients)

    step = make_train_step(model, optimizer, mesh=mesh)
    state = jax.device_put(state, placement.everywhere(mesh))
    after, metrics = step(state, jax.device_put(batch, placement.parts(mesh)), key)
    assert metrics["loss"] == pytest.approx(float(loss), rel=1e-4)
    for found, value in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True):
        assert len(found.sharding.device_set) == 2
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)


class Device:
    def __init__(self, platform):
        self.platform = platform


@pytest.mark.parametrize(
    ("platform", "batch_size", "count"),
    [("cpu", 8, 1), ("gpu", 1, 1), ("gpu", 8, 8), ("gpu", 4, 4), ("gpu", 12, 4), ("gpu", 3, 1)],
)
def test_as_many_accelerators_as_share_the_batch_equally(monkeypatch, platform, batch_size, count):
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(platform) for _ in range(8)])
    monkeypatch.setattr(placement, "Mesh", lambda devices, names: (devices.shape, names))
    assert placement.make_mesh(batch_size) == ((count,), (placement.DATA,))
