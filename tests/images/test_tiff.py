"""Microscopes' TIFF, written by tifffile: each is read as what was written, whole and in windows."""

import numpy as np
import pytest
import tifffile

from maskrcnn_jax.errors import DataError
from maskrcnn_jax.images import tiff, windows
from maskrcnn_jax.images.choice import ALL, Choice
from maskrcnn_jax.images.decoding import read_image
from maskrcnn_jax.images.levels import Levels, percentiles
from maskrcnn_jax.images.sources import open_source

SIZE = (40, 56)


def spread(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def by_percentiles(values, *, together=False):
    return Levels(ends=percentiles(values, together=together))(values)


@pytest.fixture(params=["whole", "streamed"])
def read(request, monkeypatch, tmp_path):
    """Reads the file x.tif by `read_image` and, whole or in parts, by `open_source`."""
    if request.param == "streamed":
        pytest.importorskip("zarr")
        monkeypatch.setattr(tiff, "DECODED_WHOLE", 0)

    def check(expected, choice=ALL, name="x.tif"):
        np.testing.assert_array_equal(read_image(tmp_path / name, choice), expected)
        with open_source(tmp_path / name, choice) as source:
            assert source.size == expected.shape[:2]
            np.testing.assert_array_equal(source.read(5, 7, 11, 13), expected[5:16, 7:20])
            np.testing.assert_array_equal(source.read(0, 0, *source.size), expected)

    return check


def refuse(path, message, choice=ALL):
    for open_it in (read_image, open_source):
        with pytest.raises(DataError, match=message):
            open_it(path, choice)


WITHOUT_RANGE = ["float16", "float32", "float64", "int8", "int16", "int32", "uint32", "uint64"]


@pytest.mark.parametrize("dtype", WITHOUT_RANGE)
@pytest.mark.parametrize("order", ["<", ">"])
def test_types_without_range(tmp_path, rng, read, dtype, order):
    values = rng.normal(50, 9, SIZE).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", values, byteorder=order)
    read(spread(by_percentiles(values)))
    colour = rng.normal(50, [3, 6, 9], (*SIZE, 3)).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", colour, photometric="rgb", byteorder=order)
    read(by_percentiles(colour, together=True))


def test_not_a_number(tmp_path, rng, read):
    values = rng.normal(size=SIZE).astype(np.float32)
    values[3, 4], values[4, 4], values[5, 5] = np.nan, np.inf, -np.inf
    tifffile.imwrite(tmp_path / "x.tif", values)
    read(spread(by_percentiles(values)))


def write_twelve_bits(path, values):
    """Two values in three bytes; tifffile reads such files and writes none."""
    pairs = values.reshape(-1, 2).astype(int)
    packed = [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255]
    code = np.stack(packed, axis=1).astype(np.uint8).tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(code)}
    numbers = np.array([[tag, 4, 1, 0, value & 65535, value >> 16] for tag, value in tags.items()], "<u2")
    start = (8 + len(code)).to_bytes(4, "little")
    path.write_bytes(b"II*\0" + start + code + bytes([len(tags), 0]) + numbers.tobytes() + bytes(4))


def test_twelve_bits(tmp_path, rng, read):
    pytest.importorskip("imagecodecs")
    values = rng.integers(0, 1 << 12, SIZE).astype(np.uint16)
    write_twelve_bits(tmp_path / "x.tif", values)
    read(spread((values >> 4).astype(np.uint8)))


def test_zero_is_white(tmp_path, rng, read):
    values = rng.integers(0, 256, (3, *SIZE), np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="miniswhite")
    read(spread(255 - values[1]), Choice(plane=1))


@pytest.mark.parametrize("axes", ["CYX", "ZYX"])
@pytest.mark.parametrize("kind", ["plain", "imagej", "ome", "shaped"])
def test_channels_and_planes(tmp_path, rng, read, kind, axes):
    """As four kinds of programs write them; ImageJ's pages go in one stretch."""
    named = kind in ("imagej", "ome")
    options = {"imagej": {"imagej": True}, "ome": {"ome": True}, "plain": {"metadata": None}}.get(kind, {})
    options |= {"metadata": {"axes": axes}} if named else {"compression": "zlib"}
    stack = rng.integers(0, 65536, (4, *SIZE)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", stack, photometric="minisblack", **options)
    levels = (stack >> 8).astype(np.uint8)
    read(spread(levels[2]), Choice((2,)))
    read(np.moveaxis(levels[[2, 0, 1]], 0, 2), Choice((2, 0, 1)))
    if axes == "ZYX":
        read(spread(levels[3]), Choice(plane=3))
        read(spread(levels.max(0)), Choice(plane="max"))
        read(spread((np.rint(stack.mean(0)).astype(int) >> 8).astype(np.uint8)), Choice(plane="mean"))
    what = "channels" if named and axes == "CYX" else "planes"
    found = axes if named else "[QI]YX"
    refuse(tmp_path / "x.tif", rf"x\.tif: holds 4 {what} \(axes {found}, 4 x 40 x 56\); choose --")


def test_channels_without_range_are_stretched_apart(tmp_path, rng, read):
    stack = (rng.random((3, *SIZE)) * np.array([1, 10, 1000])[:, None, None]).astype(np.float32)
    tifffile.imwrite(tmp_path / "x.tif", stack, ome=True, metadata={"axes": "CYX"}, photometric="minisblack")
    read(by_percentiles(np.moveaxis(stack, 0, 2)), Choice((0, 1, 2)))
    read(spread(by_percentiles(stack[1])), Choice((1,)))


def test_planes_of_colour(tmp_path, rng, read):
    stack = rng.integers(0, 256, (5, *SIZE, 3), np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", stack, photometric="rgb")
    read(stack[4], Choice(plane=4))
    read(stack.max(0), Choice(plane="max"))
    refuse(tmp_path / "x.tif", "5 planes")


def test_several_series(tmp_path, rng, read):
    first, second = rng.integers(0, 256, SIZE, np.uint8), rng.integers(0, 256, (3, *SIZE), np.uint8)
    with tifffile.TiffWriter(tmp_path / "x.tif", ome=True) as file:
        file.write(first, metadata={"axes": "YX", "Name": "cells"})
        file.write(second, metadata={"axes": "ZYX", "Name": "deep"}, photometric="minisblack")
    read(spread(first), Choice(series=0))
    read(spread(second[2]), Choice(series=1, plane=2))
    listed = "0: 'cells', axes YX, 40 x 56, uint8, 1: 'deep', axes ZYX, 3 x 40 x 56, uint8"
    refuse(tmp_path / "x.tif", rf"2 series \({listed}\); choose one with --series N")
    refuse(tmp_path / "x.tif", "no image in a series 2; choose from 0: 'cells'", Choice(series=2))


def test_pages_of_different_sizes(tmp_path, rng, read):
    pages = [rng.integers(0, 256, (40 + n, 56), np.uint8) for n in range(3)]
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        for page in pages:
            file.write(page, metadata=None)
    read(spread(pages[1]), Choice(series=1))
    refuse(tmp_path / "x.tif", r"3 series \(0: axes YX, 40 x 56, uint8, 1: ")


@pytest.mark.parametrize("name", ["label", "Thumbnail", "macro"])
def test_labels_and_thumbnails_are_no_images(tmp_path, rng, read, name):
    image = rng.integers(0, 256, SIZE, np.uint8)
    with tifffile.TiffWriter(tmp_path / "x.tif", ome=True) as file:
        file.write(image[:20], metadata={"axes": "YX", "Name": name})
        file.write(image, metadata={"axes": "YX", "Name": "scan"})
    read(spread(image))
    refuse(tmp_path / "x.tif", "no image in a series 0; choose from 1: 'scan'", Choice(series=0))
    with tifffile.TiffWriter(tmp_path / "y.tif", ome=True) as file:
        for _ in range(2):
            file.write(image, metadata={"axes": "YX", "Name": name})
    refuse(tmp_path / "y.tif", "no image but labels and thumbnails")


def test_qptiff(tmp_path, rng, read):
    """As Akoya's scanners write it: a page a channel, a thumbnail, the smaller levels."""
    stack = rng.integers(0, 65536, (4, 256, 320)).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        options = {"metadata": None, "software": "PerkinElmer-QPI", "photometric": "minisblack"}
        for page in stack:
            file.write(page, tile=(64, 64), **options)
        file.write(np.zeros((50, 60, 3), np.uint8), **options | {"photometric": "rgb"})
        for page in stack:
            file.write(page[::2, ::2], tile=(64, 64), subfiletype=1, **options)
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        assert [series.name for series in file.series] == ["Baseline", "Thumbnail"]
    levels = (stack >> 8).astype(np.uint8)
    read(spread(levels[3]), Choice((3,)))
    read(np.moveaxis(levels[[3, 1, 0]], 0, 2), Choice((3, 1, 0)))
    refuse(tmp_path / "x.tif", r"4 channels \(axes CYX, 4 x 256 x 320\)")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("compression", "options"),
    [("jpeg2000", {"reversible": True}), ("jpegxl", {"lossless": True}), ("zstd", {}), ("lzw", {})],
)
def test_compressions(tmp_path, rng, read, dtype, compression, options):
    pytest.importorskip("imagecodecs")
    colour = rng.integers(0, np.iinfo(dtype).max + 1, (*SIZE, 3)).astype(dtype)
    options = {"compression": compression, "compressionargs": options}
    tifffile.imwrite(tmp_path / "x.tif", colour, photometric="rgb", **options)
    read((colour >> (colour.itemsize * 8 - 8)).astype(np.uint8))
    tifffile.imwrite(tmp_path / "x.tif", colour[..., 0], **options)
    read(spread((colour[..., 0] >> (colour.itemsize * 8 - 8)).astype(np.uint8)))


def test_percentiles_of_what_is_too_large_come_from_squares_of_it(tmp_path, rng, monkeypatch):
    pytest.importorskip("zarr")
    values = rng.normal(size=(400, 300)).astype(np.float32)
    tifffile.imwrite(tmp_path / "x.tif", values, tile=(64, 64))
    exact = read_image(tmp_path / "x.tif").astype(int)
    monkeypatch.setattr(tiff, "DECODED_WHOLE", 0)
    for name, value in {"_ALL": 0, "_SQUARE": 16}.items():
        monkeypatch.setattr(windows, name, value)
    with open_source(tmp_path / "x.tif") as source:
        window = source.read(100, 50, 30, 40)
        assert np.abs(window - exact[100:130, 50:90]).mean() < 3
        np.testing.assert_array_equal(source.read(100, 50, 30, 40), window)


def test_what_is_chosen_is_part_of_the_fingerprint(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((3, *SIZE), np.uint8), photometric="minisblack")
    prints = [open_source(tmp_path / "x.tif", Choice(plane=plane)).fingerprint for plane in (0, 1, "max")]
    assert len({*prints}) == 3


def test_other_files_that_a_file_names_are_not_opened(tmp_path):
    """OME-TIFF may lie in several files; a stranger's would choose which of ours are opened."""
    options = {"photometric": "minisblack", "ome": True, "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(tmp_path / "other.tif", np.full((2, *SIZE), 7, np.uint8), **options)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        with tifffile.TiffFile(tmp_path / "other.tif") as other:
            xml = other.ome_metadata
        there = '<UUID FileName="other.tif">urn:uuid:00000000-0000-0000-0000-000000000001</UUID>'
        xml = xml.replace("/>\n</Pixels>", "/></Pixels>").replace(
            '<TiffData IFD="0" PlaneCount="2"/>',
            f'<TiffData IFD="0" FirstZ="0" PlaneCount="2">{there}</TiffData>',
        )
        assert there in xml
        file.write(np.zeros(SIZE, np.uint8), description=xml, metadata=None)
    assert not read_image(tmp_path / "x.tif").any()
