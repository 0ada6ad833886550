"""Labels of OME-Zarr, read back by Zarr, against the label TIFF of the same objects."""

import json
import tracemalloc

import numpy as np
import pytest
import tifffile

from maskrcnn_jax.images.sources import open_source
from maskrcnn_jax.masks.crops import crops_of_pixels
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.outputs import label_image, label_zarr
from maskrcnn_jax.outputs.label_image import write_labels
from maskrcnn_jax.outputs.label_zarr import write_label_zarr

zarr = pytest.importorskip("zarr", reason="needs Zarr: pip install 'maskrcnn-jax[slides]'")


def result(pixels, corners, size):
    count = len(pixels)
    columns = np.zeros((count, 4), np.float32), np.ones(count, np.float32), np.zeros(count, np.int32)
    return Result(*columns, crops_of_pixels(pixels, corners), size)


def random_objects(rng, size, count):
    """Masks that overlap and reach over several chunks of 16; some have no pixels."""
    sides = np.minimum(rng.integers(1, 40, (count, 2)), size)
    pixels = [rng.random(side) < rng.choice([0, 0.6, 1]) for side in sides]
    return result(pixels, [rng.integers(0, np.subtract(size, side) + 1) for side in sides], size)


@pytest.mark.parametrize("size", [(1, 1), (16, 32), (70, 53), (5, 90), (129, 17)])
def test_it_is_the_label_image_in_chunks_with_levels(rng, tmp_path, monkeypatch, size):
    monkeypatch.setattr(label_zarr, "_CHUNK", 16)
    found = random_objects(rng, size, 40)
    write_label_zarr(tmp_path / "x.zarr", found, 0.25)
    write_labels(tmp_path / "x.tif", found)
    group = zarr.open_group(tmp_path / "x.zarr", mode="r")
    assert group.attrs["ome"] == {"version": "0.5", "labels": ["objects"]}
    image = group["objects"]
    (multiscale,) = image.attrs["ome"]["multiscales"]
    assert image.attrs["ome"]["image-label"] == {"source": {"image": "../../"}}
    assert [axis["name"] for axis in multiscale["axes"]] == ["y", "x"]
    expected = tifffile.imread(tmp_path / "x.tif")
    assert expected.any() or size == (1, 1)
    for k, dataset in enumerate(multiscale["datasets"]):
        level = image[dataset["path"]]
        assert level.dtype == expected.dtype and max(level.chunks) <= 16
        np.testing.assert_array_equal(level[...], expected[:: 2**k, :: 2**k])
        (transform,) = dataset["coordinateTransformations"]
        assert transform == {"type": "scale", "scale": [0.25 * 2**k] * 2}
    sides = [max(image[dataset["path"]].shape) for dataset in multiscale["datasets"]]
    assert sides[-1] <= 16 and all(side > 16 for side in sides[:-1])


def test_many_objects_take_32_bits_and_empty_chunks_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(label_zarr, "_CHUNK", 16)
    monkeypatch.setattr(label_image, "_MAX_SHORT", 1)
    found = result([np.ones((4, 4), bool)] * 2, [(14, 14), (90, 90)], (100, 100))
    write_label_zarr(tmp_path / "x.zarr", found)
    level = zarr.open_array(tmp_path / "x.zarr" / "objects" / "0", mode="r")
    assert level.dtype == np.uint32 and np.unique(level[...]).tolist() == [0, 1, 2]
    files = {
        path.relative_to(tmp_path / "x.zarr/objects/0/c").as_posix()
        for path in (tmp_path / "x.zarr/objects/0/c").rglob("*")
        if path.is_file()
    }
    assert files == {"0/0", "0/1", "1/0", "1/1", "5/5"}
    axes = json.loads((tmp_path / "x.zarr/objects/zarr.json").read_text())["attributes"]["ome"]["multiscales"]
    assert "unit" not in axes[0]["axes"][0]


def test_moved_into_an_image_it_is_read_as_one_of_its_own(rng, tmp_path, monkeypatch):
    """By the reader of OME-Zarr images, which takes a label image as one of 16 bits."""
    monkeypatch.setattr(label_zarr, "_CHUNK", 32)
    found = random_objects(rng, (60, 80), 20)
    write_label_zarr(tmp_path / "x.zarr", found, 0.5)
    (tmp_path / "x.zarr" / "objects").rename(tmp_path / "objects.zarr")
    with open_source(tmp_path / "objects.zarr") as source:
        assert source.mpp == pytest.approx(0.5) and source.levels == [(60, 80), (30, 40), (15, 20)]
        np.testing.assert_array_equal(source.read_deep(7, 9, 50, 60), found.label_map()[7:57, 9:69])


def test_what_was_there_is_replaced_at_the_end(tmp_path, monkeypatch):
    found = result([np.ones((4, 4), bool)], [(1, 2)], (8, 8))
    write_label_zarr(tmp_path / "x.zarr", found)
    (tmp_path / "x.zarr" / "mine").write_text("old")
    with monkeypatch.context() as context, pytest.raises(OSError, match="full"):
        context.setattr(label_zarr, "draw", lambda *_: (_ for _ in ()).throw(OSError("full")))
        write_label_zarr(tmp_path / "x.zarr", found)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"] and (tmp_path / "x.zarr/mine").exists()
    write_label_zarr(tmp_path / "x.zarr", found)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]
    assert not (tmp_path / "x.zarr/mine").exists()


def test_memory_does_not_grow_with_the_image(tmp_path, monkeypatch):
    """Each chunk has an object; four times the height and twice the width, the same peak."""
    monkeypatch.setattr(label_zarr, "_CHUNK", 128)
    peaks = []
    for n, size in enumerate([(512, 512), (512, 512), (2048, 1024)]):  # The first time, Zarr is imported.
        corners = [(y, x) for y in range(50, size[0], 128) for x in range(120, size[1], 128)]
        found = result([np.ones((9, 9), bool)] * len(corners), corners, size)
        tracemalloc.start()
        write_label_zarr(tmp_path / f"{n}.zarr", found)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 2**17 < 2**20, "of 1/2 and of 4 MiB of pixels"
