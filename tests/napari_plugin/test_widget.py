"""The widget without a window: what it shows, adds and says."""

import importlib.util
import json
import os
import time
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # napari and its libraries warn when they are imported
    for name in ("napari", "qtpy.QtWidgets"):
        pytest.importorskip(name, reason="needs pip install 'maskrcnn-jax[napari]'", exc_type=ImportError)
    import npe2
    from napari._qt.qt_main_window import _instantiate_dock_widget
    from napari.components import ViewerModel
    from qtpy.QtWidgets import QApplication

    from maskrcnn_jax.napari_plugin import widget as module

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.napari_plugin.finding import Cancelled, Objects
from maskrcnn_jax.zoo import resolve

pytestmark = pytest.mark.filterwarnings("ignore")  # napari's and Qt's own


@pytest.fixture(scope="module")
def application():
    return QApplication.instance() or QApplication([])


@pytest.fixture
def viewer():
    viewer = ViewerModel()
    viewer.add_image(np.zeros((3, 40, 50), np.uint8), name="stack", scale=(5, 0.5, 0.5), translate=(0, 7, 9))
    return viewer


@pytest.fixture
def widget(application, viewer):
    return module.FindObjects(viewer)


def until_idle(application, widget):
    """Lets Qt work until the widget's thread is done."""
    end = time.monotonic() + 30
    while not widget.find.isEnabled() and time.monotonic() < end:
        application.processEvents()
        time.sleep(0.01)
    assert widget.find.isEnabled()


def two_objects(pixels, model, *, progress, **options):
    progress(1, 2)
    labels = np.zeros(pixels.shape[:2], np.int32)
    labels[2:9, 3:8], labels[20:30, 20:40] = 1, 2
    return Objects(labels, {"index": np.array([1, 2]), "area": np.array([35.0, 200.0])})


def test_labels_lie_on_their_image(application, widget, viewer):
    widget._finder = two_objects
    widget._start()
    assert not widget.find.isEnabled() and widget.cancel.isEnabled()
    until_idle(application, widget)
    labels, outlines = viewer.layers["stack objects"], viewer.layers["stack objects, outlines"]
    assert labels.features["area"].tolist() == [35, 200] and labels.features["index"].tolist() == [1, 2]
    assert labels.scale.tolist() == [0.5, 0.5] and labels.translate.tolist() == [7, 9]
    assert outlines.contour == 1 and labels.contour == 0
    assert widget.status.text() == "2 objects" and widget.bar.value() == 1


def test_options_reach_the_finder(application, widget, viewer, tmp_path):
    asked = []
    viewer.dims.set_point(0, 10)  # the plane of index 2
    viewer.layers["stack"].data[2] = 77
    widget._finder = lambda pixels, model, **options: (
        asked.append((pixels, model, options)) or two_objects(pixels, model, **options)
    )
    widget.model.value, widget.bundle.value = module._OWN, tmp_path
    widget.min_score.value, widget.tile.value, widget.outlines.value = 0.25, 512, False
    widget._start()
    until_idle(application, widget)
    ((pixels, model, options),) = asked
    assert (pixels == 77).all() and pixels.shape == (40, 50)
    assert model == Path(tmp_path) and options["min_score"] == 0.25 and options["tile"] == 512
    assert "stack objects, outlines" not in viewer.layers


def test_a_person_may_change_their_mind(application, widget, viewer):
    def waits(pixels, model, *, cancelled, **options):
        assert cancelled.wait(30)
        raise Cancelled

    widget._finder = waits
    widget._start()
    widget._cancel()
    until_idle(application, widget)
    assert widget.status.text() == "cancelled" and len(viewer.layers) == 1


@pytest.mark.parametrize("error", [UserError("no model is called 'x'"), ZeroDivisionError("sides")])
def test_errors_are_shown(application, widget, viewer, error):
    def fails(*arguments, **options):
        raise error

    widget._finder = fails
    widget._start()
    until_idle(application, widget)
    assert str(error) in widget.status.text() and len(viewer.layers) == 1


def test_the_list_of_images_is_the_viewers(application, viewer, widget):
    first = viewer.layers["stack"]
    second = viewer.add_image(np.zeros((4, 4)), name="second")
    assert widget.image.choices == (first, second) and widget.image.value is second
    viewer.layers.remove(second)
    assert widget.image.value is first
    viewer.layers.clear()
    widget._start()
    assert "open one first" in widget.status.text() and widget.find.isEnabled()


def test_the_least_score_starts_at_the_models(widget, tmp_path):
    header = json.loads((resolve("nuclei") / "config.json").read_text())
    assert widget.min_score.value == header["config"]["detection"]["min_score"]
    header["config"]["detection"]["min_score"] = 0.15
    (tmp_path / "config.json").write_text(json.dumps(header))
    (tmp_path / "model.safetensors").touch()
    widget.model.value = module._OWN  # no bundle yet: the score stays
    widget.bundle.value = tmp_path
    assert widget.min_score.value == 0.15
    widget.model.value = "nuclei-he"
    assert widget.min_score.value == 0.4


def test_the_bundle_is_asked_for_where_it_is_meant(widget):
    widget.show()
    assert not widget.bundle.visible
    widget.model.value = module._OWN
    assert widget.bundle.visible
    widget.close()


def test_napari_opens_it_with_its_viewer(application, viewer):
    """As its menu does, which hands in no viewer but a proxy of public names, by the parameter's name."""
    widget = _instantiate_dock_widget(module.FindObjects, viewer)
    widget._finder = two_objects
    widget._start()
    until_idle(application, widget)
    assert widget.status.text() == "2 objects" and "stack objects, outlines" in viewer.layers


def test_napari_knows_the_widget():
    manifest = npe2.PluginManifest.from_file(Path(module.__file__).with_name("napari.yaml"))
    (shown,) = manifest.contributions.widgets
    (command,) = manifest.contributions.commands
    assert shown.command == command.id
    assert command.python_name == f"{module.__name__}:{module.FindObjects.__name__}"
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    package, _, file = project["entry-points"]["napari.manifest"][manifest.name].partition(":")
    assert importlib.util.find_spec(package) and Path(module.__file__).with_name(file).is_file()
