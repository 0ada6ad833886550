"""A COCO data set of several classes goes all the way: shards, a training step, results that refer to it."""

import io
import json

import numpy as np
import pytest
import tiny_config
from PIL import Image
from pycocotools.coco import COCO
from rich.console import Console

from maskrcnn_jax.commands.train import train
from maskrcnn_jax.data.prepared import PreparedRecords
from maskrcnn_jax.data.synthetic import draw_records
from maskrcnn_jax.evaluation.coco import to_coco

pytest_plugins = ("tiny",)
IDS = {3: "lymphocyte", 7: "tumour", 40: "stroma"}  # class k has the k-th smallest


@pytest.fixture
def folder(tmp_path):
    """As COCO comes: `annotations/instances_NAME.json` and `NAME/`, with a crowd in every image."""
    for name, count in (("train", 3), ("val", 2)):
        (tmp_path / name).mkdir()
        records = draw_records(count, seed=count, size=64, nuclei=(6, 9), name=name)
        truth = to_coco(records)
        for image, record in zip(truth["images"], records, strict=True):
            image["file_name"] += ".png"
            image["id"] += 100
            Image.fromarray(record.image).save(tmp_path / name / image["file_name"])
        for n, row in enumerate(truth["annotations"]):
            row["image_id"] += 100
            row["category_id"] = list(IDS)[n % 3]
        for row in {row["image_id"]: row for row in truth["annotations"]}.values():
            row["iscrowd"] = 1
        truth["categories"] = [{"id": number, "name": kind} for number, kind in reversed(IDS.items())]
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"instances_{name}.json").write_text(json.dumps(truth))
    return tmp_path


@pytest.fixture
def config(folder):
    config = tiny_config.get_config()
    config.steps, config.model.num_classes = 1, 3
    config.schedule.milestones, config.schedule.warmup = (), 0
    config.model.detection.score_threshold = 0.0  # an untrained model is sure of nothing
    fields = {
        "format": "coco",
        "path": str(folder / "annotations" / "instances_train.json"),
        "validation_path": str(folder / "annotations" / "instances_val.json"),
        "prepared": str(folder / "shards"),
    }
    with config.data.unlocked():
        config.data.update(fields)
    return config


def test_a_coco_set_trains_and_its_results_refer_to_it(compiled_once, folder, config):
    evaluation = train(config, folder / "run", console=Console(file=io.StringIO()))
    losses = json.loads((folder / "run" / "history.jsonl").read_text().splitlines()[0])
    assert np.isfinite(losses["loss"])
    shards = next((folder / "shards" / "instance_records").iterdir())
    prepared = PreparedRecords(shards, "train")
    assert prepared.categories == tuple(IDS.values())
    assert [record.image_id for record in prepared] == [101, 102, 103]
    assert all(record.crowd.sum() == 1 for record in prepared)
    names = {row["id"]: row["name"] for row in evaluation.ground_truth["categories"]}
    assert names == IDS and sum(row["iscrowd"] for row in evaluation.ground_truth["annotations"]) == 2
    # pycocotools refuses results whose images it does not know.
    truth = COCO(folder / "annotations" / "instances_val.json")
    found = truth.loadRes(str(folder / "run" / "evaluation" / "results.json"))
    assert len(found.anns) > 0
    assert {row["category_id"] for row in found.anns.values()} <= set(IDS)
