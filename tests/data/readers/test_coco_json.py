"""COCO files: every form of segmentation gives pycocotools' mask, and every fault is named."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from maskrcnn_jax.data.entries import read_records, readings
from maskrcnn_jax.data.pipeline import batches
from maskrcnn_jax.data.readers import mask_folder
from maskrcnn_jax.data.readers.coco_json import list_entries
from maskrcnn_jax.data.synthetic import draw_records
from maskrcnn_jax.errors import DataError
from maskrcnn_jax.evaluation.coco import to_coco

SIZE = (20, 30)
POLYGON = [[3.0, 2.0, 12.5, 2.0, 12.5, 9.0, 3.0, 9.0]]
TWO_PARTS = [*POLYGON, [20.0, 10.0, 28.0, 10.0, 24.0, 18.0]]


def blob(rng):
    return np.asarray(Image.fromarray(rng.random((4, 6)) < 0.5).resize(SIZE[::-1], Image.Resampling.NEAREST))


def compressed(mask):
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(SIZE), "counts": code["counts"].decode()}


def uncompressed(mask):
    runs = [(value, len(list(run))) for value, run in itertools.groupby(mask.ravel(order="F").tolist())]
    return {"size": list(SIZE), "counts": [0] * runs[0][0] + [length for _, length in runs]}


def row(number, segmentation, image=1, category=5, **more):
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation} | more


def write(folder, annotations, images=("a.png",), categories=(5, 9), place="coco.json"):
    for name in images:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*SIZE, 3), 7, np.uint8)).save(folder / name)
    data = {
        "images": [
            {"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
            for i, name in enumerate(images, start=1)
        ],
        "categories": [{"id": k, "name": f"kind {k}"} for k in categories],
        "annotations": annotations,
    }
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_text(json.dumps(data))
    return folder / place


def test_every_form_of_segmentation_gives_its_mask(tmp_path, rng):
    masks = [blob(rng), blob(rng)]
    corner = np.zeros(SIZE, bool)
    corner[-1, -1] = True
    codes = [compressed(masks[0]), uncompressed(masks[1]), uncompressed(corner), compressed(corner ^ True)]
    path = write(tmp_path, [row(n, code) for n, code in enumerate([*codes, POLYGON, TWO_PARTS], start=1)])
    (record,) = read_records(list_entries(path).entries)
    for n, mask in enumerate((masks[0], masks[1], corner, ~corner)):
        np.testing.assert_array_equal(record.mask(n), mask)
    for n, polygons in enumerate((POLYGON, TWO_PARTS), start=4):
        drawn = coco.merge(coco.frPyObjects(polygons, *SIZE))
        assert compressed(record.mask(n))["counts"] == drawn["counts"].decode()


def test_categories_with_gaps_crowds_subfolders_and_images_without_annotations(tmp_path):
    whole = {"size": list(SIZE), "counts": [0, SIZE[0] * SIZE[1]]}
    rows = [row(1, POLYGON, category=90), row(2, whole, category=7, iscrowd=1), row(3, POLYGON, image=3)]
    path = write(tmp_path, rows, images=("x/a.png", "x/y/b.png", "c.png"), categories=(90, 7, 5))
    listing = list_entries(path)
    assert listing.categories == ("kind 5", "kind 7", "kind 90")
    records = read_records(listing.entries)
    assert [(r.image_id, r.name) for r in records] == [(1, "x_a"), (2, "x_y_b"), (3, "c")]
    assert [r.classes.tolist() for r in records] == [[2, 1], [], [0]]
    assert [r.crowd.tolist() for r in records] == [[False, True], [], [False]]
    assert records[0].mask(1).all() and len(records[0].layers) == 2


@pytest.mark.parametrize("place", ["coco.json", "annotations/instances_train.json", "annotations/a.json"])
@pytest.mark.parametrize("images", ["", "images", "train"])
def test_images_are_found_where_people_keep_them(tmp_path, place, images):
    if images == "train" and place != "annotations/instances_train.json":
        images = "somewhere/else"
    path = write(tmp_path, [], images=("a.png",), place=place)
    (tmp_path / images).mkdir(parents=True, exist_ok=True)
    (tmp_path / "a.png").rename(tmp_path / images / "a.png")
    if images == "somewhere/else":
        with pytest.raises(DataError, match=r"its images \(a.png, ...\) are in none of .*say where"):
            list_entries(path)
        listing = list_entries(path, tmp_path / images)
    else:
        listing = list_entries(path)
    assert len(read_records(listing.entries)) == 1


def assert_coco_gives_the_same_batches(folder, records, size, side):
    """Writes the records as a COCO set, reads it, and compares what both give, crop by crop."""
    truth = to_coco(records)
    for image, record in zip(truth["images"], records, strict=True):
        image["file_name"] += ".png"
        Image.fromarray(record.image).save(folder / image["file_name"], compress_level=1)
    (folder / "coco.json").write_text(json.dumps(truth))
    again = read_records(list_entries(folder / "coco.json").entries)
    options = {
        "augment": (
            {"op": "random_crop", "size": size},
            {"op": "resize_shortest_edge", "sizes": (side,), "longest": side},
            {"op": "rotate90"},
        ),
        "canvas": (side, side),
        "batch_size": 2,
        "max_instances": 200,
        "seed": 4,
    }
    streams = (batches(source, steps=4, **options) for source in (records, again))
    for a, b in itertools.zip_longest(*streams):
        assert a.valid.any()
        for name, x, y in zip(a._fields, a, b, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name)


def test_a_set_written_from_records_gives_identical_batches(tmp_path):
    records = [draw_records(1, seed=i, size=64, nuclei=(4, 9))[0] for i in range(3)]
    records = [type(r)(i, f"r{i}", r.image, r.layers, r.classes) for i, r in enumerate(records, start=1)]
    assert_coco_gives_the_same_batches(tmp_path, records, 48, 60)


def test_vrdl_images_written_as_coco_give_identical_batches(shared, tmp_path):
    folder = shared / "data" / "vrdl" / "train"
    names = ("TCGA-CH-5767-01Z-00-DX1", "TCGA-E2-A1B5-01Z-00-DX1")
    entries = [entry for entry in mask_folder.list_entries(folder).entries if entry.name in names]
    records = read_records(entries)
    assert [len(record.classes) for record in records] == [294, 327]
    assert_coco_gives_the_same_batches(tmp_path, records, 500, 608)


WRONG_SEGMENTATIONS = {
    "no segmentation": None,
    "an empty list of polygons": [],
    "no list x0, y0, x1, y1": [[1, 2, 3, 4, 5]],
    "no list x0, y0, ": [1, 2, 3, 4, 5],
    "far outside of the image": [[0, 0, 5e8, 0, 5, 5]],
    "no number": [[1, 2, 3, 4, 5, "6"]],
    "of size None": {"size": None, "counts": [600]},
    "of size \\[5, 5\\], its image \\[20, 30\\]": {"size": [5, 5], "counts": [0, 25]},
    "run lengths of 50 pixels, its image 600": {"size": list(SIZE), "counts": [25, 25]},
    "damaged run lengths": {"size": list(SIZE), "counts": [-600, 1200]},
    "run lengths of 3 pixels": {"size": list(SIZE), "counts": "3"},
}


@pytest.mark.parametrize("message", WRONG_SEGMENTATIONS)
def test_a_wrong_segmentation_is_named(tmp_path, message):
    path = write(tmp_path, [row(8, WRONG_SEGMENTATIONS[message]), row(9, POLYGON)])
    (reading,) = readings(list_entries(path).entries)
    assert reading.record.classes.tolist() == [0] and reading.origins == [
        f"{path}: annotation 9 (image a.png)"
    ]
    with pytest.raises(DataError, match=rf"annotation 8 \(image a.png\): .*{message}"):
        raise DataError(reading.faults)


@pytest.mark.parametrize("counts", ["", "\u00e9", "oooooooooooooo", "P", "~", 5, None])
def test_damaged_run_lengths_never_pass(tmp_path, counts):
    path = write(tmp_path, [row(1, {"size": list(SIZE), "counts": counts})])
    (reading,) = readings(list_entries(path).entries)
    assert len(reading.faults) == 1 and "run lengths" in reading.faults[0].what


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 3, "4"], "1 2 3 4", [1, 2, 3, float("nan")]])
def test_a_box_that_is_none_is_named(tmp_path, box):
    (reading,) = readings(list_entries(write(tmp_path, [row(1, POLYGON, bbox=box)])).entries)
    assert "has a bbox that is not x, y, width, height" in str(reading.faults[0])


@pytest.mark.parametrize("crowd", ["0", 2, [0]])
def test_an_odd_crowd_flag_is_named(tmp_path, crowd):
    (reading,) = readings(list_entries(write(tmp_path, [row(1, POLYGON, iscrowd=crowd)])).entries)
    assert f"has iscrowd {crowd!r}, which is neither 0 nor 1" in str(reading.faults[0])


def test_whole_floats_count_as_numbers(tmp_path):
    """As tables with gaps write them."""
    lengths = {"size": [20.0, 30.0], "counts": [3.0, 4.0, 593.0]}
    path = write(tmp_path, [row(1.0, lengths, image=1.0, category=5.0, iscrowd=0.0)])
    data = json.loads(path.read_text())
    data["images"][0] |= {"id": 1.0, "height": 20.0, "width": 30.0}
    path.write_text(json.dumps(data))
    (record,) = read_records(list_entries(path).entries)
    assert type(record.image_id) is int and record.mask(0).sum() == 4 and not record.crowd.any()
    path.write_text(path.read_text().replace('"image_id": 1.0', '"image_id": 1.5'))
    with pytest.raises(DataError, match="1 of annotations have no 'image_id' of type int"):
        list_entries(path)


def test_polygons_without_area_are_left_out(tmp_path):
    rows = [row(1, [*POLYGON, [1.0, 2.0, 3.0, 4.0], []]), row(2, [[1.0, 2.0, 30.0, 20.0]])]
    (reading,) = readings(list_entries(write(tmp_path, rows)).entries)
    drawn = coco.merge(coco.frPyObjects(POLYGON, *SIZE))
    assert compressed(reading.record.mask(0))["counts"] == drawn["counts"].decode()
    assert len(reading.record.classes) == 1 and not reading.faults
    assert [doubt.what.split(",")[0] for doubt in reading.doubts] == [
        "has 2 polygons of fewer than three points",
        "has 1 polygons of fewer than three points",
        "covers no pixel and is left out",
    ]


def test_images_that_share_a_name_are_told_apart(tmp_path):
    files = ("a.png", "a.bmp", "x/b.png", "x_b.png", "c.png")
    entries = list_entries(write(tmp_path, [], images=files)).entries
    assert [entry.name for entry in entries] == ["a_1", "a_2", "x_b_3", "x_b_4", "c"]
    assert [record.name for record in read_records(entries)] == [entry.name for entry in entries]


def test_a_missing_first_image_is_a_fault_of_its_own(tmp_path):
    path = write(tmp_path, [row(1, POLYGON, image=2)], images=("images/a.png", "images/b.png"))
    data = json.loads(path.read_text())
    for image in data["images"]:
        image["file_name"] = image["file_name"].removeprefix("images/")
    path.write_text(json.dumps(data))
    (tmp_path / "images" / "a.png").unlink()
    first, second = readings(list_entries(path).entries)
    assert "images/a.png: cannot be read: it is not there" in str(first.faults[0])
    assert len(second.record.classes) == 1


def test_an_image_of_no_size_is_named(tmp_path):
    path = write(tmp_path, [row(1, POLYGON)])
    path.write_text(path.read_text().replace('"height": 20', '"height": 0'))
    (reading,) = readings(list_entries(path).entries)
    assert "image 1: has the size (0, 30); write its height and width" in str(reading.faults[0])


def test_wrong_ids_are_all_named(tmp_path):
    rows = [row(1, POLYGON), row(1, TWO_PARTS), row(2, POLYGON, image=77), row(3, POLYGON, category=6)]
    faults = list_entries(write(tmp_path, rows, categories=(5, 5))).faults
    assert [fault.what for fault in faults] == [
        "the id 5 occurs twice",
        "the id 1 occurs twice",
        "has image_id 77, which is not among the images",
        "has category_id 6, which is not among the categories",
    ]
    twice = [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}] * 2
    path = write(tmp_path, [])
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": twice}))
    faults = list_entries(path).faults
    assert [fault.what for fault in faults] == ["the id 1 occurs twice", "the file a.png is listed twice"]


def test_images_that_are_missing_or_of_another_size(tmp_path):
    path = write(tmp_path, [row(1, POLYGON)], images=("a.png", "gone.png", "large.png"))
    (tmp_path / "gone.png").unlink()
    Image.fromarray(np.zeros((21, 30), np.uint8)).save(tmp_path / "large.png")
    sound, gone, large = readings(list_entries(path).entries)
    assert sound.record is not None and gone.record is None and large.record is None
    assert "it is not there" in str(gone.faults[0])
    assert "has 21 x 30 pixels (height x width), coco.json says (20, 30)" in str(large.faults[0])


def test_what_is_odd_is_read_but_doubted(tmp_path):
    outside = [[-9.0, 2.0, 12.0, 2.0, 12.0, 9.0]]
    rows = [
        row(1, POLYGON),
        row(2, POLYGON),
        row(3, POLYGON, category=9),
        row(4, outside),
        row(5, TWO_PARTS, bbox=[3, 2, 40, 9]),
        row(6, {"size": list(SIZE), "counts": [600]}),
        row(7, [[27.5, 2.0, 30.5, 2.0, 30.5, 9.0]]),
    ]
    (reading,) = readings(list_entries(write(tmp_path, rows)).entries)
    assert not reading.faults
    doubts = {doubt.where.split("annotation ")[1][0]: doubt.what for doubt in reading.doubts}
    assert set(doubts) == {"2", "4", "5", "6"}
    assert doubts["2"] == "has the same pixels as annotation 1"
    assert doubts["4"] == "its polygon (-9, 2, 12, 9; x0, y0, x1, y1) leaves the image of 20 x 30 pixels"
    assert doubts["5"].startswith("its box (3, 2, 43, 11;") and "covers no pixel" in doubts["6"]
    assert len(reading.record.classes) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds a list; COCO results, perhaps"),
        ('{"images": [], "categories": [], "annotations": []}', "lists no images; is it the right file"),
        ("{", "is no JSON"),
        ("[" * 9999, "is nested more than"),
        ("{}", "has no list of images.*\n.*has no list of categories.*\n.*has no list of annotations"),
        (
            '{"images": [{"id": 1}], "categories": [], "annotations": [{"id": 1, "image_id": 1}]}',
            r"1 of images have no 'file_name' of type str; .* first without is images\[0\]",
        ),
    ],
)
def test_what_is_no_coco_file_is_named(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        list_entries(tmp_path / "a.json")
