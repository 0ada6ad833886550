"""From the `data` section of a config to the records of each split, or to a message where there are none."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from maskrcnn_jax.data.datasets import categories, class_names, load_split
from maskrcnn_jax.errors import DataError
from maskrcnn_jax.experiment import DataConfig

SYNTHETIC = {"format": "synthetic", "seed": 3, "size": 32, "train_images": 2, "validation_images": 1}


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path, rng):
    """A mask folder of the images d, b, a, c, and a function that makes its config."""
    for name in "dbac":
        save(tmp_path / "set" / name / "images" / f"{name}.png", rng.integers(0, 256, (8, 9, 3), np.uint8))
        save(tmp_path / "set" / name / "masks" / "0.png", 255 * np.eye(8, 9, dtype=np.uint8))

    def config(**fields):
        usual = {"format": "mask_folder", "path": str(tmp_path / "set"), "validation_images": 1}
        return DataConfig(**usual | fields)

    return config


def test_drawn_splits_have_their_sizes_and_share_no_image():
    train, validation = (load_split(DataConfig(**SYNTHETIC), split) for split in ("train", "validation"))
    assert [record.name for record in train] == ["train_0000", "train_0001"]
    assert [record.name for record in validation] == ["validation_0000"]
    assert all(record.size == (32, 32) for record in train)
    assert all((record.image != validation[0].image).any() for record in train)
    again = load_split(DataConfig(**SYNTHETIC), "train")
    other = load_split(DataConfig(**SYNTHETIC | {"seed": 4}), "train")
    for record, same, different in zip(train, again, other, strict=True):
        np.testing.assert_array_equal(record.image, same.image)
        assert (record.image != different.image).any()


@pytest.mark.parametrize("held_out", [0, 1, 3])
def test_the_last_images_by_name_validate(folder, held_out):
    config = folder(validation_images=held_out)
    train, validation = ([r.name for r in load_split(config, split)] for split in ("train", "validation"))
    assert train + validation == ["a", "b", "c", "d"] and len(validation) == held_out


@pytest.mark.parametrize("held_out", [4, 9])
def test_more_validation_images_than_there_are_leave_none_to_train(folder, held_out):
    with pytest.raises(ValueError, match=rf"validation_images is {held_out}, but .* has 4 images"):
        load_split(folder(validation_images=held_out), "train")


def test_every_fault_of_a_set_comes_in_one_error(folder, tmp_path):
    (tmp_path / "set" / "a" / "images" / "a.png").write_bytes(b"")
    save(tmp_path / "set" / "b" / "masks" / "0.png", np.zeros((8, 9), np.uint8))
    with pytest.raises(DataError) as error:
        load_split(folder(), "train")
    assert len(error.value.faults) == 2


def test_progress_counts_the_images(folder):
    calls = []
    load_split(folder(), "train", progress=lambda done, count: calls.append((done, count)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("fields", "split", "words"),
    [
        ({}, "validate", "unknown split 'validate': choose train, validation or test"),
        ({"path": "gone"}, "train", "the data folder gone does not exist: set data.path"),
        ({}, "test", "this config has no test split: set data.test_images and data.test_ids"),
    ],
)
def test_what_a_config_does_not_have_is_said(folder, fields, split, words):
    with pytest.raises(ValueError, match=words):
        load_split(folder(**fields), split)


def test_class_names_are_those_of_the_data(folder, tmp_path):
    assert class_names(DataConfig(**SYNTHETIC), 1) == ("nucleus",)
    assert class_names(folder(), 1) == ("nucleus",)
    image = {"id": 1, "file_name": "a.png", "height": 8, "width": 9}
    kinds = [{"id": 7, "name": "round"}, {"id": 3, "name": "long"}]
    coco = {"images": [image], "categories": kinds, "annotations": []}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    save(tmp_path / "a.png", np.zeros((8, 9), np.uint8))
    config = DataConfig(format="coco", path=str(tmp_path / "coco.json"))
    assert class_names(config, 2) == ("long", "round")
    assert categories(config, "train", 2) == {3: "long", 7: "round"}
    assert (
        categories(folder(), "validation", 1)
        == categories(DataConfig(**SYNTHETIC), "train", 1)
        == {1: "nucleus"}
    )
    with pytest.raises(ValueError, match=r"num_classes is 80, but the data has 2 \(long, round\): set"):
        class_names(config, 80)


def test_the_validation_file_must_have_the_same_classes(tmp_path):
    for name, kinds in (("a", "xy"), ("b", "yx"), ("c", "xy")):
        listed = [{"id": 2 * n, "name": kind} for n, kind in enumerate(kinds)]
        image = {"id": 1, "file_name": "a.png", "height": 8, "width": 9}
        coco = {"images": [image], "categories": listed, "annotations": []}
        (tmp_path / f"{name}.json").write_text(json.dumps(coco))
    save(tmp_path / "a.png", np.zeros((8, 9), np.uint8))
    config = DataConfig(format="coco", path=f"{tmp_path}/a.json", validation_path=f"{tmp_path}/c.json")
    assert class_names(config, 2) == ("x", "y")
    assert categories(config, "validation", 2) == {0: "x", 2: "y"}
    config = replace(config, path="")
    assert categories(config, "validation", 2) == {0: "x", 2: "y"}
    assert len(load_split(config, "validation")) == 1
    prepared = replace(config, prepared=str(tmp_path / "shards"))
    assert load_split(prepared, "validation").categories == ("x", "y")
    with pytest.raises(ValueError, match=r"the data folder  does not exist: set data\.path"):
        load_split(config, "train")
    config = replace(config, path=f"{tmp_path}/a.json", validation_path=f"{tmp_path}/b.json")
    with pytest.raises(ValueError, match=r"validation_path has the categories y, x, data.path x, y: list"):
        class_names(config, 2)


# The test split


@pytest.fixture
def test_split(tmp_path, rng):
    """Writes images and the file of their ids, and gives the config."""

    def write(entries):
        for name in ("x.png", "y.png"):
            save(tmp_path / "test" / name, rng.integers(0, 256, (8, 9, 3), np.uint8))
        ids = tmp_path / "ids.json"
        ids.write_text(entries if isinstance(entries, str) else json.dumps(entries))
        return DataConfig(**SYNTHETIC | {"test_images": str(tmp_path / "test"), "test_ids": str(ids)})

    return write


def test_test_images_come_in_the_order_of_their_ids_without_instances(test_split):
    config = test_split([{"id": 9, "file_name": "y.png", "height": 8}, {"id": 4, "file_name": "x.png"}])
    calls = []
    records = load_split(config, "test", progress=lambda *call: calls.append(call))
    assert [(r.image_id, r.name, r.size, len(r.classes)) for r in records] == [
        (9, "y", (8, 9), 0),
        (4, "x", (8, 9), 0),
    ]
    assert calls == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    "entries",
    [
        '{"id": 1}',
        '[{"id": 1e999, "file_name": "x"}]',
        [{"file_name": "x.png"}],
        [{"id": "a", "file_name": "x"}],
    ],
)
def test_a_damaged_list_of_ids_is_named(test_split, entries):
    with pytest.raises(ValueError, match=r"data\.test_ids: .*ids\.json is not a JSON list"):
        load_split(test_split(entries), "test")


@pytest.mark.parametrize(("text", "what"), [("{", "no JSON"), ("[" * 9999, "nested more than")])
def test_a_list_of_ids_that_is_no_json_is_named(test_split, text, what):
    with pytest.raises(ValueError, match=rf"data\.test_ids: .*ids\.json is {what}"):
        load_split(test_split(text), "test")


def test_every_missing_test_image_is_listed_and_ids_are_told_apart(test_split):
    config = test_split([{"id": n, "file_name": name} for n, name in enumerate(("x.png", "u.png", "v.png"))])
    with pytest.raises(DataError) as error:
        load_split(config, "test")
    assert [fault.where.rpartition("/")[2] for fault in error.value.faults] == ["u.png", "v.png"]
    with pytest.raises(ValueError, match=r"gives \[5\] to several images"):
        load_split(test_split([{"id": 5, "file_name": "x.png"}, {"id": 5, "file_name": "y.png"}]), "test")


@pytest.mark.parametrize("field", ["test_images", "test_ids"])
def test_a_missing_place_of_the_test_images_is_named(test_split, field):
    config = replace(test_split([]), **{field: "gone"})
    with pytest.raises(ValueError, match=rf"data\.{field}: gone does not exist"):
        load_split(config, "test")
