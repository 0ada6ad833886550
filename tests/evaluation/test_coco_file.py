"""An annotation file that is read and scored gives pycocotools' own numbers for it, to the last digit."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskrcnn_jax.data.entries import read_records
from maskrcnn_jax.data.readers.coco_json import list_entries
from maskrcnn_jax.evaluation.coco import average_precision, to_coco

SIZE = (150, 170)


def polygon(rng, centre, radius):
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    points = centre + radius * rng.uniform(0.7, 1, (9, 1)) * np.stack(
        [np.cos(angles), np.sin(angles)], axis=1
    )
    return np.clip(points, 0, SIZE[::-1]).round(2)


def annotation(rng, kind, radius):
    """As its author writes it: box and area are those of the outline, not of the pixels it is drawn with."""
    outline = polygon(rng, rng.uniform(0, SIZE[::-1]), radius)
    low, high = outline.min(axis=0), outline.max(axis=0)
    x, y = outline.T
    row = {
        "category_id": int(rng.choice([3, 7])),
        "segmentation": [outline.ravel().tolist()],
        "bbox": [*low.tolist(), *(high - low).round(3).tolist()],
        "area": float(abs((x * np.roll(y, 1) - y * np.roll(x, 1)).sum()) / 2),
        "iscrowd": 0,
    }
    if kind != "polygons":
        code = rle.merge(rle.frPyObjects(row["segmentation"], *SIZE))
        row["segmentation"] = {"size": list(SIZE), "counts": code["counts"].decode()}
    if kind == "crowds" and rng.random() < 0.4:
        row["iscrowd"] = 1
    return row


def detections(rng, row):
    """Around the annotation, some of them exactly on its box."""
    for jitter in rng.choice([0, 0, 0.5, 2, 6], 2):
        box = (np.array(row["bbox"]) + rng.normal(0, 1, 4) * jitter).clip(0.5).tolist()
        segmentation = row["segmentation"]
        if isinstance(segmentation, list):
            moved = (np.array(segmentation[0]) + rng.normal(0, 1) * jitter).clip(0, min(SIZE))
            code = rle.merge(rle.frPyObjects([moved.tolist()], *SIZE))
            segmentation = {"size": list(SIZE), "counts": code["counts"].decode()}
        kept = {field: row[field] for field in ("image_id", "category_id")}
        yield kept | {"bbox": box, "segmentation": segmentation, "score": float(rng.integers(1, 30) / 30)}


def official(path, results, kind):
    """The six numbers of pycocotools, as everybody calls it."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        rows = [{k: v for k, v in row.items() if k not in ("bbox", "segmentation")} for row in results]
        field = {"bbox": "bbox", "segm": "segmentation"}[kind]
        rows = [row | {field: whole[field]} for row, whole in zip(rows, results, strict=True)]
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(rows)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:6]


@pytest.mark.parametrize("kind", ["polygons", "run lengths", "crowds"])
def test_a_file_gives_the_official_numbers(tmp_path, rng, kind):
    for trial in range(4):
        rows = []
        for image in (4, 9, 2):
            for _ in range(rng.integers(0, 14)):
                rows.append(annotation(rng, kind, rng.choice([0.4, 3, 7, 30, 70])) | {"image_id": image})
        rows = [row | {"id": n} for n, row in enumerate(rows, start=1)]
        images = [{"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in (4, 9, 2)]
        for image in images:
            Image.new("L", SIZE[::-1], 200).save(tmp_path / image["file_name"])
        names = [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}]
        path = tmp_path / f"{trial}.json"
        path.write_text(json.dumps({"images": images, "categories": names, "annotations": rows}))
        results = [found for row in rows for found in detections(rng, row)]
        listing = list_entries(path)
        truth = to_coco(read_records(listing.entries), {3: "a", 7: "b"})
        for what in ("bbox", "segm"):
            metrics = average_precision(truth, results, kind=what)
            found = [metrics[f"{what}/{name}@100"] for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")]
            np.testing.assert_array_equal(np.nan_to_num(found, nan=-1), official(path, results, what))


def test_the_annotated_boxes_are_the_perfect_answer(tmp_path, rng):
    """On outlines of 6 to 14 px, boxes of the drawn pixels would give 0.8."""
    rows = [
        annotation(rng, "polygons", rng.uniform(3, 7)) | {"id": n, "image_id": 1, "category_id": 3}
        for n in range(1, 60)
    ]
    image = {"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}
    data = {"images": [image], "categories": [{"id": 3, "name": "a"}], "annotations": rows}
    Image.new("L", SIZE[::-1], 200).save(tmp_path / "a.png")
    (tmp_path / "coco.json").write_text(json.dumps(data))
    truth = to_coco(read_records(list_entries(tmp_path / "coco.json").entries), {3: "a"})
    results = [{"image_id": 1, "category_id": 3, "bbox": row["bbox"], "score": 0.5} for row in rows]
    assert average_precision(truth, results, kind="bbox")["bbox/AP@100"] == pytest.approx(1)
