"""Average precision against hand-worked cases, plain COCOeval, and a slow independent definition."""

import contextlib
import copy
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskrcnn_jax.evaluation.coco import average_precision, from_results, to_coco, to_results
from maskrcnn_jax.masks.crops import crops_of
from maskrcnn_jax.masks.result import Result

KINDS = ("bbox", "segm")


def code_of(mask):
    code = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {**code, "counts": code["counts"].decode()}


def annotation(box, size=(64, 64), **fields):
    """A rectangle as ground truth or result row; box is XYWH in whole pixels."""
    x, y, w, h = box
    mask = np.zeros(size, bool)
    mask[y : y + h, x : x + w] = True
    shape = {"bbox": list(map(float, box)), "segmentation": code_of(mask), "area": float(mask.sum())}
    return {"image_id": 1, "category_id": 1, **shape, "iscrowd": 0} | fields


def dataset(annotations, images=1, categories=1, size=(64, 64)):
    return {
        "images": [{"id": i + 1, "height": size[0], "width": size[1]} for i in range(images)],
        "categories": [{"id": k + 1, "name": str(k)} for k in range(categories)],
        "annotations": [row | {"id": n + 1} for n, row in enumerate(annotations)],
    }


def as_results(annotations, scores):
    kept = ("image_id", "category_id", "bbox", "segmentation")
    return [
        {name: row[name] for name in kept} | {"score": s} for row, s in zip(annotations, scores, strict=True)
    ]


def random_case(rng, *, images=3, categories=2, size=(160, 160), crowds=False):
    """Boxes from 3 to 110 pixels, detections near them and elsewhere, ties among the scores."""
    truth, found = [], []
    for image in range(images):
        for _ in range(rng.integers(0, 12)):
            w, h = rng.integers(3, rng.choice([12, 50, 110]), 2)
            x, y = rng.integers(0, 160 - w), rng.integers(0, 160 - h)
            where = {"image_id": image + 1, "category_id": int(rng.integers(categories)) + 1}
            crowd = {"iscrowd": int(crowds and rng.random() < 0.2)}
            truth.append(annotation((x, y, w, h), size, **where, **crowd))
            for _ in range(rng.integers(0, 4)):
                dx, dy = rng.integers(-3, 4, 2)
                box = (max(x + dx, 0), max(y + dy, 0), w, h)
                found.append(annotation(box, size, **where))
    return dataset(truth, images, categories, size), as_results(found, rng.integers(1, 9, len(found)) / 10)


def plain_cocoeval(ground_truth, results, kind):
    """The twelve numbers of pycocotools as everybody calls it."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(ground_truth)
        truth.createIndex()
        rows = [{k: v for k, v in row.items() if kind == "bbox" or k != "bbox"} for row in results]
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(rows)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def slow_ap(truth_boxes, found, threshold, limit):
    """AP of one class from its definition: greedy matching by falling score, 101 recall points."""

    def iou(a, b):
        def pixels(box):
            return {(i, j) for i in range(box[1], box[1] + box[3]) for j in range(box[0], box[0] + box[2])}

        a, b = pixels(a), pixels(b)
        return len(a & b) / len(a | b)

    hits = []
    for image in truth_boxes:
        free = list(truth_boxes[image])
        for score, box in sorted(found[image], key=lambda row: -row[0])[:limit]:
            overlaps = [iou(box, other) for other in free]
            hit = bool(overlaps) and max(overlaps) >= threshold
            if hit:
                free.pop(int(np.argmax(overlaps)))
            hits.append((score, hit))
    hits.sort(key=lambda row: -row[0])
    total = sum(map(len, truth_boxes.values()))
    points = [(sum(h for _, h in hits[:n]), n) for n in range(1, len(hits) + 1)]
    at = [max((tp / n for tp, n in points if tp / total >= r), default=0) for r in np.linspace(0, 1, 101)]
    return float(np.mean(at))


@pytest.mark.parametrize("kind", KINDS)
def test_perfect_answer_is_one_and_its_scores_do_not_matter(kind):
    truth = [annotation((1, 1, 8, 9)), annotation((20, 5, 40, 50)), annotation((20, 5, 8, 8))]
    metrics = average_precision(dataset(truth), as_results(truth, [0.1, 0.9, 0.5]), kind=kind)
    assert metrics[f"{kind}/AP@100"] == metrics[f"{kind}/APs@2000"] == pytest.approx(1)
    assert np.isnan(metrics[f"{kind}/APl@100"]), "there is no large object"


@pytest.mark.parametrize("kind", KINDS)
def test_hand_worked_precision(kind):
    """Hit, miss, hit of two objects: precision 1 up to recall 1/2, then 2/3: (51 + 50 * 2/3) / 101.

    The second hit is one row too low, IoU 30 / 50 = 0.6, so it counts at .50, .55 and .60 only.
    """
    truth = [annotation((0, 0, 8, 8)), annotation((20, 20, 10, 4))]
    found = [annotation((0, 0, 8, 8)), annotation((50, 50, 9, 9)), annotation((20, 21, 10, 4))]
    metrics = average_precision(dataset(truth), as_results(found, [0.9, 0.8, 0.7]), kind=kind)
    low, high = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert metrics[f"{kind}/AP50@100"] == pytest.approx(low)
    assert metrics[f"{kind}/AP75@100"] == pytest.approx(high)
    assert metrics[f"{kind}/AP@100"] == pytest.approx((3 * low + 7 * high) / 10)


def test_the_contest_caps_a_perfect_answer():
    """2360 nuclei in 6 images: 600 detections reach recall 0.2542, which is 26 of the 101 points."""
    counts = (393, 393, 393, 393, 394, 394)
    cells = [(4 * (n % 20), 4 * (n // 20), 3, 3) for n in range(394)]
    truth = [
        annotation(box, (80, 80), image_id=image + 1) for image, n in enumerate(counts) for box in cells[:n]
    ]
    assert len(truth) == 2360
    results = as_results(truth, np.linspace(1, 0.1, len(truth)).tolist())
    metrics = average_precision(dataset(truth, 6, size=(80, 80)), results, kind="segm")
    assert metrics["segm/AP50@100"] == metrics["segm/AP@100"] == pytest.approx(26 / 101)
    assert round(metrics["segm/AP@100"], 4) == 0.2574
    assert metrics["segm/AP@2000"] == pytest.approx(1)


@pytest.mark.parametrize("limits", [(1,), (2000, 7), (3, 3, 100)])
def test_limits_without_100_and_in_any_order(limits):
    truth = [annotation((4 * n, 0, 3, 3)) for n in range(10)]
    metrics = average_precision(dataset(truth), as_results(truth, [0.5] * 10), kind="bbox", max_dets=limits)
    for limit in limits:
        reached = sum(r <= min(limit, 10) / 10 for r in np.linspace(0, 1, 101))
        assert metrics[f"bbox/AP@{limit}"] == pytest.approx(reached / 101)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("crowds", [False, True])
def test_equals_plain_cocoeval(kind, crowds, rng):
    for _ in range(8):
        ground_truth, results = random_case(rng, crowds=crowds)
        metrics = average_precision(ground_truth, results, kind=kind)
        names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
        found = [metrics[f"{kind}/{name}@100"] for name in names]
        expected = plain_cocoeval(ground_truth, results, kind)[:6]
        np.testing.assert_array_equal(np.nan_to_num(found, nan=-1), expected)


def test_equals_the_definition(rng):
    for limit in (2, 100):
        truth, found, boxes, answers = [], [], {}, {}
        for image in (1, 2, 3):
            boxes[image] = [tuple(rng.integers(2, 9, 4).tolist()) for _ in range(5)]
            moved = [tuple((np.array(b) + rng.integers(0, 2, 4)).tolist()) for b in boxes[image]]
            answers[image] = list(zip(rng.permutation(5) + image / 10, moved, strict=True))
            truth += [annotation(b, (24, 24), image_id=image) for b in boxes[image]]
            found += as_results(
                [annotation(b, (24, 24), image_id=image) for _, b in answers[image]], range(5)
            )
            for row, (score, _) in zip(found[-5:], answers[image], strict=True):
                row["score"] = float(score)
        metrics = average_precision(dataset(truth, 3, size=(24, 24)), found, kind="segm", max_dets=[limit])
        for threshold in (50, 75):
            expected = slow_ap(boxes, answers, threshold / 100, limit)
            assert metrics[f"segm/AP{threshold}@{limit}"] == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_no_results_is_zero_and_no_ground_truth_nan(kind):
    truth = [annotation((1, 1, 8, 8))]
    assert average_precision(dataset(truth), [], kind=kind)[f"{kind}/AP50@100"] == 0
    found = as_results(truth, [0.5])
    assert np.isnan(average_precision(dataset([]), found, kind=kind)[f"{kind}/AP50@100"])
    assert np.isnan(average_precision(dataset([]), [], kind=kind)[f"{kind}/AP@2000"])


def test_annotation_with_id_zero_can_be_matched_and_nothing_is_changed():
    truth = [annotation((1, 1, 8, 8))]
    ground_truth = dataset(truth)
    ground_truth["annotations"][0]["id"] = 0
    results = as_results(truth, [0.5])
    before = json.dumps([ground_truth, results])
    assert average_precision(ground_truth, results, kind="segm")["segm/AP@100"] == pytest.approx(1)
    assert json.dumps([ground_truth, results]) == before


def test_all_faults_of_the_results_are_in_one_error():
    found = as_results([annotation((1, 1, 8, 8))] * 3, [0.5] * 3)
    found[0]["image_id"], found[1]["category_id"] = 77, 5
    del found[2]["score"]
    with pytest.raises(ValueError, match="cannot be evaluated") as error:
        average_precision(dataset([]), found, kind="bbox", max_dets=(0,))
    for part in ("image_id not in the ground truth: [77]", "[5]", "row 2", "'score'", "max_dets (0,)"):
        assert part in str(error.value)


def test_it_prints_nothing(capfd):
    truth = [annotation((1, 1, 8, 8))]
    average_precision(dataset(truth), as_results(truth, [0.5]), kind="segm")
    assert capfd.readouterr() == ("", "")


def record(layers, classes, image_id=1, name="slide", crowd=None):
    return SimpleNamespace(
        image_id=image_id,
        name=name,
        image=np.zeros((*layers.shape[1:], 3), np.uint8),
        layers=layers,
        classes=np.array(classes),
        crowd=np.zeros(len(classes), bool) if crowd is None else np.array(crowd),
        annotated=np.full((len(classes), 5), np.nan),
    )


def test_records_become_ground_truth():
    layers = np.zeros((2, 6, 9), np.uint16)
    layers[0, 1:3, 2:7] = 1
    layers[1, 2:6, 3] = 2
    both = record(layers, [0, 1], crowd=[False, True])
    truth = to_coco([both, record(layers[:1] * 0, [], 9, "blank")], ["a", "b"])
    assert truth["images"] == [
        {"id": 1, "file_name": "slide", "height": 6, "width": 9},
        {"id": 9, "file_name": "blank", "height": 6, "width": 9},
    ]
    assert truth["categories"] == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    first, second = truth["annotations"]
    assert (first["bbox"], first["area"], first["category_id"]) == ([2, 1, 5, 2], 10, 1)
    assert (second["bbox"], second["area"], second["category_id"], second["id"]) == ([3, 2, 1, 4], 4, 2, 2)
    assert (first["iscrowd"], second["iscrowd"]) == (0, 1)
    for row, mask in ((first, layers[0] == 1), (second, layers[1] == 2)):
        assert row["segmentation"] == code_of(mask)
    assert json.loads(json.dumps(truth)) == truth


def test_category_ids_may_have_gaps():
    """The ids of the data set's own file: its results are uploaded, or scored, elsewhere."""
    layers = np.array([[[1, 0, 2]]], np.uint16)
    truth = to_coco([record(layers, [1, 0])], {0: "a", 7: "b"})
    assert truth["categories"] == [{"id": 0, "name": "a"}, {"id": 7, "name": "b"}]
    assert [row["category_id"] for row in truth["annotations"]] == [7, 0]
    codes = [row["segmentation"] for row in truth["annotations"]]
    boxes, scores = np.array([[0, 0, 1, 1], [2, 0, 3, 1]], np.float32), np.array([0.5, 0.25], np.float32)
    result = Result(boxes, scores, np.array([1, 0], np.int32), crops_of(codes), (1, 3))
    rows = to_results([(1, result)], {0: "a", 7: "b"})
    assert [row["category_id"] for row in rows] == [7, 0]
    assert average_precision(truth, rows, kind="segm")["segm/AP@100"] == pytest.approx(1)
    again = from_results(reversed(rows), 1, (1, 3), truth["categories"])
    for field in ("boxes", "scores", "classes", "masks", "size"):
        np.testing.assert_array_equal(getattr(again, field), getattr(result, field))
    assert not len(from_results(rows, 2, (1, 3), truth["categories"]))


def test_faulty_records_are_named():
    layers = np.array([[[1, 2, 0]]], np.uint16)
    with pytest.raises(ValueError, match="no ground truth") as error:
        to_coco([record(layers, [0, 0]), record(layers, [0, 3], name="other")])
    for part in ("other: image id 1 occurs twice", "other: instances [1] have classes outside 0..0"):
        assert part in str(error.value)


def test_a_dense_record_is_encoded_whole():
    labels = np.zeros((1000, 1000), np.uint16)
    for n in range(1800):
        i, j = 23 * (n // 43), 23 * (n % 43)
        labels[i : i + 18, j : j + 18] = n + 1
    truth = to_coco([record(labels[None], [0] * 1800)])
    assert [row["area"] for row in truth["annotations"]] == [324] * 1800


def test_results_become_rows():
    mask = np.zeros((5, 7), bool)
    mask[1:3, 2:6] = True
    code = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    result = Result(
        boxes=np.array([[2, 1, 6, 3]], np.float32),
        scores=np.array([0.5], np.float32),
        classes=np.array([2], np.int32),
        crops=crops_of([code]),
        size=(5, 7),
    )
    empty = Result(
        np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), crops_of([]), (5, 7)
    )
    rows = to_results([(4, result), (5, empty)])
    segmentation = {"size": [5, 7], "counts": code["counts"].decode()}
    expected = {
        "image_id": 4,
        "category_id": 3,
        "bbox": [2, 1, 4, 2],
        "score": 0.5,
        "segmentation": segmentation,
    }
    assert json.loads(json.dumps(rows)) == [expected]
