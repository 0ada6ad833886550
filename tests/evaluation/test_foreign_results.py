"""Results that other tools wrote: read as they write them, and every fault told at once."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from pycocotools import mask as coco

from maskrcnn_jax.errors import DataError
from maskrcnn_jax.evaluation.foreign_results import read_results

GROUND_TRUTH = {
    "images": [
        {"id": 7, "file_name": "a", "height": 5, "width": 8},
        {"id": 9, "file_name": "b", "height": 5, "width": 8},
    ],
    "categories": [{"id": 1, "name": "nucleus"}, {"id": 2, "name": "mitosis"}],
    "annotations": [],
}
LABELS = np.array([[0, 3, 3, 0, 0, 0, 0, 0], [0, 3, 3, 0, 0, 0, 90, 0], *[[0] * 8] * 3])


def code_of(mask):
    return coco.encode(np.asfortranarray(mask, np.uint8))


def codes_of(rows):
    return [row["segmentation"] for row in rows]


def row(**fields):
    segmentation = {"size": [5, 8], "counts": code_of(LABELS == 3)["counts"].decode()}
    return {"image_id": 7, "category_id": 2, "score": 0.25, "segmentation": segmentation} | fields


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "results.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_results(path, GROUND_TRUTH)

    return write


def faults_of(call, *arguments):
    with pytest.raises(DataError) as error:
        call(*arguments)
    return str(error.value)


def test_every_form_of_a_row(written):
    """A mask as text, as a list of counts and as a polygon; the box is given, or measured."""
    forms = [
        row(),
        row(segmentation={"size": [5, 8], "counts": [5, 2, 3, 2, 28]}, bbox=[0, 0, 9, 9], score=1),
        row(segmentation=[[1, 0, 3, 0, 3, 2, 1, 2]], image_id=9),
    ]
    found = written(forms)
    assert codes_of(found.rows) == [code_of(LABELS == 3)] * 3
    assert [r["bbox"] for r in found.rows] == [[1, 0, 2, 2], [0, 0, 9, 9], [1, 0, 2, 2]]
    assert [(r["image_id"], r["category_id"], r["score"]) for r in found.rows] == [
        (7, 2, 0.25),
        (7, 2, 1),
        (9, 2, 0.25),
    ]
    assert found.have_scores and not found.notes


def test_what_is_odd_but_can_be_scored_is_noted(written):
    found = written([row(), row()])
    assert found.notes == [
        "nothing was found in 1 of 2 images: b",
        "all scores are equal, so average precision depends on the order of the rows",
    ]
    assert written([]).notes == ["nothing was found in 2 of 2 images: a, b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "is no JSON"),
        ("[" * 9999, "is nested more than"),
        ({"images": []}, "holds a dict; a data set with its ground truth, perhaps"),
        ([row(), 3], "row 1: is no object"),
        ([row(), {k: v for k, v in row().items() if k != "score"}], "row 1: has no 'score'; "),
        ([{}, {}], "row 0: has no 'segmentation', as 1 more"),
        ([row(score=None)], "row 0: has the score None; write a finite number"),
        ("[" + json.dumps(row(score=float("nan"))) + "]", "has the score nan"),
        (
            [row(image_id=1), row(image_id="7")],
            "2 rows have an unknown image_id: 1, 7; the ids of this split are: ",
        ),
        (
            [row(category_id=3)],
            "unknown category_id: 3; the ids of this split are: 1 is nucleus, 2 is mitosis",
        ),
        (
            [row(segmentation={"size": [8, 5], "counts": [40]})] * 3,
            "row 0 (image a): has run lengths of size",
        ),
        (
            [row(), row(segmentation={"size": [5, 8], "counts": "??"})],
            "row 1 (image a): has run lengths of 30 pixels, its image 40",
        ),
        ([row(segmentation=None)], "row 0 (image a): has no segmentation"),
        ([row(bbox=[1, 2])], "row 0 (image a): has a bbox"),
    ],
)
def test_faults_of_a_json(written, content, message):
    assert message in faults_of(written, content)


def test_all_faults_of_the_ids_come_at_once(written):
    message = faults_of(written, [row(image_id=1, category_id=5)])
    assert "image_id: 1; the ids of this split are: 7 is a, 9 is b" in message and "category_id: 5" in message


def test_a_path_that_is_nothing(tmp_path):
    assert "is neither file nor folder" in faults_of(read_results, tmp_path / "gone", GROUND_TRUTH)


def save(path, labels):
    if path.suffix == ".npy":
        np.save(path, labels)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, labels)
    else:
        Image.fromarray(labels).save(path)


TOOLS = {
    "{}.tif": ("uint8", "uint16", "int32"),
    "{}_masks.tif": ("uint16", "uint32"),
    "{}_cp_masks.png": ("uint8", "uint16"),
    "{}_img_cp_masks.tif": ("uint16",),
    "{}_label.npy": ("uint16", "int64"),
}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in TOOLS for kind in TOOLS[name]])
def test_label_images_as_the_tools_write_them(tmp_path, name, kind):
    for stem, labels in (("a", LABELS), ("b", LABELS * 0)):
        save(tmp_path / name.format(stem), labels.astype(kind))
    found = read_results(tmp_path, GROUND_TRUTH)
    assert not found.have_scores and "label images have no scores" in found.notes[0]
    assert [(r["image_id"], r["category_id"], r["score"]) for r in found.rows] == [(7, 1, 1)] * 2
    assert [r["bbox"] for r in found.rows] == [[1, 0, 2, 2], [6, 1, 1, 1]]
    assert codes_of(found.rows) == [code_of(LABELS == 3), code_of(LABELS == 90)]


def test_labels_among_the_images_they_belong_to(tmp_path):
    """Cellpose writes beside the images, which are no label images, and files of its own."""
    for stem in "ab":
        save(tmp_path / f"{stem}.png", np.zeros((5, 8, 3), np.uint8))
        save(tmp_path / f"{stem}_cp_masks.png", LABELS.astype(np.uint16))
        (tmp_path / f"{stem}_seg.npy").write_bytes(b"a pickle")
    assert len(read_results(tmp_path, GROUND_TRUTH).rows) == 4


def test_labels_without_background(tmp_path):
    for stem in "ab":
        save(tmp_path / f"{stem}.tif", np.full((5, 8), 4, np.uint16))
    rows = read_results(tmp_path, GROUND_TRUTH).rows
    assert [r["bbox"] for r in rows] == [[0, 0, 8, 5]] * 2


def test_faults_of_label_images(tmp_path):
    save(tmp_path / "a.tif", LABELS.astype(np.uint16).T)
    message = faults_of(read_results, tmp_path, GROUND_TRUTH)
    assert "a.tif: has 8 x 5 pixels (height x width), its image 5 x 8" in message
    assert "holds no label image of b; add b.tif, all zeros if nothing was found" in message
    save(tmp_path / "b.tif", np.zeros((5, 8), np.uint16))
    save(tmp_path / "b.npy", np.zeros((5, 8), np.uint16))
    (tmp_path / "a.tif").write_bytes(b"nothing")
    message = faults_of(read_results, tmp_path, GROUND_TRUTH)
    assert "a.tif: cannot be read" in message
    assert "holds b.npy and b.tif for the image b; leave one of them" in message


def test_no_images(tmp_path):
    with pytest.raises(ValueError, match="there are no images to evaluate"):
        read_results(tmp_path, GROUND_TRUTH | {"images": []})
