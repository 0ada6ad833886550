"""From a layer's array to labels and measurements, without napari."""

import threading

import jax
import numpy as np
import pytest
from tiny_config import get_config

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.interop.bundle import save_bundle
from maskrcnn_jax.models.parameters import init_params
from maskrcnn_jax.napari_plugin.finding import Cancelled, Finder, visible_pixels

pytest_plugins = ("tiny",)


@pytest.fixture(scope="module")
def bundle(compiled_once, tmp_path_factory):
    config = MaskRCNNConfig.from_dict(get_config().model.to_dict())
    folder = tmp_path_factory.mktemp("model") / "bundle"
    save_bundle(folder, config, jax.tree.map(np.asarray, init_params(config, jax.random.key(0))))
    return folder


@pytest.fixture(scope="module")
def finder():
    return Finder()


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (60, 90), np.uint8)


def test_labels_have_their_measurements(finder, bundle, image):
    steps = []
    found = finder(image, bundle, min_score=0.0, progress=lambda *step: steps.append(step))
    assert steps == [(0, 1), (1, 1)] and len(found) > 1
    assert found.labels.shape == image.shape
    assert {len(column) for column in found.features.values()} == {len(found)}
    assert found.features["index"].tolist() == list(range(1, len(found) + 1))
    areas = np.bincount(found.labels.ravel(), minlength=len(found) + 1)[1:]
    assert (areas <= found.features["area"]).all()  # where masks overlap, one label has the pixel
    assert "centroid_x" in found.features and "id" not in found.features


def test_little_scores_are_left_out(finder, bundle, image):
    all_of_them = finder(image, bundle, min_score=0.0).features["score"]
    least = float(np.median(all_of_them))
    assert len(finder(image, bundle, min_score=least)) == (all_of_them >= least).sum()
    nothing = finder(image, bundle, min_score=1.0)
    assert len(nothing) == 0 and not nothing.labels.any() and "area" in nothing.features


def test_tiles_are_told_and_may_be_the_last(finder, bundle, image):
    steps, enough = [], threading.Event()

    def step(done, count):
        steps.append((done, count))
        if done == 2:
            enough.set()

    with pytest.raises(Cancelled):
        finder(image, bundle, min_score=0.0, tile=48, progress=step, cancelled=enough)
    assert steps[-1][0] == 2 < steps[-1][1]


def test_what_is_no_model_is_told(finder, tmp_path, image):
    with pytest.raises(UserError, match="no model is called"):
        finder(image, "nucleus")
    with pytest.raises(UserError, match="is no bundle"):
        finder(image, tmp_path)


def test_the_plane_in_view_is_read(rng):
    stack = rng.integers(0, 256, (4, 3, 9, 8, 3), np.uint8)
    np.testing.assert_array_equal(visible_pixels(stack, rgb=True, place=(2, 1, 0, 0)), stack[2, 1])
    pyramid = [stack[0, 0], stack[0, 0, ::2, ::2]]
    np.testing.assert_array_equal(visible_pixels(pyramid, rgb=True, multiscale=True), pyramid[0])
    with pytest.raises(UserError, match="rows and columns"):
        visible_pixels(np.zeros(7), rgb=False)


def test_other_numbers_are_read_as_they_are_shown():
    values = np.array([[-1.0, 0.0, 0.5], [1.0, 9.0, np.nan]])
    pixels = visible_pixels(values, rgb=False, limits=(0.0, 1.0))
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, [[0, 0, 32768], [65535, 65535, 0]])
