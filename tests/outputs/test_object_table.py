"""The table, read by pandas, against closed forms and moments computed pixel by pixel."""

import numpy as np
import pandas as pd
import pytest

from maskrcnn_jax.images.sources import open_source
from maskrcnn_jax.masks.crops import crops_of
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.rle import rle_of_crop
from maskrcnn_jax.outputs import object_table
from maskrcnn_jax.outputs.object_table import COLUMNS, write_table

SIZE = (60, 80)


def result(masks, classes=None):
    count = len(masks)
    boxes = np.arange(4 * count, dtype=np.float32).reshape(-1, 4) + 0.25
    scores = np.linspace(0.9, 0.5, count, dtype=np.float32)
    classes = np.zeros(count, np.int32) if classes is None else np.array(classes, np.int32)
    return Result(boxes, scores, classes, crops_of([rle_of_crop(mask, 0, 0, SIZE) for mask in masks]), SIZE)


def table(path, found, classes=("nucleus",), image=None):
    image = np.zeros((*SIZE, 3), np.uint8) if image is None else image
    write_table(path, found, classes, open_source(image))
    return pd.read_csv(path)


def ellipse(y0, x0, a, b):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    return ((y - y0) / a) ** 2 + ((x - x0) / b) ** 2 <= 1


def test_columns_and_what_is_known_beforehand(tmp_path):
    found = result([ellipse(20, 30, 5, 5), ellipse(40, 50, 5, 5)], [1, 0])
    frame = table(tmp_path / "x.csv", found, ["Zelle, groß", 'say "b"'])
    assert tuple(frame.columns) == COLUMNS
    assert frame["id"].tolist() == [1, 2] and frame["class"].tolist() == ['say "b"', "Zelle, groß"]
    np.testing.assert_allclose(frame["score"], [0.9, 0.5], atol=1e-6)
    np.testing.assert_array_equal(frame[["x0", "y0", "x1", "y1"]], found.boxes)


def test_shapes_against_closed_forms(tmp_path):
    """Ellipses of known axes; skimage's perimeter is an estimate that is good to a few per cent."""
    axes = [(12, 12), (20, 10), (8, 24)]
    frame = table(tmp_path / "x.csv", result([ellipse(30, 40, *pair) for pair in axes]))
    for row, (a, b) in zip(frame.itertuples(), axes, strict=True):
        assert row.area == pytest.approx(np.pi * a * b, rel=0.02)
        assert (row.centroid_x, row.centroid_y) == (pytest.approx(40, abs=0.01), pytest.approx(30, abs=0.01))
        assert row.eccentricity == pytest.approx(np.sqrt(1 - (min(a, b) / max(a, b)) ** 2), abs=0.02)
        h = ((a - b) / (a + b)) ** 2  # Ramanujan
        around = np.pi * (a + b) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))
        assert row.perimeter == pytest.approx(around, rel=0.05)


def test_places_and_colours_pixel_by_pixel(rng, tmp_path):
    """Ragged masks in the corners, with holes and in pieces."""
    image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    masks = np.zeros((5, *SIZE), bool)
    for n, (y, x) in enumerate([(0, 0), (0, 70), (50, 0), (50, 70), (20, 30)]):
        masks[n, y : y + 10, x : x + 10] = rng.random((10, 10)) < 0.6
    frame = table(tmp_path / "x.csv", result(masks), image=image)
    for row, mask in zip(frame.itertuples(), masks, strict=True):
        y, x = np.nonzero(mask)
        assert row.area == mask.sum()
        np.testing.assert_allclose(
            (row.centroid_x, row.centroid_y), (x.mean() + 0.5, y.mean() + 0.5), atol=6e-4
        )
        colour = (row.mean_red, row.mean_green, row.mean_blue)
        np.testing.assert_allclose(colour, image[mask].mean(axis=0), atol=6e-3)


def test_one_pixel_and_none(tmp_path):
    masks = np.zeros((3, *SIZE), bool)
    masks[0, 59, 79] = masks[2, 0, 0] = True
    frame = table(tmp_path / "x.csv", result(masks))
    assert frame["id"].tolist() == [1, 2, 3] and frame["area"].tolist() == [1, 0, 1]
    assert frame["centroid_x"].tolist()[::2] == [79.5, 0.5] and np.isnan(frame["centroid_x"][1])
    assert frame.loc[1, "centroid_x":].drop("area").isna().all()


def test_no_objects_are_a_header(tmp_path):
    frame = table(tmp_path / "x.csv", result([]))
    assert tuple(frame.columns) == COLUMNS and frame.empty


def test_each_part_of_a_slide_is_read_once(rng, tmp_path, monkeypatch):
    """Objects that are neighbours share a window, and their order stays that of the scores."""
    monkeypatch.setattr(object_table, "_WINDOW", 20)
    image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    places = rng.permutation([(y, x) for y in range(0, 60, 5) for x in range(0, 80, 5)])
    masks = np.zeros((len(places), *SIZE), bool)
    for n, (y, x) in enumerate(places):
        masks[n, y : y + 5, x : x + 5] = True
    windows = []

    class Watched:
        def read(self, *window):
            windows.append(window)
            top, left, height, width = window
            return image[top : top + height, left : left + width]

    write_table(tmp_path / "x.csv", result(masks), ["nucleus"], Watched())
    frame = pd.read_csv(tmp_path / "x.csv")
    assert sorted(windows) == [(y, x, 20, 20) for y in range(0, 60, 20) for x in range(0, 80, 20)]
    np.testing.assert_array_equal(frame[["centroid_y", "centroid_x"]], places + 2.5)
    expected = [image[mask].mean(axis=0) for mask in masks]
    np.testing.assert_allclose(frame[["mean_red", "mean_green", "mean_blue"]], expected, atol=6e-3)
