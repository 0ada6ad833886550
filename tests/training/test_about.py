"""What bundles say of the objects that their models were shown."""

import json

import numpy as np

from maskrcnn_jax.data.records import Record
from maskrcnn_jax.interop.bundle import FORMAT, VERSION
from maskrcnn_jax.training import about
from maskrcnn_jax.training.about import about_training, told_before


def record(*shapes, crowd=()):
    """An image of rectangles of these heights and widths."""
    layers = np.zeros((1, 200, 200), np.uint16)
    for n, (height, width) in enumerate(shapes):
        layers[0, 30 * n : 30 * n + height, :width] = n + 1
    kinds = np.isin(np.arange(len(shapes)), crowd)
    return Record(1, "a", np.zeros((200, 200, 3), np.uint8), layers, np.zeros(len(shapes), np.int32), kinds)


def test_the_median_size_of_all_objects():
    records = [record((4, 9), (10, 10)), record(), record((2, 8), (20, 20), (28, 190), crowd=[2])]
    assert about_training(records) == {"object_size": 8.0}  # of 4, 6, 10 and 20
    assert about_training([record()]) == {}


def test_of_many_images_some_are_looked_at(monkeypatch):
    monkeypatch.setattr(about, "_LOOKED_AT", 3)
    small, large = record((4, 4)), record((20, 20))
    assert about_training([small, large, small, large, small]) == {"object_size": 4.0}
    assert about_training([small, large]) == {"object_size": 12.0}


def test_a_run_that_is_done_leaves_what_its_bundle_says(tmp_path):
    assert told_before(tmp_path / "none") == {}
    header = {"format": FORMAT, "version": VERSION, "sha256": "", "config": {}, "about": {"object_size": 7.0}}
    (tmp_path / "config.json").write_text(json.dumps(header))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert told_before(tmp_path) == {"object_size": 7.0}
