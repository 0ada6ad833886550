"""What an evaluation leaves in its folder, around a predictor that knows the answers."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from maskrcnn_jax.data.synthetic import draw_records
from maskrcnn_jax.masks.crops import crops_of
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.outputs.report import write_evaluation, write_predictions


@pytest.fixture(scope="module")
def records():
    """Images 1 to 3 with few small nuclei."""
    return draw_records(3, seed=1, size=48, nuclei=(2, 4), diameters=(8, 12), name="image")


@pytest.fixture
def oracle(records):
    """Answers with the ground truth; the second half of an image's instances scores below a half."""

    def predict(image):
        record = next(r for r in records if r.image is image)
        count = len(record.classes)
        masks = [coco.encode(np.asfortranarray(record.mask(n), np.uint8)) for n in range(count)]
        scores = np.where(np.arange(count) < count / 2, 0.9, 0.3).astype(np.float32)
        return Result(record.boxes, scores, record.classes, crops_of(masks), record.size)

    return predict


def test_an_evaluation_is_written_as_metrics_results_and_pictures(records, oracle, tmp_path):
    calls = []
    evaluation = write_evaluation(
        oracle,
        records,
        tmp_path / "new" / "folder",
        max_dets=(3, 50),
        overlays=2,
        progress=lambda *call: calls.append(call),
    )
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [
        "curves.png",
        "images.csv",
        "metrics.json",
        "overlay_image_0000.png",
        "overlay_image_0001.png",
        "results.json",
    ]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["segm/AP@50"] == evaluation.metrics["segm/AP@50"] == 1.0
    assert {name for name in metrics if name.startswith("bbox/AP50@")} == {"bbox/AP50@3", "bbox/AP50@50"}
    assert json.loads((folder / "results.json").read_text()) == evaluation.results
    assert len(evaluation.results) == sum(len(record.classes) for record in records)
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_images_are_a_table_with_a_line_each(records, oracle, tmp_path):
    evaluation = write_evaluation(oracle, records, tmp_path, min_score=0.1, overlays=0)
    with (tmp_path / "images.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["image"] for line in lines] == [record.name for record in records]
    assert [int(line["found"]) for line in lines] == [len(record.classes) for record in records]
    assert [float(line["PQ"]) for line in lines] == [1, 1, 1]
    assert all(float(line["seconds"]) >= 0 for line in lines)
    assert evaluation.min_score == 0.1


def test_what_is_undefined_is_an_empty_field(tmp_path):
    (blank,) = draw_records(1, seed=0, size=48, nuclei=(0, 0))

    def nothing(image):
        empty = np.zeros(0, np.float32)
        return Result(empty.reshape(0, 4), empty, empty.astype(np.int32), crops_of([]), image.shape[:2])

    write_evaluation(nothing, [blank], tmp_path)
    with (tmp_path / "images.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["objects"], line["found"], line["PQ"], line["AJI"]) == ("0", "0", "", "")


def test_categories_are_passed_on(records, oracle, tmp_path):
    evaluation = write_evaluation(oracle, records, tmp_path, categories=("a", "b"), overlays=0)
    assert [kind["name"] for kind in evaluation.ground_truth["categories"]] == ["a", "b"]
    assert not list(tmp_path.glob("overlay*"))


def test_ground_truth_lies_beside_the_prediction(records, oracle, tmp_path):
    write_evaluation(oracle, records, tmp_path, overlays=1)
    (path,) = tmp_path.glob("overlay*")
    with Image.open(path) as picture:
        assert picture.width >= 2 * 4 * 48  # two pictures, enlarged four times


def test_predictions_carry_the_ids_of_their_images(records, oracle, tmp_path):
    calls = []
    write_predictions(oracle, records[1:], tmp_path, overlays=1, progress=lambda *call: calls.append(call))
    rows = json.loads((tmp_path / "answer.json").read_text())
    assert [row["image_id"] for row in rows] == [r.image_id for r in records[1:] for _ in r.classes]
    assert rows[0].keys() == {"image_id", "category_id", "bbox", "score", "segmentation"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answer.json", "overlay_image_0001.png"]
    assert calls == [(1, 2), (2, 2)]


def test_pictures_of_predictions_show_what_is_likelier_than_not(records, oracle, tmp_path):
    """With all scores below a half, the picture is the enlarged image."""

    def unsure(image):
        result = oracle(image)
        return Result(result.boxes, result.scores * 0.4, result.classes, result.crops, result.size)

    write_predictions(oracle, records[:1], tmp_path / "sure")
    write_predictions(unsure, records[:1], tmp_path / "unsure")
    image = records[0].image
    sure, plain = (
        np.asarray(Image.open(tmp_path / n / "overlay_image_0000.png")) for n in ("sure", "unsure")
    )
    scale = plain.shape[0] // image.shape[0]
    expected = Image.fromarray(image).resize((48 * scale, 48 * scale), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(plain, expected)
    assert (sure != plain).any()


def test_an_image_without_detections_has_no_rows(records, tmp_path):
    def nothing(image):
        empty = np.zeros(0, np.float32)
        return Result(empty.reshape(0, 4), empty, empty.astype(np.int32), crops_of([]), image.shape[:2])

    write_predictions(nothing, records[:1], tmp_path)
    assert json.loads((tmp_path / "answer.json").read_text()) == []
