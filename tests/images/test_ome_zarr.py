"""OME-Zarr of both versions gives the windows that were written; what could run code is never read."""

import json

import numpy as np
import pytest

from maskrcnn_jax.errors import DataError
from maskrcnn_jax.images.choice import Choice
from maskrcnn_jax.images.inputs import find_images
from maskrcnn_jax.images.sources import open_source

zarr = pytest.importorskip("zarr")


def write(folder, levels, axes="cyx", version="0.5", omero=None, scale=0.25, **options):
    """As the specification has it: a group with multiscales, and an array a level."""
    named = [{"name": a, "type": "space", "unit": "micrometer"} if a in "zyx" else {"name": a} for a in axes]
    datasets = []
    for n in range(len(levels)):
        scales = [scale * 2**n if axis in "yx" else 1.0 for axis in axes]
        datasets.append({"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": scales}]})
    attributes = {"multiscales": [{"axes": named, "datasets": datasets, "version": version}]}
    attributes |= {"omero": {"channels": omero}} if omero else {}
    zarr_format = 2 if version == "0.4" else 3
    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
    group.attrs.update(attributes if version == "0.4" else {"ome": attributes | {"version": version}})
    for n, level in enumerate(levels):
        chunks = tuple(min(32, side) for side in level.shape)
        array = group.create_array(str(n), shape=level.shape, dtype=level.dtype, chunks=chunks, **options)
        array[...] = level
    return folder


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (3, 90, 70), np.uint8)


COLOURS = [{"color": "FF0000"}, {"color": "00FF00"}, {"color": "0000FF"}]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_picture_with_levels(tmp_path, pixels, version):
    folder = write(tmp_path / "x.zarr", [pixels, pixels[:, ::2, ::2]], version=version, omero=COLOURS)
    picture = pixels.transpose(1, 2, 0)
    with open_source(folder) as source:
        assert source.size == (90, 70) and source.levels == [(90, 70), (45, 35)]
        assert source.mpp == pytest.approx(0.25)
        np.testing.assert_array_equal(source.read(13, 7, 50, 60), picture[13:63, 7:67])
        np.testing.assert_array_equal(source.read_reduced(20, 10, 40, 60, 2), picture[20:60:2, 10:70:2])
        first = source.fingerprint
    zarr.open_group(folder)["0"][:] = 255 - pixels
    with open_source(folder) as source:
        assert source.fingerprint != first


def test_channels_planes_and_depth(tmp_path, rng):
    """Five axes; one channel of 16 bits keeps its high byte."""
    values = rng.integers(0, 65536, (1, 2, 3, 40, 50), np.uint16)
    folder = write(tmp_path / "x.zarr", [values], axes="tczyx")
    with pytest.raises(DataError, match="2 channels and 3 planes"):
        open_source(folder)
    with open_source(folder, Choice(channels=(1,), plane="max")) as source:
        expected = values[0, 1].max(axis=0)
        np.testing.assert_array_equal(source.read(0, 0, 40, 50)[..., 2], expected >> 8)
        np.testing.assert_array_equal(source.read_deep(5, 6, 7, 8), expected[5:12, 6:14])


def test_a_collection_of_series(tmp_path, pixels):
    for n in range(2):
        write(tmp_path / "x.zarr" / str(n), [pixels[n]], axes="yx")
    with pytest.raises(DataError, match="holds 2 series"):
        open_source(tmp_path / "x.zarr")
    with open_source(tmp_path / "x.zarr", Choice(series=1)) as source:
        np.testing.assert_array_equal(source.read(0, 0, 90, 70)[..., 0], pixels[1])


def test_it_is_one_image_among_others(tmp_path, pixels):
    write(tmp_path / "in" / "b.ome.zarr", [pixels[0]], axes="yx")
    for given in (tmp_path / "in", tmp_path / "in" / "b.ome.zarr", tmp_path / "in" / "*.zarr"):
        assert find_images([str(given)]) == ([tmp_path / "in" / "b.ome.zarr"], [])


@pytest.mark.parametrize("codec", ["pickle", "numcodecs.pickle", "json2", "anything"])
def test_codecs_that_do_more_than_compress_are_refused(tmp_path, pixels, codec):
    folder = write(tmp_path / "x.zarr", [pixels[0]], axes="yx", version="0.4")
    document = json.loads((folder / "0" / ".zarray").read_text())
    document["filters"] = [{"id": codec}]
    (folder / "0" / ".zarray").write_text(json.dumps(document))
    with pytest.raises(DataError, match=f"needs the codec '{codec}', which is not read"):
        open_source(folder)


def test_foreign_folders(tmp_path, pixels):
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(DataError, match="no image of OME-Zarr"):
        open_source(tmp_path / "empty.zarr")
    folder = write(tmp_path / "x.zarr", [pixels[0]], axes="yx", version="0.4")
    document = json.loads((folder / ".zattrs").read_text())
    document["multiscales"][0]["datasets"][0]["path"] = "../secret"
    (folder / ".zattrs").write_text(json.dumps(document))
    with pytest.raises(DataError, match="is not in its folder"):
        open_source(folder)
