"""Where the parameters for an evaluation come from, and what may differ from the config."""

import jax
import numpy as np
import pytest
from tiny_config import get_config

from maskrcnn_jax.interop.bundle import BundleError, save_bundle
from maskrcnn_jax.interop.trees import expected_shapes, flatten, nest
from maskrcnn_jax.training.checkpoint import CheckpointError, Checkpoints
from maskrcnn_jax.training.optimizer import make_optimizer
from maskrcnn_jax.training.step import create_state
from maskrcnn_jax.training.trained import load_trained

pytest_plugins = ("tiny",)


@pytest.fixture
def filled(model_config):
    """Makes parameters that all have one value."""
    shapes = expected_shapes(model_config).items()
    return lambda value: nest({name: np.full(shape, value, np.float32) for name, shape in shapes})


@pytest.fixture
def checkpoint(optimizer, filled):
    """Saves a state whose parameters are 2 and whose averages are 3."""

    def save(workdir, optimizer=optimizer, config=None):
        state = create_state(jax.device_put(filled(3.0)), optimizer)
        with Checkpoints(workdir, (config or get_config()).to_dict(), keep=1) as checkpoints:
            checkpoints.save(state._replace(params=jax.device_put(filled(2.0)), step=state.step + 7))

    return save


def values(params):
    return {float(value) for array in flatten(params).values() for value in np.unique(array)}


def test_a_bundle_comes_before_the_checkpoints(tmp_path, model_config, filled, checkpoint):
    checkpoint(tmp_path)
    save_bundle(tmp_path / "bundle", model_config, filled(1.0))
    config, params, source = load_trained(get_config(), tmp_path / "bundle")
    assert config == model_config and values(params) == {1.0} and source == str(tmp_path / "bundle")


def test_without_a_bundle_the_latest_checkpoint_gives_its_averages(tmp_path, checkpoint):
    checkpoint(tmp_path)
    _, params, source = load_trained(get_config(), tmp_path / "bundle")
    assert values(params) == {3.0} and source == f"step 7 of {tmp_path}"


def test_without_averages_it_gives_the_parameters(tmp_path, model_config, checkpoint):
    config = get_config()
    config.optimizer.ema = 0.0
    checkpoint(tmp_path, make_optimizer(model_config, lambda step: 0.1, clip_norm=5.0), config)
    assert values(load_trained(config, tmp_path / "bundle")[1]) == {2.0}


def test_how_detections_are_chosen_is_the_configs(tmp_path, model_config, filled):
    save_bundle(tmp_path / "bundle", model_config, filled(1.0))
    config = get_config()
    config.model.detection.score_threshold = 0.5
    assert load_trained(config, tmp_path / "bundle")[0].detection.score_threshold == 0.5


def test_another_model_is_refused(tmp_path, model_config, filled, checkpoint):
    config = get_config()
    config.model.rpn.nms_iou = 0.6
    for fill in (checkpoint, lambda folder: save_bundle(folder / "bundle", model_config, filled(1.0))):
        fill(tmp_path)
        with pytest.raises(CheckpointError, match=r"model\.rpn\.nms_iou: 0\.7 there, 0\.6 in this config"):
            load_trained(config, tmp_path / "bundle")


def test_a_folder_without_either_is_named(tmp_path):
    with pytest.raises(BundleError, match="nowhere"):
        load_trained(get_config(), tmp_path / "nowhere" / "bundle")
