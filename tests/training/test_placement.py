"""One batch and seed give one loss and one gradient, on however many devices and in however many parts."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from tiny_config import get_config

from maskrcnn_jax.data.pipeline import batches
from maskrcnn_jax.data.synthetic import draw_records
from maskrcnn_jax.models.mask_rcnn import MaskRCNN
from maskrcnn_jax.models.parameters import init_params
from maskrcnn_jax.training import placement
from maskrcnn_jax.training.optimizer import make_optimizer, trainable
from maskrcnn_jax.training.step import create_state, make_train_step

pytest_plugins = ("tiny",)


def tiny_batch():
    """Four images of which the second has no object: the parts of the batch count differently."""
    config = get_config()
    (batch,) = batches(
        draw_records(4, seed=0, size=config.data.size),
        augment=config.data.augment,
        canvas=tuple(config.data.canvas),
        batch_size=4,
        max_instances=config.data.max_instances,
        seed=0,
        steps=1,
    )
    valid = batch.valid.copy()
    valid[1] = False
    return batch._replace(valid=valid)


@pytest.fixture(scope="module")
def after(compiled_once, model_config):
    """Metrics and gradients after one step of plain SGD, by number of devices and of parts."""
    batch, start = tiny_batch(), init_params(model_config, jax.random.key(0))
    start = jax.device_get(start)
    optimizer = make_optimizer(model_config, lambda step: 1.0, momentum=0.0, weight_decay=0.0)

    def run(devices, accumulate, **options):
        mesh = Mesh(np.array(jax.devices()[:devices]), (placement.DATA,))
        step = make_train_step(MaskRCNN(model_config), optimizer, mesh=mesh, accumulate=accumulate, **options)
        state = placement.copy_to(mesh, create_state(start, optimizer))
        key = placement.copy_to(mesh, jax.random.key(3))
        with jax.transfer_guard("disallow"):
            state, metrics = step(state, placement.share_out(mesh, batch), key)
        assert all(len(leaf.sharding.device_set) == devices for leaf in jax.tree.leaves(state))
        return jax.device_get(metrics), jax.tree.map(np.subtract, start, jax.device_get(state.params))

    return run


@pytest.fixture(scope="module")
def whole(after):
    return after(1, 1)


@pytest.mark.parametrize(("devices", "accumulate"), [(2, 1), (4, 1), (1, 4), (2, 2)])
def test_a_step_is_the_same_however_the_batch_is_cut(after, whole, devices, accumulate):
    metrics, gradients = after(devices, accumulate)
    for name, value in whole[0].items():
        assert metrics[name] == pytest.approx(value, rel=1e-5), name
    for found, expected in zip(*map(jax.tree.leaves, (gradients, whole[1])), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_means_by_device_are_detectron2s(after, model_config):
    """Against the losses and gradients of each half of the batch, apart and on one device."""
    metrics, gradients = after(2, 1, device_means=True)
    batch, params = tiny_batch(), jax.device_get(init_params(model_config, jax.random.key(0)))
    key = jax.random.fold_in(jax.random.key(3), 0)

    def losses(params, half, first):
        terms = MaskRCNN(model_config).apply({"params": params}, half, key, first, method="terms")
        found = {name: term.mean for name, term in terms.items()}
        return sum(found.values()), (found, terms["loss_mask"].count)

    differentiate = jax.jit(jax.grad(losses, has_aux=True))
    halves = [
        differentiate(params, jax.tree.map(lambda x, i=i: x[i : i + 2], batch), np.int32(i)) for i in (0, 2)
    ]
    (_, (_, one)), (_, (_, other)) = halves
    assert one != other  # With equal counts a mean of means is the mean.
    expected, (means, _) = jax.tree.map(lambda a, b: np.asarray(a + b) / 2, *halves)
    for name, value in means.items():
        assert metrics[name] == pytest.approx(value, rel=1e-5), name
    leaves = map(jax.tree.leaves, (trainable(model_config, params), gradients, expected))
    for learns, found, gradient in zip(*leaves, strict=True):
        np.testing.assert_allclose(found, gradient * learns, rtol=1e-3, atol=1e-5)


class Device:
    process_index = 0

    def __init__(self, platform, number):
        self.platform, self.id = platform, number


@pytest.mark.parametrize(
    ("platform", "batch_size", "count"),
    [("cpu", 8, 1), ("gpu", 1, 1), ("gpu", 8, 8), ("gpu", 4, 4), ("gpu", 12, 4), ("gpu", 3, 1)],
)
def test_as_many_accelerators_as_share_the_batch_equally(monkeypatch, platform, batch_size, count):
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(platform, i) for i in range(8)])
    monkeypatch.setattr(placement, "Mesh", lambda devices, names: (devices.shape, names))
    assert placement.make_mesh(batch_size) == ((count,), (placement.DATA,))


def test_devices_that_cannot_share_the_batch_are_refused():
    with pytest.raises(ValueError, match="batch_size 6 cannot be shared equally by 4 devices of 1 processes"):
        placement.make_mesh(6, jax.devices()[:4])
    with pytest.raises(ValueError, match=r"2 parts each \(accumulate\): set batch_size to a multiple of 8"):
        placement.make_mesh(12, jax.devices()[:4], accumulate=2)
