"""Label images, read back by tifffile and Pillow, against a painter that sees one full mask at a time."""

import tracemalloc

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from maskrcnn_jax.images.decoding import read_labels
from maskrcnn_jax.masks.crops import crops_of
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.rle import rle_of_crop
from maskrcnn_jax.outputs import label_image
from maskrcnn_jax.outputs.label_image import write_labels


def result(masks, size):
    count = len(masks)
    return Result(
        np.zeros((count, 4), np.float32),
        np.ones(count, np.float32),
        np.zeros(count, np.int32),
        crops_of(masks),
        size,
    )


def random_objects(rng, size, count):
    """Masks that may be empty or overlap, and the label image that they give, one after the other."""
    labels, masks = np.zeros(size, np.int64), []
    for d in range(count):
        mask = np.zeros(size, bool)
        top, left = (rng.integers(side) for side in size)
        part = mask[top : top + 8, left : left + 8]
        part[:] = rng.random(part.shape) < rng.choice([0, 0.7])
        free = mask & (labels == 0)
        if not (free == mask).all():
            pieces, number = ndimage.label(free)
            free = max((pieces == n + 1 for n in range(number)), key=np.sum, default=free)
            free &= free.sum() >= mask.sum() / 5
        labels[free] = d + 1
        masks.append(rle_of_crop(mask, 0, 0, size))
    return result(masks, size), labels


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (64, 5), (3, 300)])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_every_pixel_has_its_best_object(rng, tmp_path, monkeypatch, size, rows):
    """However many rows a strip and a band have: objects reach over several, and some have no pixels."""
    monkeypatch.setattr(label_image, "_STRIP", rows * size[1] * 2)
    monkeypatch.setattr(label_image, "_BAND", 2 * rows * size[1] * 2)
    found, expected = random_objects(rng, size, 60)
    write_labels(tmp_path / "x.tif", found)
    labels = tifffile.imread(tmp_path / "x.tif")
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(found.label_map(), expected)
    with Image.open(tmp_path / "x.tif") as image:
        np.testing.assert_array_equal(np.asarray(image), labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "x.tif"), labels)


def test_no_objects_are_all_background(tmp_path):
    write_labels(tmp_path / "x.tif", result([], (20, 30)))
    labels = tifffile.imread(tmp_path / "x.tif")
    assert labels.shape == (20, 30) and not labels.any()


@pytest.mark.parametrize(("count", "dtype"), [(20, np.uint16), (21, np.uint32)])
def test_many_objects_take_32_bits(rng, tmp_path, monkeypatch, count, dtype):
    assert label_image._MAX_SHORT == 65_535
    monkeypatch.setattr(label_image, "_MAX_SHORT", 20)
    found, expected = random_objects(rng, (30, 40), count)
    write_labels(tmp_path / "x.tif", found)
    assert tifffile.imread(tmp_path / "x.tif").dtype == dtype
    np.testing.assert_array_equal(read_labels(tmp_path / "x.tif"), expected)


def test_a_slide_is_never_whole_in_memory(tmp_path, monkeypatch):
    """160 MB of pixels drawn in bands of 4; a BigTIFF, as one of more than 4 GB would be."""
    monkeypatch.setattr(label_image, "_BAND", 1 << 22)
    monkeypatch.setattr(label_image, "_MAX_CLASSIC", 1 << 26)
    size = (4_000, 20_000)
    corners = [(0, 0), (3_990, 19_990), (1_234, 5_678)]
    found = result([rle_of_crop(np.ones((10, 10), bool), *corner, size) for corner in corners], size)
    tracemalloc.start()
    write_labels(tmp_path / "x.tif", found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        assert file.is_bigtiff and file.pages[0].compression != tifffile.COMPRESSION.NONE
        labels = file.asarray()
    assert np.count_nonzero(labels) == 300
    for d, (top, left) in enumerate(corners):
        assert (labels[top : top + 10, left : left + 10] == d + 1).all()
