"""Label images: both layouts give the instances that were written, and pairs that do not fit are named."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from maskrcnn_jax.data.entries import read_records, readings
from maskrcnn_jax.data.readers.label_images import list_entries
from maskrcnn_jax.errors import DataError

SIZE = (9, 14)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)


def labels_of(rng, values=(3, 70, 65000)):
    return rng.choice([0, *values], SIZE).astype(np.uint16)


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("{}.tif", "{}_masks.tif"),
        ("{}.png", "{}_masks.png"),
        ("{}.jpg", "{}_mask.npy"),
        ("images/{}.tif", "masks/{}.tif"),
        ("images/{}.png", "labels/{}.npy"),
        ("images/{}.png", "masks/{}_masks.png"),
        ("{}.png", "{}_cp_masks.png"),
        ("{}_img.png", "{}_masks.png"),
        ("{}_img.png", "{}_img_cp_masks.tif"),
        ("{}.ome.tif", "{}_masks.ome.tif"),
        ("images/{}_mask.png", "masks/{}_mask.tif"),
    ],
)
def test_layouts_give_what_was_written(tmp_path, rng, image, labels):
    images, maps = {}, {}
    for name in "ba":
        images[name] = np.full((*SIZE, 3), rng.integers(256), np.uint8)
        maps[name] = labels_of(rng)
        save(tmp_path / image.format(name), images[name])
        save(tmp_path / labels.format(name), maps[name])
    records = read_records(list_entries(tmp_path).entries)
    assert [(r.image_id, r.name) for r in records] == [(1, "a"), (2, "b")]
    for record in records:
        np.testing.assert_array_equal(record.image, images[record.name])
        assert record.classes.tolist() == [0, 0, 0]
        for n, value in enumerate((3, 70, 65000)):
            np.testing.assert_array_equal(record.mask(n), maps[record.name] == value)


def test_origins_name_the_label(tmp_path, rng):
    save(tmp_path / "a.png", np.zeros(SIZE, np.uint8))
    save(tmp_path / "a_masks.png", labels_of(rng))
    (reading,) = readings(list_entries(tmp_path).entries)
    assert reading.origins == [f"{tmp_path / 'a_masks.png'}: label {value}" for value in (3, 70, 65000)]


def test_no_background_no_instances_and_large_labels(tmp_path):
    cases = {
        "empty": np.zeros(SIZE, np.uint8),
        "full": np.full(SIZE, 5, np.uint8),
        "large": np.array([0, 4_000_000_000], np.uint32)[np.eye(*SIZE, dtype=int)],
    }
    for name, labels in cases.items():
        save(tmp_path / f"{name}.png", np.zeros(SIZE, np.uint8))
        save(tmp_path / f"{name}_masks.tif", labels)
    empty, full, large = read_records(list_entries(tmp_path).entries)
    assert len(empty.classes) == 0 and not empty.layers.any()
    assert len(full.classes) == 1 and full.mask(0).all()
    np.testing.assert_array_equal(large.mask(0), np.eye(*SIZE, dtype=bool))


def test_pairs_that_do_not_fit_are_named(tmp_path, rng):
    for name in ("alone", "both", "large", "broken"):
        save(tmp_path / f"{name}.png", np.zeros(SIZE, np.uint8))
    for name in ("both", "orphan"):
        save(tmp_path / f"{name}_masks.png", labels_of(rng))
    save(tmp_path / "large_masks.png", np.zeros((9, 15), np.uint8))
    save(tmp_path / "both_masks.npy", labels_of(rng))
    save(tmp_path / "broken_masks.png", np.zeros((*SIZE, 3), np.uint8))
    (tmp_path / "broken.png").write_bytes(b"GIF, rather")
    (tmp_path / "read_me.txt").write_text("by hand")
    listing = list_entries(tmp_path)
    found = {fault.where: fault.what for fault in listing.faults}
    assert found == {
        str(tmp_path / "alone.png"): "has no label image",
        str(tmp_path / "both_masks.png"): "has the same name as both_masks.npy",
        str(tmp_path / "orphan_masks.png"): "has no image",
    }
    assert [doubt.where for doubt in listing.doubts] == [str(tmp_path / "read_me.txt")]
    with pytest.raises(DataError) as caught:
        read_records(listing.entries)
    message = str(caught.value)
    assert "large_masks.png: has 9 x 15 pixels (height x width), its image 9 x 14" in message
    assert "broken.png: cannot be read" in message and "broken_masks.png: is no label image" in message


def test_a_folder_without_pairs_is_named(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name / "deeper").mkdir(parents=True)
    listing = list_entries(tmp_path)
    assert [fault.what for fault in listing.faults] == ["holds no images"]


def test_labels_saved_as_jpeg_are_doubted(tmp_path, rng):
    save(tmp_path / "images" / "a.jpg", np.zeros(SIZE, np.uint8))
    save(tmp_path / "masks" / "a.jpg", np.zeros(SIZE, np.uint8))
    listing = list_entries(tmp_path)
    assert [fault.what for fault in listing.faults] == ["has no label image"]
    assert [doubt.where for doubt in listing.doubts] == [str(tmp_path / "masks" / "a.jpg")]


def test_more_labels_than_a_layer_can_hold(tmp_path):
    size = (256, 257)
    save(tmp_path / "a.png", np.zeros(size, np.uint8))
    save(tmp_path / "a_masks.npy", np.arange(256 * 257, dtype=np.int32).reshape(size))
    (reading,) = readings(list_entries(tmp_path).entries)
    assert reading.record is None and "holds 65791 labels, at most 65535 fit" in reading.faults[0].what


def test_cellpose_folders_as_its_window_leaves_them(tmp_path, rng):
    """Labels in a pickled mapping, and side files that are no images."""
    for name, values in (("a", (1, 2)), ("b", (1, 2, 3))):
        save(tmp_path / f"{name}.png", np.zeros((*SIZE, 3), np.uint8))
        mapping = {"masks": labels_of(rng, values), "filename": f"{name}.png", "diameter": np.float64(30)}
        np.save(tmp_path / f"{name}_seg.npy", mapping, allow_pickle=True)
        for side in ("flows.tif", "dP.tif", "cp_output.png", "outlines.png"):
            save(tmp_path / f"{name}_{side}", np.zeros(SIZE, np.uint8))
        (tmp_path / f"{name}_cp_outlines.txt").write_text("1,2,3,4")
    written = np.eye(*SIZE, dtype=np.uint16)
    save(tmp_path / "b_cp_masks.png", written)
    listing = list_entries(tmp_path)
    assert not listing.faults and not listing.doubts
    first, second = read_records(listing.entries)
    assert (first.name, len(first.classes)) == ("a", 2) and second.mask(0).sum() == written.sum()


def test_labels_of_half_precision_warn_of_nothing(tmp_path):
    save(tmp_path / "a.png", np.zeros(SIZE, np.uint8))
    save(tmp_path / "a_masks.npy", np.eye(*SIZE, dtype=np.float16) * 7)
    (record,) = read_records(list_entries(tmp_path).entries)
    np.testing.assert_array_equal(record.mask(0), np.eye(*SIZE, dtype=bool))
