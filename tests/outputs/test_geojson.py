"""GeoJSON against what QuPath's reader expects, with shapely as the independent reader of polygons."""

import json
import uuid

import numpy as np
import pytest
import shapely

from maskrcnn_jax.masks.crops import crops_of
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.rle import rle_of_crop
from maskrcnn_jax.outputs.geojson import write_geojson

SIZE = (30, 40)
CLASSES = ("tumour", "Lymphozyt – groß")


def result(masks, classes=None):
    count = len(masks)
    return Result(
        np.zeros((count, 4), np.float32),
        np.linspace(0.9, 0.5, count, dtype=np.float32),
        np.zeros(count, np.int32) if classes is None else np.array(classes, np.int32),
        crops_of([rle_of_crop(mask, 0, 0, SIZE) for mask in masks]),
        SIZE,
    )


def written(path, *arguments, **more):
    write_geojson(path, *arguments, **more)
    return json.loads(path.read_text(encoding="utf-8"))


def blobs(rng):
    """Ragged masks with holes and several pieces, a single pixel, and the whole image."""
    masks = [rng.random(SIZE) < share for share in (0.3, 0.5, 0.7)]
    masks += [np.zeros(SIZE, bool), np.ones(SIZE, bool)]
    masks[3][-1, -1] = True
    return np.array(masks)


def test_shapes_are_the_masks(rng, tmp_path):
    masks = blobs(rng)
    document = written(tmp_path / "x.geojson", result(masks), CLASSES)
    assert document["type"] == "FeatureCollection" and len(document["features"]) == len(masks)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    for feature, mask in zip(document["features"], masks, strict=True):
        shape = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert shape.is_valid and shape.area == mask.sum()
        np.testing.assert_array_equal(shapely.contains_xy(shape, x.ravel(), y.ravel()), mask.ravel())
        assert feature["geometry"]["type"] == ("Polygon" if mask.sum() in (1, mask.size) else "MultiPolygon")


def test_features_have_the_form_of_qupath(rng, tmp_path):
    """The keys and types that QuPath's QuPathTypeAdapters and PathClassTypeAdapter read."""
    document = written(tmp_path / "x.geojson", result(blobs(rng), [0, 1, 1, 0, 0]), CLASSES, image="slide")
    for n, feature in enumerate(document["features"]):
        assert feature["type"] == "Feature"
        assert str(uuid.UUID(feature["id"])) == feature["id"]
        properties = feature["properties"]
        assert set(properties) == {"objectType", "name", "classification", "measurements"}
        assert (properties["objectType"], properties["name"]) == ("detection", str(n + 1))
        assert set(properties["classification"]) == {"name", "color"}
        color = properties["classification"]["color"]
        assert len(color) == 3 and all(type(value) is int and 0 <= value < 256 for value in color)
        assert all(type(value) is float for value in properties["measurements"].values())
    names = [feature["properties"]["classification"]["name"] for feature in document["features"]]
    assert names == [CLASSES[k] for k in (0, 1, 1, 0, 0)]
    scores = [feature["properties"]["measurements"]["score"] for feature in document["features"]]
    np.testing.assert_allclose(scores, [0.9, 0.8, 0.7, 0.6, 0.5], atol=1e-6)


def test_ids_are_those_of_the_last_run_but_not_of_another_image(rng, tmp_path):
    found = result([*blobs(rng)[:1]] * 2)  # two objects with the same pixels
    ids = [
        [f["id"] for f in written(tmp_path / "x.geojson", found, CLASSES, image=image)["features"]]
        for image in ("a", "a", "b")
    ]
    assert ids[0] == ids[1] and len({*ids[0], *ids[2]}) == 4


def test_an_object_without_pixels_keeps_its_number_to_itself(rng, tmp_path):
    masks = blobs(rng)[:3]
    masks[1] = False
    features = written(tmp_path / "x.geojson", result(masks), CLASSES)["features"]
    assert [feature["properties"]["name"] for feature in features] == ["1", "3"]


def test_no_objects_are_an_empty_collection(tmp_path):
    document = written(tmp_path / "x.geojson", result([]), CLASSES)
    assert document == {"type": "FeatureCollection", "features": []}


@pytest.mark.parametrize("corner", [(0, 0), (95_000 - 3, 100_000 - 4), (70_000, 12_345)])
def test_places_on_slides(tmp_path, corner):
    size = (95_000, 100_000)
    mask = rle_of_crop(np.ones((3, 4), bool), *corner, size)
    found = Result(
        np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int32), crops_of([mask]), size
    )
    (feature,) = written(tmp_path / "x.geojson", found, CLASSES)["features"]
    shape = shapely.from_geojson(json.dumps(feature["geometry"]))
    assert shape.bounds == (corner[1], corner[0], corner[1] + 4, corner[0] + 3)
