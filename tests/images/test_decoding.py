"""Image and label files of every kind become the same arrays, and whatever is none is named."""

import contextlib
import os
import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image

from maskrcnn_jax.errors import DataError
from maskrcnn_jax.images.decoding import decode_image, read_image, read_labels

SIZE = (12, 16)


def test_images_of_other_kinds_become_rgb(tmp_path, rng):
    colour = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    grey = colour[..., 0]
    rgba = np.concatenate([colour, rng.integers(0, 256, (*SIZE, 1), np.uint8)], axis=2)
    spread = np.repeat(grey[..., None], 3, axis=2)
    palette = Image.fromarray(grey % 7)
    palette.putpalette(list(range(100, 121)))
    cases = {
        "rgb.png": (Image.fromarray(colour), colour),
        "rgb.tif": (Image.fromarray(colour), colour),
        "rgba.png": (Image.fromarray(rgba), colour),
        "grey.png": (Image.fromarray(grey), spread),
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 256 + 255 - grey), spread),
        "deep.tif": (Image.fromarray(grey.astype(np.uint16) * 257), spread),
        "palette.png": (palette.convert("P"), 100 + 3 * (grey % 7)[..., None] + np.arange(3, dtype=np.uint8)),
        "binary.png": (Image.fromarray(grey > 99), np.where(spread > 99, 255, 0)),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / name)
        out = read_image(tmp_path / name)
        assert out.dtype == np.uint8, name
        np.testing.assert_array_equal(out, expected, err_msg=name)


def test_images_of_several_pages_are_refused(tmp_path):
    grey = Image.fromarray(np.zeros(SIZE, np.uint8))
    grey.save(tmp_path / "stack.tif", save_all=True, append_images=[grey])
    with pytest.raises(DataError, match=r"stack.tif: holds 2 planes \(axes IYX, 2 x 12 x 16\); choose"):
        read_image(tmp_path / "stack.tif")
    grey.save(tmp_path / "stack.png", save_all=True, append_images=[grey.point(lambda value: 255 - value)])
    with pytest.raises(DataError, match=r"stack.png: cannot be read: it holds 2 pages"):
        read_image(tmp_path / "stack.png")
    with pytest.raises(DataError, match=r"gone.png: cannot be read"):
        read_image(tmp_path / "gone.png")


def test_only_regular_files_are_opened(tmp_path):
    for name in ("pipe.png", "pipe.tif", "pipe.npy"):
        os.mkfifo(tmp_path / name)
    for read, name in ((read_image, "pipe.png"), (read_image, "pipe.tif"), (read_labels, "pipe.npy")):
        with pytest.raises(DataError, match=rf"{name}: cannot be read: it is a named pipe"):
            read(tmp_path / name)
    with pytest.raises(DataError, match=r"/dev/zero: cannot be read: it is a device"):
        read_image("/dev/zero")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_photographs_are_turned_upright(tmp_path, suffix):
    """Orientation 6: the camera was held so that the stored rows are the columns from the right."""
    stored = np.zeros((8, 16), np.uint8)
    stored[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / f"a.{suffix}", exif=exif)
    upright = read_image(tmp_path / f"a.{suffix}")
    assert upright.shape == (16, 8, 3)
    np.testing.assert_allclose(upright[..., 0], np.rot90(stored, -1), atol=8)


def test_deep_and_planar_colour_tiffs(tmp_path, rng):
    colour = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    deep = colour.astype(np.uint16) * 256 + 7
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb")
    tifffile.imwrite(tmp_path / "squeezed.tif", deep, photometric="rgb", compression="zlib")
    tifffile.imwrite(
        tmp_path / "planar.tif", np.moveaxis(colour, 2, 0), photometric="rgb", planarconfig="separate"
    )
    for name in ("deep.tif", "squeezed.tif", "planar.tif"):
        np.testing.assert_array_equal(read_image(tmp_path / name), colour, err_msg=name)


def test_an_empty_file_and_odd_channels_are_named(tmp_path):
    for name in ("empty.png", "empty.tif"):
        (tmp_path / name).touch()
        with pytest.raises(DataError, match=rf"{name}: cannot be read: it has zero bytes"):
            read_image(tmp_path / name)
    tifffile.imwrite(tmp_path / "five.tif", np.zeros((*SIZE, 5), np.uint16), planarconfig="contig")
    with pytest.raises(DataError, match=r"five.tif: holds 5 channels .*choose --channel N"):
        read_image(tmp_path / "five.tif")


def test_bytes_decode_as_the_file_does(tmp_path, rng):
    pixels = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    np.testing.assert_array_equal(
        decode_image((tmp_path / "a.jpg").read_bytes()), read_image(tmp_path / "a.jpg")
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.int64])
def test_labels_of_every_width(tmp_path, rng, dtype):
    top = min(int(np.iinfo(dtype).max), 100_000)
    labels = rng.integers(0, top + 1, SIZE).astype(dtype)
    np.save(tmp_path / "a.npy", labels)
    tifffile.imwrite(tmp_path / "a.tif", labels)
    tifffile.imwrite(tmp_path / "squeezed.tif", labels, compression="zlib")
    names = ["a.npy", "a.tif", "squeezed.tif"]
    if np.dtype(dtype).itemsize < 4:
        Image.fromarray(labels).save(tmp_path / "a.png")
        Image.fromarray(labels).save(tmp_path / "lzw.tif", compression="tiff_lzw")
        names += ["a.png", "lzw.tif"]
    for name in names:
        np.testing.assert_array_equal(read_labels(tmp_path / name), labels, err_msg=name)


def test_whole_floats_and_an_axis_of_one_are_labels(tmp_path, rng):
    labels = rng.integers(0, 70_000, SIZE)
    for kind in (np.float32, np.float64):
        tifffile.imwrite(tmp_path / "a.tif", labels.astype(kind))
        found = read_labels(tmp_path / "a.tif")
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, labels)
    for array in (labels[None], labels[..., None]):
        np.save(tmp_path / "a.npy", array)
        np.testing.assert_array_equal(read_labels(tmp_path / "a.npy"), labels)


def test_what_only_calls_itself_npy_is_never_opened(tmp_path):
    np.savez(tmp_path / "a.npz", np.zeros(SIZE))
    (tmp_path / "a.npz").rename(tmp_path / "archive.npy")
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps({"masks": 1}))
    for name in ("archive.npy", "pickle.npy"):
        with pytest.raises(DataError, match="it is no array; a pickle is never opened"):
            read_labels(tmp_path / name)


@pytest.mark.filterwarnings("ignore")  # some damage is warned of before it is an error
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "zip.tif", "deep.tif", "a.npy"])
def test_no_damage_escapes_as_another_error(tmp_path, rng, name):
    """Files with wrong or missing bytes are read somehow, or named: nothing else is raised."""
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, rng.integers(0, 9, SIZE))
    elif name.endswith("tif"):
        pixels = rng.integers(0, 9, (*SIZE, 3)[: 3 if name == "deep.tif" else 2]).astype(np.uint16)
        tifffile.imwrite(path, pixels, compression="zlib", photometric="rgb" if pixels.ndim == 3 else None)
    else:
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    for trial in range(60):
        content = bytearray(whole)
        if trial % 3 == 0:
            del content[rng.integers(len(content)) :]
        for place in rng.integers(len(content) or 1, size=4 if content else 0):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        for read in (read_image, read_labels):
            with contextlib.suppress(DataError):
                read(path)


def test_a_palette_gives_its_indices(tmp_path, rng):
    labels = rng.integers(0, 9, SIZE).astype(np.uint8)
    image = Image.fromarray(labels, "L").convert("P")
    image.putdata(labels.ravel().tolist())
    image.putpalette(rng.integers(0, 256, 27, np.uint8).tolist())
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full(SIZE, 0.5, np.float32), r"no label image: float32 of shape \(12, 16\)"),
        (np.full(SIZE, np.nan), r"no label image: float64 of shape \(12, 16\)"),
        (np.full(SIZE, 1e30), r"no label image: float64 of shape \(12, 16\)"),
        (np.zeros((2, *SIZE), np.uint8), r"no label image: uint8 of shape \(2, 12, 16\)"),
        (np.zeros((*SIZE, 3), np.uint8), r"no label image: uint8 of shape \(12, 16, 3\)"),
        (np.full(SIZE, -2, np.int16), "holds the label -2"),
        (np.array([{}], object), r"cannot be read: Object arrays cannot be loaded .*save it as a 16-bit PNG"),
    ],
)
def test_what_is_no_label_image_is_refused(tmp_path, labels, message):
    np.save(tmp_path / "a.npy", labels)
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / "a.npy")


def test_a_stack_of_labels_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, *SIZE), np.uint16), photometric="minisblack")
    with pytest.raises(DataError, match="it holds 4 pages"):
        read_labels(tmp_path / "a.tif")
