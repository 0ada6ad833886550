"""Files are whole, in place, and read back by other readers as what was written."""

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from maskrcnn_jax.files import atomic, write_json
from maskrcnn_jax.outputs.writers import write_coco_results, write_image, write_metrics


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_metrics_that_are_no_numbers_become_null(tmp_path):
    path = tmp_path / "new" / "folder" / "metrics.json"
    write_metrics(path, {"b": float("nan"), "a": np.float32(0.5), "c": {"d": [np.inf, np.int64(3)]}})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": None, "c": {"d": [None, 3]}}
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    assert files(tmp_path) == ["metrics.json"]


def test_arrays_and_tuples_become_lists(tmp_path):
    write_json(
        tmp_path / "x.json", {"array": np.arange(4).reshape(2, 2), "pair": (True, None), "name": "Zürich"}
    )
    expected = {"array": [[0, 1], [2, 3]], "pair": [True, None], "name": "Zürich"}
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == expected


@pytest.mark.parametrize("as_text", [True, False])
def test_pycocotools_loads_the_results(tmp_path, as_text):
    mask = np.zeros((6, 8), np.uint8, order="F")
    mask[2:4, 1:7] = 1
    code = rle.encode(mask)
    segmentation = {**code, "counts": code["counts"].decode()} if as_text else code
    row = {
        "image_id": 7,
        "category_id": 1,
        "bbox": [1.0, 2.0, 6.0, 2.0],
        "score": 0.5,
        "segmentation": segmentation,
    }
    write_coco_results(tmp_path / "answer.json", [row, row])
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": 7, "height": 6, "width": 8}],
            "categories": [{"id": 1}],
            "annotations": [],
        }
        truth.createIndex()
        loaded = truth.loadRes(str(tmp_path / "answer.json")).loadAnns([1, 2])
    assert [entry["segmentation"]["counts"] for entry in loaded] == [code["counts"].decode()] * 2
    assert loaded[0]["score"] == 0.5


def test_no_results_are_an_empty_list(tmp_path):
    write_coco_results(tmp_path / "answer.json", [])
    assert json.loads((tmp_path / "answer.json").read_text()) == []


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7)])
def test_image_reads_back(tmp_path, rng, shape):
    image = rng.integers(0, 256, shape, np.uint8)
    write_image(tmp_path / "x.PNG", image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x.PNG")), image)
    assert files(tmp_path) == ["x.PNG"]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, 1)
    with pytest.raises(TypeError, match="JSON"):
        write_json(path, {"value": object()})
    with pytest.raises(RuntimeError, match="power cut"), atomic(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == tmp_path, "a rename across file systems is no rename"
        raise RuntimeError("power cut")
    assert json.loads(path.read_text()) == 1
    assert files(tmp_path) == ["x.json"]


def test_files_have_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    write_json(tmp_path / "x.json", 1)
    assert (tmp_path / "x.json").stat().st_mode == (tmp_path / "plain").stat().st_mode
