"""What the tests of `maskrcnn-jax predict` look at: files, read by other programs, and whether they agree."""

import contextlib
import io
import json

import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
from PIL import Image
from pycocotools.coco import COCO

SUFFIXES = {"labels": "_labels.tif", "geojson": ".geojson", "csv": ".csv", "overlay": "_overlay.png"}


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def outcome(folder, name):
    """The files of one image, each by an independent reader: labels, features, table, COCO annotations."""
    labels = tifffile.imread(folder / f"{name}_labels.tif")
    features = json.loads((folder / f"{name}.geojson").read_text(encoding="utf-8"))["features"]
    table = pd.read_csv(folder / f"{name}.csv")
    with contextlib.redirect_stdout(io.StringIO()):
        images = COCO(folder / "coco_images.json")
        rows = json.loads((folder / "coco_results.json").read_text())
        coco = images.loadRes(str(folder / "coco_results.json")) if rows else images  # which needs a row
    (number,) = [n for n, image in coco.imgs.items() if image["file_name"].startswith(name)]
    with Image.open(folder / f"{name}_overlay.png") as overlay:
        overlay.load()
    return labels, features, table, coco, number


def check_consistency(folder, name, *, whole):
    """Object n is the same in all files; `whole`: no object hides another in the label image."""
    labels, features, table, coco, number = outcome(folder, name)
    rows = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
    assert table["id"].tolist() == [row["object_id"] for row in rows] == list(range(1, len(table) + 1))
    assert [feature["properties"]["name"] for feature in features] == [
        str(n) for n in table["id"] if table["area"][n - 1]
    ]
    assert set(np.unique(labels)) <= {0, *table["id"]}
    for feature in features:
        n = int(feature["properties"]["name"])
        row, entry = rows[n - 1], table.iloc[n - 1]
        mask = coco.annToMask(row).astype(bool)
        shape = shapely.from_geojson(json.dumps(feature["geometry"]))
        left, top, right, bottom = map(int, shape.bounds)
        y, x = np.mgrid[top:bottom, left:right] + 0.5
        inside = shapely.contains_xy(shape, x.ravel(), y.ravel()).reshape(y.shape)
        np.testing.assert_array_equal(inside, mask[top:bottom, left:right])
        assert shape.is_valid and shape.area == inside.sum() == mask.sum() == entry["area"]
        assert mask[labels == n].all() and (not whole or (labels == n).sum() == mask.sum())
        assert (
            feature["properties"]["classification"]["name"]
            == entry["class"]
            == coco.cats[row["category_id"]]["name"]
        )
        assert feature["properties"]["measurements"]["score"] == pytest.approx(row["score"], abs=1e-6)
        assert entry["score"] == pytest.approx(row["score"], abs=1e-6)
    return len(table)
