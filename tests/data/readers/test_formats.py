"""The format is chosen by name, and a wrong guess says what the data looks like."""

import json
import typing
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from maskrcnn_jax.data.datasets import load_split
from maskrcnn_jax.data.readers.formats import FORMATS, list_entries
from maskrcnn_jax.errors import DataError
from maskrcnn_jax.experiment import DataConfig
from maskrcnn_jax.images.choice import Choice
from maskrcnn_jax.images.sources import open_source
from maskrcnn_jax.plain_values import FieldError


@pytest.fixture
def sets(tmp_path):
    """One data set of each format."""
    pixels = np.eye(4, 5, dtype=np.uint8)
    for name in (
        "folders/a/images/a.png",
        "folders/a/masks/0.png",
        "pairs/images/a.png",
        "pairs/masks/a.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / name)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = {"id": 1, "file_name": "a.png", "height": 4, "width": 5}
    coco = {"images": [image], "categories": [{"id": 1, "name": "cell"}], "annotations": []}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    return {
        "mask_folder": tmp_path / "folders",
        "coco": tmp_path / "coco.json",
        "labels": tmp_path / "pairs",
    }


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_found_by_its_name_and_no_other(sets, format):
    assert [entry.name for entry in list_entries(format, sets[format]).entries] == ["a"]
    for other in sets.keys() - {format}:
        with pytest.raises(
            DataError, match=rf"is no {other} data set, but looks like {format}; set the format to {format}"
        ):
            list_entries(other, sets[format])


@pytest.mark.parametrize("format", FORMATS)
def test_a_config_reads_each_format(sets, format):
    data = DataConfig(format=format, path=str(sets[format]))
    assert [record.name for record in load_split(data, "train")] == ["a"]
    assert load_split(data, "validation") == []
    apart = replace(data, validation_path=str(sets[format]))
    assert [record.name for split in ("train", "validation") for record in load_split(apart, split)] == [
        "a"
    ] * 2


@pytest.mark.parametrize("format", FORMATS)
def test_a_config_says_which_part_of_a_stack_is_trained_on(sets, tmp_path, format):
    """And training sees the pixels that prediction sees."""
    stack = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    for place in ("a", "folders/a/images/a", "pairs/images/a"):
        (tmp_path / f"{place}.png").unlink()
        tifffile.imwrite(tmp_path / f"{place}.tif", stack, photometric="minisblack")
    coco = tmp_path / "coco.json"
    coco.write_text(coco.read_text().replace("a.png", "a.tif"))
    data = DataConfig(format=format, path=str(sets[format]), plane="2")
    (record,) = load_split(data, "train")
    with open_source(tmp_path / "a.tif", Choice(plane=2)) as source:
        np.testing.assert_array_equal(record.image, source.read(0, 0, 4, 5))
    with pytest.raises(DataError, match=r"a\.tif: holds 3 planes .*data\.plane"):
        load_split(replace(data, plane=""), "train")


def test_a_wrong_format_in_a_config_is_answered(sets):
    data = DataConfig(format="labels", path=str(sets["coco"]))
    with pytest.raises(DataError, match="is no labels data set, but looks like coco; set the format to coco"):
        load_split(data, "train")
    with pytest.raises(
        FieldError, match="format is 'voc': it must be one of 'synthetic', 'mask_folder', 'coco'"
    ):
        replace(data, format="voc")
    with pytest.raises(ValueError, match=r"validation_images is 1, but .* has 1 images"):
        load_split(replace(data, format="coco", validation_images=1), "train")


@pytest.mark.parametrize("format", ["coco", "mask_folder"])
def test_a_set_that_lies_one_folder_deeper_is_pointed_at(sets, tmp_path, format):
    outer = tmp_path / "outer"
    outer.mkdir()
    sets[format].rename(outer / sets[format].name)
    with pytest.raises(DataError, match=f"holds what looks like one; give the path .*{sets[format].name}"):
        list_entries(format, outer)


def test_folders_of_many_images_are_no_mask_folders(tmp_path):
    """As StarDist's: train/images, train/masks."""
    for name in ("a", "b"):
        for part in ("images", "masks"):
            (tmp_path / "train" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "train" / part / f"{name}.png")
    with pytest.raises(DataError, match=r"is no labels data set, but holds .* give the path .*train"):
        list_entries("labels", tmp_path)


def test_an_unknown_format_names_the_known_ones(sets):
    with pytest.raises(ValueError, match=r"'coc' is unknown \(did you mean 'coco'\?\): choose mask_folder, "):
        list_entries("coc", sets["coco"])


def test_an_image_folder_is_for_coco_only(sets, tmp_path):
    with pytest.raises(ValueError, match="`images` is for COCO files only"):
        list_entries("labels", sets["labels"], images=tmp_path)


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_or_missing_place_is_named(tmp_path, format):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=place.name):
            list_entries(format, place)


def test_configs_know_these_formats_and_one_that_is_drawn():
    known = typing.get_args(typing.get_type_hints(DataConfig)["format"])
    assert known == ("synthetic", *FORMATS)
