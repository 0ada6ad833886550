"""Fresh parameters: what they are drawn from, that no two are alike, and that a key decides them all."""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util
from small_models import C4, CONFIGS, FPN

from maskrcnn_jax.models.parameters import init_params, param_shapes


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_initial_parameters(config):
    """A function of the key; every kernel as wide as its layer says, everything else neutral."""
    params = init_params(config, jax.random.key(0))
    again, other = init_params(config, jax.random.key(0)), init_params(config, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, params, again)
    shapes = param_shapes(config)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), shapes
    )
    flat, other = (traverse_util.flatten_dict(tree, sep="/") for tree in (params, other))
    for path, value in flat.items():
        if path.endswith("/kernel"):
            assert not np.array_equal(value, other[path]), path
        else:
            neutral = 1 if path.endswith(("/scale", "/var")) else 0
            np.testing.assert_array_equal(value, np.full(value.shape, neutral), err_msg=path)
    wide = {
        "rpn/conv": 0.01,
        "roi_heads/box_predictor/bbox_pred": 0.001,
        "backbone/stem/conv1": (2 / 49 / 4) ** 0.5,
    }
    for layer, deviation in wide.items():
        np.testing.assert_allclose(np.std(flat[f"{layer}/kernel"]), deviation, rtol=0.3, err_msg=layer)


def test_no_two_kernels_start_alike():
    """Kernels are cut from one long draw: each number is used once."""
    flat = traverse_util.flatten_dict(init_params(C4, jax.random.key(0)), sep="/")
    kernels = [
        np.asarray(value).ravel() for path, value in flat.items() if "/block" in path and "kernel" in path
    ]
    kernels = [kernel / kernel.std() for kernel in kernels]
    for i, a in enumerate(kernels):
        for b in kernels[:i]:
            size = min(a.size, b.size)
            assert abs(np.corrcoef(a[:size], b[:size])[0, 1]) < 6 / np.sqrt(size)


def test_initial_parameters_are_traceable():
    traced = jax.eval_shape(functools.partial(init_params, FPN), jax.random.key(0))
    shapes = param_shapes(FPN)
    assert jax.tree.structure(traced) == jax.tree.structure(shapes)
    assert jax.tree.leaves(traced) == jax.tree.leaves(shapes)
