"""Points and windows against shapely; files as QuPath writes them, and those that are none."""

import json

import numpy as np
import pytest
import shapely

from maskrcnn_jax.images.regions import Regions, read_regions

STAR = [[0, 0], [60, 8], [90, 70], [40, 30], [10, 80]]
HOLE = [[30, 15], [50, 15], [50, 28], [30, 28]]
FAR = [[200, 200], [230, 200], [230, 260], [200, 260]]


@pytest.fixture
def regions():
    return Regions([[np.array(STAR, float), np.array(HOLE, float)], [np.array(FAR, float)]])


def shape():
    return shapely.union(shapely.Polygon(STAR, [HOLE]), shapely.Polygon(FAR))


def test_points(regions, rng):
    points = rng.uniform(-10, 270, (3000, 2))
    expected = shapely.contains_xy(shape(), points)
    np.testing.assert_array_equal(regions.contain(points), expected)
    assert 20 < expected.sum() < 2000 and regions.contain(np.zeros((0, 2))).shape == (0,)


def test_windows(regions, rng):
    for _ in range(400):
        top, left = rng.integers(-20, 260, 2).tolist()
        height, width = rng.integers(1, 30, 2).tolist()
        box = shapely.box(left, top, left + width, top + height)
        assert regions.touch(top, left, height, width) == shapely.intersects(shape(), box)
    assert regions.touch(-5, -5, 500, 500) and not regions.touch(18, 33, 5, 5)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda polygon: {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": polygon}]},
        lambda polygon: [{"type": "Feature", "geometry": polygon}, {"type": "Feature", "geometry": None}],
        lambda polygon: {"type": "MultiPolygon", "coordinates": [polygon["coordinates"]]},
        lambda polygon: {"type": "GeometryCollection", "geometries": [polygon]},
        lambda polygon: polygon,
    ],
)
def test_forms_of_files(tmp_path, wrap):
    polygon = {"type": "Polygon", "coordinates": [[*STAR, STAR[0]], [*HOLE, HOLE[0]]]}
    (tmp_path / "x.geojson").write_text(json.dumps(wrap(polygon)))
    found = read_regions(tmp_path / "x.geojson")
    assert found.contain(np.array([[5.0, 5.0], [40.0, 20.0]])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type": "Point", "coordinates": [1, 2]}', "holds no polygon"),
        ('{"images": []}', "is no GeoJSON with polygons"),
        ('{"type": "Polygon", "coordinates": [[[1, 2]]]}', "is no GeoJSON with polygons"),
        ('{"type": "Polygon", "coordinates": "x"}', "is no GeoJSON with polygons"),
        ("{", "x.geojson"),
    ],
)
def test_other_files(tmp_path, text, message):
    (tmp_path / "x.geojson").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_regions(tmp_path / "x.geojson")
