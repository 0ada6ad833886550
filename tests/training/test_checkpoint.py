"""Checkpoints come back bit for bit, even of states donated at once; all that does not fit is named."""

import copy
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.training.checkpoint import CheckpointError, Checkpoints, load_latest
from maskrcnn_jax.training.state import TrainState

CONFIG = {"seed": 1, "steps": 9, "model": MaskRCNNConfig().to_dict()}


def state_at(step, size=5):
    params = {"a": jnp.arange(size, dtype=jnp.float32) + step, "b": {"c": jnp.full((2, 3), step / 7)}}
    return TrainState(jnp.int32(step), params, optax.sgd(0.1, momentum=0.9).init(params))


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def changed(**fields):
    """CONFIG with other values of some model fields, given as `section__field`."""
    config = copy.deepcopy(CONFIG)
    for name, value in fields.items():
        *sections, field = name.split("__")
        functools.reduce(dict.get, sections, config["model"])[field] = value
    return config


@pytest.fixture
def saved(tmp_path):
    """A run folder with checkpoints of steps 2 and 4."""
    with Checkpoints(tmp_path / "run", CONFIG, keep=3) as checkpoints:
        for step in (2, 4):
            checkpoints.save(state_at(step))
    return tmp_path / "run"


def test_the_latest_comes_back_as_it_was(saved):
    with Checkpoints(saved, CONFIG, keep=3) as checkpoints:
        assert checkpoints.latest_step == 4
        assert_equal(checkpoints.restore(state_at(0)), state_at(4))
        assert_equal(checkpoints.restore(jax.eval_shape(lambda: state_at(0))), state_at(4))
    assert_equal(load_latest(saved, jax.eval_shape(lambda: state_at(0)), CONFIG), state_at(4))


def test_a_fresh_folder_has_none_and_keeps_the_config(tmp_path):
    with Checkpoints(tmp_path / "new", CONFIG, keep=1) as checkpoints:
        assert checkpoints.latest_step is None
    assert json.loads((tmp_path / "new" / "config.json").read_text()) == json.loads(json.dumps(CONFIG))


def test_only_the_last_ones_stay(tmp_path):
    with Checkpoints(tmp_path, CONFIG, keep=2) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(state_at(step))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["3", "4"]


def test_a_step_is_saved_once(saved):
    with Checkpoints(saved, CONFIG, keep=3) as checkpoints:
        checkpoints.save(state_at(4))


def test_a_state_that_is_donated_while_it_is_written_is_saved_as_it_was(tmp_path):
    """The next steps overwrite the buffers of the state that is still on its way to the disk."""
    next_state = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state = next_state(state_at(0, size=1_000_000))
    with Checkpoints(tmp_path, CONFIG, keep=9) as checkpoints:
        for _ in range(3):
            checkpoints.save(state)
            for _ in range(5):
                state = next_state(state)
        jax.block_until_ready(state)
    for step in (11, 6, 1):
        found = load_latest(tmp_path, jax.eval_shape(lambda: state_at(0, size=1_000_000)), CONFIG)
        assert int(found.step) == step
        np.testing.assert_array_equal(found.params["a"], np.arange(1_000_000, dtype=np.float32) + step)
        shutil.rmtree(tmp_path / "checkpoints" / str(step))


@pytest.mark.parametrize("opened", [True, False])
def test_another_model_is_refused_with_every_field_that_differs(saved, opened):
    other = changed(num_classes=3, backbone__depth=101, rpn__anchor_sizes=((4, 8),))
    with pytest.raises(CheckpointError) as error:
        if opened:
            Checkpoints(saved, other, keep=3)
        else:
            load_latest(saved, state_at(0), other)
    assert str(error.value).splitlines()[1:] == [
        "  model.backbone.depth: 50 there, 101 in this config",
        "  model.num_classes: 1 there, 3 in this config",
        "  model.rpn.anchor_sizes: [[8.0, 16.0, 32.0, 64.0, 128.0]] there, [[4, 8]] in this config",
    ]
    assert json.loads((saved / "config.json").read_text()) == json.loads(json.dumps(CONFIG))


def test_a_field_that_an_older_version_did_not_have_is_at_its_default(saved):
    """A run goes on in a version that has more fields, unless the config asks for something new."""
    path = saved / "config.json"
    config = json.loads(path.read_text())
    del config["model"]["roi"]["mask_margin"]
    path.write_text(json.dumps(config))
    with Checkpoints(saved, CONFIG, keep=3) as checkpoints:
        assert checkpoints.latest_step == 4
    with pytest.raises(CheckpointError, match=r"model.roi.mask_margin: 0.0 there, 0.5 in this config"):
        Checkpoints(saved, changed(roi__mask_margin=0.5), keep=3)


def test_what_does_not_touch_the_weights_may_change(saved):
    other = changed(detection__score_threshold=0.3, test_resize=(800, 1333), remat=True) | {"steps": 99}
    with Checkpoints(saved, other, keep=3) as checkpoints:
        assert int(checkpoints.restore(state_at(0)).step) == 4
    assert json.loads((saved / "config.json").read_text())["steps"] == 99


def test_another_optimiser_is_refused_by_its_fields_and_its_weights_can_be_had(saved):
    """The checkpoint is good: nothing says that it should go, and the folder's config stays as it was."""
    params = state_at(0).params
    adam = TrainState(jnp.int32(0), params, optax.adam(0.1).init(params))
    before = (saved / "config.json").read_bytes()
    for config, words in [
        (CONFIG | {"optimizer": {"ema": 0.5}}, r"\n  optimizer\.ema: None there, 0\.5 in this config\n"),
        (CONFIG, r"\n  opt_state\.0\.trace\.a: only there\n"),
    ]:
        with Checkpoints(saved, config, keep=3) as checkpoints:
            with pytest.raises(CheckpointError, match=rf"step 4 in .* is whole.*{words}") as error:
                checkpoints.restore(adam)
            assert "--reset_optimizer" in str(error.value) and "elete" not in str(error.value)
        assert (saved / "config.json").read_bytes() == before
    with Checkpoints(saved, CONFIG, keep=3) as checkpoints:
        step, weights = checkpoints.restore_params()
    assert step == 4
    assert_equal(weights, state_at(4).params)


def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_left(saved):
    path = saved / "checkpoints" / "4" / "default" / "_METADATA"
    path.write_bytes(path.read_bytes()[:50])
    with Checkpoints(saved, CONFIG, keep=3) as checkpoints, pytest.raises(CheckpointError) as error:
        checkpoints.restore(state_at(0))
    assert "step 4" in str(error.value) and len(str(error.value)) < 800
    shutil.rmtree(saved / "checkpoints" / "4")
    with Checkpoints(saved, CONFIG, keep=3) as checkpoints:
        assert_equal(checkpoints.restore(state_at(0)), state_at(2))


@pytest.mark.parametrize("content", [None, "{", "[]", '{"steps": 3}'])
def test_a_damaged_config_is_refused(saved, content):
    (saved / "config.json").unlink()
    if content is not None:
        (saved / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json, .* is missing or damaged"):
        load_latest(saved, state_at(0), CONFIG)


def test_without_checkpoints_the_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoints"):
        load_latest(tmp_path / "nowhere", state_at(0), CONFIG)
    with Checkpoints(tmp_path / "new", CONFIG, keep=1):
        pass
    with pytest.raises(CheckpointError, match="no finished checkpoint"):
        load_latest(tmp_path / "new", state_at(0), CONFIG)
