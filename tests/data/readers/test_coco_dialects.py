"""COCO files as annotation tools write them are read as they are meant, or it is said what to do."""

import json

import numpy as np
import pytest
from PIL import Image

from maskrcnn_jax.commands.cli import main
from maskrcnn_jax.data.entries import read_records, readings
from maskrcnn_jax.data.readers.coco_json import list_entries
from maskrcnn_jax.errors import DataError

SIZE = (20, 30)
SQUARE = [3.0, 2.0, 12.0, 2.0, 12.0, 9.0, 3.0, 9.0]
TRIANGLE = [20.0, 10.0, 28.0, 10.0, 24.0, 18.0]


def write(folder, instances, images=("a.png",), **tables):
    rows = [
        {"id": n, "image_id": 1, "category_id": 5, "segmentation": [SQUARE]} | fields
        for n, fields in enumerate(instances, start=1)
    ]
    data = {
        "images": [
            {"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
            for i, name in enumerate(images, start=1)
        ],
        "categories": [{"id": 5, "name": "cell"}],
        "annotations": rows,
    }
    (folder / "coco.json").write_text(json.dumps(data | tables))
    return folder / "coco.json"


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), 200, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path / "a.png")
    return tmp_path


def points(outline):
    return [list(point) for point in zip(outline[::2], outline[1::2], strict=True)]


@pytest.mark.parametrize(
    "segmentation",
    [SQUARE, points(SQUARE), [points(SQUARE)], [[SQUARE]], [[points(SQUARE)]]],
    ids=["flat", "points", "outlines of points", "nested", "nested points"],
)
def test_outlines_of_any_nesting(folder, segmentation):
    (record,) = read_records(list_entries(write(folder, [{"segmentation": segmentation}])).entries)
    (expected,) = read_records(list_entries(write(folder, [{}])).entries)
    np.testing.assert_array_equal(record.layers, expected.layers)
    assert record.mask(0).sum() == 63


def test_two_outlines_of_points_are_two_parts(folder):
    two = [{"segmentation": [points(SQUARE), points(TRIANGLE)]}, {"segmentation": [SQUARE, TRIANGLE]}]
    (record,) = read_records(list_entries(write(folder, two)).entries)
    np.testing.assert_array_equal(record.mask(0), record.mask(1))
    assert record.mask(0)[12, 24] and record.mask(0)[5, 5]


def test_tables_may_map_ids_to_rows(folder):
    """LIVECell keeps its annotations so."""
    rows = {"1": {"id": 1, "image_id": 1, "category_id": 5, "segmentation": [SQUARE]}}
    rows["2"] = {"image_id": 1, "category_id": 5, "segmentation": [TRIANGLE]}
    listing = list_entries(write(folder, [], annotations=rows))
    (reading,) = readings(listing.entries)
    assert not listing.faults and not reading.faults and len(reading.record.classes) == 2
    assert "annotation 2" in reading.origins[1]


def test_ids_that_are_numbers_as_text(folder):
    draw(folder / "b.png")
    images = [
        {"id": str(n), "file_name": f"{name}.png", "height": 20, "width": 30}
        for n, name in ((3, "a"), (12, "b"))
    ]
    rows = [{"id": "7", "image_id": "12", "category_id": "5"}]
    path = write(folder, rows, images=(), categories=[{"id": "5", "name": "cell"}])
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": images}))
    listing = list_entries(path)
    records = read_records(listing.entries)
    assert not listing.faults and [record.image_id for record in records] == [3, 12]
    assert [len(record.classes) for record in records] == [0, 1] and listing.category_ids == (5,)
    images[0]["id"] = "three"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": images}))
    with pytest.raises(DataError, match="2 of images have no 'id' of type int"):
        list_entries(path)


@pytest.mark.parametrize("place", ["images", "media", ""])
def test_names_with_backslashes_or_of_another_disk(tmp_path, place):
    names = (
        "images\\tile.png",
        "..\\..\\media\\other.png",
        "/home/me/third.png",
        "x\\same.png",
        "y/same.png",
    )
    path = write(tmp_path, [{"image_id": 2}], images=names)
    for name in ("tile", "other", "third"):
        draw(tmp_path / place / f"{name}.png")
    for name in "xy":
        draw(tmp_path / place / name / "same.png")
    listing = list_entries(path, tmp_path / place if place == "media" else None)
    assert [entry.name for entry in listing.entries] == [
        "images_tile",
        "media_other",
        "home_me_third",
        "x_same",
        "y_same",
    ]
    assert [len(record.classes) for record in read_records(listing.entries)] == [0, 1, 0, 0, 0]


def test_a_last_part_that_two_images_share_is_not_guessed(tmp_path):
    path = write(tmp_path, [], images=("a.png", "C:\\x\\same.png", "C:\\y\\same.png"))
    for name in ("a.png", "same.png"):
        draw(tmp_path / name)
    first, *others = readings(list_entries(path).entries)
    assert not first.faults
    assert all("it is not there" in reading.faults[0].what for reading in others)


ODD_ROWS = {
    "has the file_name '': write": {"file_name": ""},
    "has the file_name ../..; write": {"file_name": "../.."},
    r"has the file_name x+\.\.\. \(400 letters\): File name too long; write": {"file_name": "x" * 400},
    r"has the file_name 'a\\x00.png': it is no text": {"file_name": "a\0.png"},
    r"has the file_name '\\ud800.png': it is no text": {"file_name": "\ud800.png"},
    r"has the size \(10{30}, 30\); write its height": {"height": 10**30},
    r"has the size \(20, -5\); write its height": {"width": -5},
}


@pytest.mark.parametrize("message", ODD_ROWS)
def test_an_odd_image_is_one_fault_and_the_check_goes_on(folder, capsys, message):
    path = write(folder, [{}, {"image_id": 2}, {"image_id": 3, "bbox": [5, 5, -3, 4]}], images="abc")
    data = json.loads(path.read_text())
    for row in data["images"]:
        row["file_name"] += ".png"
    data["images"][1] |= ODD_ROWS[message]
    path.write_text(json.dumps(data))
    draw(folder / "c.png")
    assert main(["check", "--format", "coco", str(path)]) == 1
    text = capsys.readouterr().out
    assert text.startswith("2 faults") and "images       2 readable" in text
    with pytest.raises(AssertionError, match=message.replace("'':", "'';")):
        raise AssertionError(text)
    assert "annotation 3 (image c.png): has a bbox of negative width or height: 5, 5, -3, 4" in text


def test_crowds_throughout_are_told_and_read_as_instances(folder, capsys):
    """CVAT writes brush masks so; nothing would be learned from them."""
    path = write(folder, [{"iscrowd": 1}, {"iscrowd": 1, "segmentation": [TRIANGLE]}])
    flags = ["check", "--format", "coco", str(path)]
    assert main(flags) == 1
    text = capsys.readouterr().out
    assert text.startswith("1 fault") and "annotations: all 2 have iscrowd 1, as CVAT" in text
    assert "if they are instances, set crowds_are_instances" in text
    assert main([*flags, "--crowds_are_instances"]) == 0
    (record,) = read_records(list_entries(path, crowds_are_instances=True).entries)
    assert not record.crowd.any() and len(record.classes) == 2


def test_a_file_whose_instances_all_cover_no_pixel_is_one_fault(folder, capsys):
    nothing = {"size": list(SIZE), "counts": [600]}
    path = write(folder, [{"segmentation": nothing}, {"segmentation": [[4.0, 4.0, 9.0, 9.0]]}] * 20)
    assert main(["check", "--format", "coco", str(path)]) == 1
    text = capsys.readouterr().out
    assert text.startswith("1 fault") and "none of the 40 covers a pixel; write outlines in pixels" in text
    assert "doubt" not in text
    with pytest.raises(AssertionError, match="at least one covers one"):
        assert list_entries(write(folder, [{"segmentation": nothing}, {}])).faults, "at least one covers one"


def test_outlines_in_shares_of_the_sides_are_named(folder):
    shares = [
        {"segmentation": [[0.1, 0.1, 0.9, 0.1, 0.9, 0.8, 0.1, 0.8]]},
        {"segmentation": [[0, 0, 1, 0, 1, 1]]},
    ]
    (fault,) = list_entries(write(folder, shares)).faults
    assert fault.what == "all 2 lie between 0 and 1: shares of the image's sides, perhaps"
    assert fault.remedy == "multiply x by the image's width and y by its height"
    assert not list_entries(write(folder, [*shares, {}])).faults


def test_boxes_and_areas_are_kept_as_they_were_written(folder):
    rows = [
        {"bbox": [2.5, 1.75, 9.75, 7.5], "area": 63.125},
        {"segmentation": [TRIANGLE]},
        {"segmentation": {"size": list(SIZE), "counts": [600]}, "bbox": [4, 4, 0.3, 0.4], "area": 0.12},
        {"bbox": [3, 2, 9, 7], "area": "63", "category_id": 5, "iscrowd": 1},
    ]
    (reading,) = readings(list_entries(write(folder, rows)).entries)
    record = reading.record
    assert record.annotated[0].tolist() == [2.5, 1.75, 9.75, 7.5, 63.125]
    assert record.annotated[2].tolist() == [4, 4, 0.3, 0.4, 0.12] and not record.mask(2).any()
    assert np.isnan(record.annotated[[1, 3]]).all(), "nothing, or what the mask says"
    doubts = {(doubt.where.split("annotation ")[1][0], doubt.what) for doubt in reading.doubts}
    assert doubts == {
        ("3", "covers no pixel and counts for average precision only"),
        ("4", "has the area '63', which is none: that of its mask is taken"),
        ("4", "has the same pixels as annotation 1"),
    }
