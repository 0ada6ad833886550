"""Mask folders: what is read equals what was written; every planted fault is found in one pass."""

import os

import numpy as np
import pytest
from PIL import Image

from maskrcnn_jax.data.entries import read_records, readings
from maskrcnn_jax.data.readers.mask_folder import list_entries
from maskrcnn_jax.errors import DataError

SIZE = (12, 16)


def read_mask_folder(path, names=None, progress=None):
    entries = list_entries(path).entries
    return read_records([e for e in entries if names is None or e.name in names], progress=progress)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def mask_of(rows, cols):
    mask = np.zeros(SIZE, np.uint8)
    mask[rows, cols] = 255
    return mask


LEFT, RIGHT = mask_of(np.s_[2:6], np.s_[0:5]), mask_of(np.s_[4:9], np.s_[3:16])


def add_image(root, name, masks, rng):
    image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    save(root / name / "images" / f"{name}.png", image)
    (root / name / "masks").mkdir()
    for i, mask in enumerate(masks):
        save(root / name / "masks" / f"{i}.png", mask)
    return image


def test_reads_what_was_written(tmp_path, rng):
    later = add_image(tmp_path, "b", [LEFT, RIGHT], rng)
    first = add_image(tmp_path, "a", [], rng)
    records = read_mask_folder(tmp_path)
    assert [(r.image_id, r.name, len(r.classes)) for r in records] == [(1, "a", 0), (2, "b", 2)]
    np.testing.assert_array_equal(records[0].image, first)
    np.testing.assert_array_equal(records[1].image, later)
    np.testing.assert_array_equal(records[1].mask(0), LEFT > 0)
    np.testing.assert_array_equal(records[1].mask(1), RIGHT > 0)
    assert len(records[1].layers) == 2, "the two masks overlap"
    assert records[1].classes.tolist() == [0, 0]


def test_hidden_files_and_folders_are_ignored(tmp_path, rng):
    add_image(tmp_path, "a", [LEFT], rng)
    for folder in (tmp_path, tmp_path / "a" / "masks", tmp_path / "a" / "images"):
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / "._a.png").write_bytes(b"resource fork")
    assert len(read_mask_folder(tmp_path)[0].classes) == 1


def test_progress_counts_the_images(tmp_path, rng):
    for name in "abc":
        add_image(tmp_path, name, [], rng)
    calls = []
    read_mask_folder(tmp_path, progress=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_any_value_besides_zero_marks_the_instance(tmp_path, rng):
    add_image(tmp_path, "a", [LEFT // 255, LEFT > 0], rng)
    with pytest.raises(DataError, match=r"1.png: has the same pixels as 0.png"):
        read_mask_folder(tmp_path)


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 1), (3, 250, 3)])
def test_coloured_deep_and_palette_masks_are_read(tmp_path, rng, colour):
    add_image(tmp_path, "a", [], rng)
    there, masks = LEFT > 0, tmp_path / "a" / "masks"
    save(masks / "0.png", np.where(there[..., None], colour, 0).astype(np.uint8))
    deep = np.zeros(SIZE, np.uint16)
    deep[RIGHT > 0] = 1 + 256 * colour[0]
    save(masks / "1.png", deep)
    palette = Image.fromarray((there[::-1]).astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, *colour])
    palette.save(masks / "2.png")
    (record,) = read_mask_folder(tmp_path)
    for n, mask in enumerate((there, RIGHT > 0, there[::-1])):
        np.testing.assert_array_equal(record.mask(n), mask)


def test_a_stack_is_no_mask(tmp_path, rng):
    add_image(tmp_path, "a", [], rng)
    page = Image.fromarray(LEFT)
    page.save(tmp_path / "a" / "masks" / "0.tif", save_all=True, append_images=[page])
    with pytest.raises(DataError, match=r"0.tif: cannot be read: it holds 2 pages"):
        read_mask_folder(tmp_path)


PLANTED = {
    "no_images/images": "is no folder",
    "no_masks/masks": "is no folder",
    "two_images/images": r"holds 2 images \(more.png, two_images.png\)",
    "none/images": r"holds 0 images \(none\)",
    "truncated/images/truncated.png": "cannot be read: .*truncated",
    "bad_masks/masks/empty.png": "every pixel is 0",
    "bad_masks/masks/grey.png": r"has 3 values besides 0 \(50 to 255\)",
    "bad_masks/masks/large.png": "has 13 x 16 pixels .*, its image 12 x 16",
    "bad_masks/masks/text.png": "cannot be read",
    "bad_masks/masks/twin.png": "has the same pixels as 0.png",
    "bad_masks/masks/zero_bytes.png": "cannot be read: it has zero bytes",
    "truncated/masks/0.png": "every pixel is 0",
}


@pytest.fixture
def faulty(tmp_path, rng):
    """A set with each fault once, and a sound image between them."""
    for name in ("bad_masks", "no_images", "no_masks", "none", "sound", "truncated", "two_images"):
        add_image(tmp_path, name, [LEFT], rng)
    masks = tmp_path / "bad_masks" / "masks"
    save(masks / "empty.png", 0 * LEFT)
    save(masks / "grey.png", np.where(RIGHT > 0, rng.choice([50, 100, 255], SIZE), 0).astype(np.uint8))
    save(masks / "large.png", np.pad(LEFT, ((0, 1), (0, 0))))
    (masks / "text.png").write_text("no picture")
    save(masks / "twin.png", LEFT)
    (masks / "zero_bytes.png").touch()
    (tmp_path / "no_images" / "images" / "no_images.png").unlink()
    (tmp_path / "no_images" / "images").rmdir()
    (tmp_path / "no_masks" / "masks" / "0.png").unlink()
    (tmp_path / "no_masks" / "masks").rmdir()
    (tmp_path / "none" / "images" / "none.png").unlink()
    image = tmp_path / "truncated" / "images" / "truncated.png"
    image.write_bytes(image.read_bytes()[:-100])
    save(tmp_path / "truncated" / "masks" / "0.png", 0 * LEFT)
    save(tmp_path / "two_images" / "images" / "more.png", np.zeros((*SIZE, 3), np.uint8))
    return tmp_path


def test_all_faults_are_in_one_error(faulty):
    with pytest.raises(DataError) as caught:
        read_mask_folder(faulty)
    found = {fault.where: fault for fault in caught.value.faults}
    assert set(found) == {str(faulty / where) for where in PLANTED}
    for where, message in PLANTED.items():
        fault = found[str(faulty / where)]
        assert_matches(fault.what, message)
        assert fault.remedy and str(fault) in str(caught.value)


def assert_matches(text, pattern):
    with pytest.raises(AssertionError, match=pattern):
        raise AssertionError(text)


def test_a_scan_keeps_what_is_sound(faulty):
    found = list(readings(list_entries(faulty).entries))
    records = [reading.record for reading in found if reading.record is not None]
    faults = [fault for reading in found for fault in reading.faults]
    assert [(r.image_id, r.name, len(r.classes)) for r in records] == [
        (1, "bad_masks", 1),
        (5, "sound", 1),
    ]
    assert len(faults) == len(PLANTED)
    assert found[0].origins == [str(faulty / "bad_masks" / "masks" / "0.png")]


def test_files_of_another_type_are_doubtful(tmp_path, rng):
    add_image(tmp_path, "a", [LEFT], rng)
    (tmp_path / "a" / "masks" / "notes.txt").write_text("drawn by two of us")
    (reading,) = readings(list_entries(tmp_path).entries)
    assert not reading.faults and len(reading.record.classes) == 1
    (doubt,) = reading.doubts
    assert doubt.where.endswith("notes.txt") and "of a type that is not read" in doubt.what


def test_reading_keeps_the_order_and_never_runs_far_ahead(tmp_path, rng):
    for i in range(40):
        add_image(tmp_path, f"{i:02d}", [], rng)
    opened = []

    def watched(entry):
        return entry._replace(read=lambda: (opened.append(entry.image_id), entry.read())[1])

    ids = []
    for reading in readings([watched(entry) for entry in list_entries(tmp_path).entries]):
        ids.append(reading.record.image_id)
        assert len(opened) - len(ids) <= 2 * (os.cpu_count() or 1) + 1
    assert ids == list(range(1, 41))


def test_a_wrong_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: is no folder"):
        read_mask_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no folders"):
        read_mask_folder(tmp_path)


def test_dsb2018_passes_through(shared):
    folder = shared / "data" / "dsb2018" / "stage1_train"
    names = sorted(path.name for path in folder.iterdir())[:12]
    for record in read_mask_folder(folder, names=names):
        files = [p for p in (folder / record.name / "masks").iterdir() if p.suffix == ".png"]
        assert len(record.classes) == len(files) > 0


def test_a_vrdl_image_holds_its_masks_to_the_pixel(shared):
    """The image with the fewest nuclei: all of its masks together are the pixels that the record marks."""
    folder = shared / "data" / "vrdl" / "train"
    (record,) = read_mask_folder(folder, names=["TCGA-CH-5767-01Z-00-DX1"])
    assert len(record.classes) == 294 and record.layers.shape == (1, 1000, 1000)
    union = np.zeros((1000, 1000), bool)
    for path in (folder / record.name / "masks").glob("*.png"):
        union |= np.asarray(Image.open(path)) > 0
    np.testing.assert_array_equal(record.layers[0] > 0, union)
