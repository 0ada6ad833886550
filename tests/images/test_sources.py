"""Windows of every kind of file are those of the array that was written; damage names its file."""

import builtins
import itertools

import numpy as np
import pytest
import tifffile
from PIL import Image

from maskrcnn_jax.errors import DataError
from maskrcnn_jax.images import tiff, windows
from maskrcnn_jax.images.intensity import stretch_grey
from maskrcnn_jax.images.sources import open_source

WINDOWS = [(0, 0, 300, 200), (37, 101, 150, 90), (299, 199, 1, 1), (64, 128, 64, 64)]


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (300, 200, 3), np.uint8)


@pytest.fixture
def streamed(monkeypatch):
    """Files of whatever size are read in parts."""
    pytest.importorskip("zarr")
    monkeypatch.setattr(tiff, "DECODED_WHOLE", 0)


def assert_windows(image, expected):
    with open_source(image) as source:
        assert source.size == expected.shape[:2]
        for top, left, height, width in WINDOWS:
            window = source.read(top, left, height, width)
            assert window.dtype == np.uint8
            np.testing.assert_array_equal(window, expected[top : top + height, left : left + width])


def test_arrays(pixels):
    grey = pixels[..., 0]
    spread = np.repeat(grey[..., None], 3, axis=2)
    assert_windows(pixels, pixels)
    assert_windows(np.dstack([pixels, grey]), pixels)
    for image in (grey, grey[..., None], grey.astype(np.uint16) * 256 + 255):
        assert_windows(image, spread)
    with pytest.raises(ValueError, match=r"this image cannot be read: .*float64"):
        open_source(pixels / 255)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_image_files_need_nothing_else(tmp_path, monkeypatch, pixels, suffix):
    Image.fromarray(pixels).save(tmp_path / f"image.{suffix}")
    forbid(monkeypatch, "zarr", "openslide")
    assert_windows(tmp_path / f"image.{suffix}", pixels)
    assert_windows(str(tmp_path / f"image.{suffix}"), pixels)


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (64, 48)},
        {"tile": (64, 64), "compression": "zlib", "predictor": True},
        {"rowsperstrip": 17, "compression": "lzma"},
        {"rowsperstrip": 300},
        {"tile": (64, 64), "bigtiff": True},
    ],
)
def test_tiff_in_parts(tmp_path, streamed, pixels, options):
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb", **options)
    assert_windows(tmp_path / "x.tif", pixels)


def test_grey_deep_alpha_and_planar_tiff(tmp_path, streamed, pixels):
    path, tile = tmp_path / "x.tiff", {"tile": (64, 64)}
    spread = np.repeat(pixels[..., :1], 3, axis=2)
    tifffile.imwrite(path, pixels[..., 0], **tile)
    assert_windows(path, spread)
    tifffile.imwrite(path, pixels[..., 0].astype(np.uint16) * 256 + 7, **tile)
    assert_windows(path, spread)
    tifffile.imwrite(path, np.moveaxis(pixels, 2, 0), photometric="rgb", planarconfig="separate", **tile)
    assert_windows(path, pixels)
    tifffile.imwrite(path, np.dstack([pixels, pixels[..., :1]]), photometric="rgb", extrasamples=[2], **tile)
    assert_windows(path, pixels)


@pytest.mark.parametrize("subifds", [False, True])
def test_finest_level_of_a_pyramid(tmp_path, pixels, subifds):
    """As sub-images of the first, or one after the other."""
    pytest.importorskip("zarr")
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        options = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
        file.write(pixels, subifds=int(subifds), **options)
        file.write(pixels[::2, ::2], subfiletype=1, **options)
    assert_windows(tmp_path / "x.tif", pixels)


def test_tiles_that_a_scanner_left_out_are_glass(tmp_path, streamed, pixels):
    whole = np.pad(pixels, ((0, 20), (0, 56), (0, 0)))
    places = itertools.product(range(0, 300, 64), range(0, 200, 64))
    tiles = [None if x == 64 <= y < 192 else whole[y : y + 64, x : x + 64] for y, x in places]
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(iter(tiles), shape=pixels.shape, dtype=np.uint8, tile=(64, 64), photometric="rgb")
    expected = pixels.copy()
    expected[64:192, 64:128] = 255
    assert_windows(tmp_path / "x.tif", expected)


def test_only_the_tiles_of_a_window_are_decoded(tmp_path, streamed, pixels):
    """The rest of the file is damaged, and nobody notices."""
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), compression="zlib")
    code = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        places = list(zip(file.pages[0].dataoffsets, file.pages[0].databytecounts, strict=True))
    for offset, length in places[1:]:
        code[offset : offset + length] = bytes(length)
    path.write_bytes(code)
    with open_source(path) as source:
        np.testing.assert_array_equal(source.read(0, 0, 64, 64), pixels[:64, :64])
        with pytest.raises(DataError, match=r"x.tif: cannot be read"):
            source.read(0, 0, 65, 64)


@pytest.mark.parametrize("suffix", [".tif", ".svs"])
def test_slides(tmp_path, streamed, pixels, suffix):
    """JPEG inside, as scanners write it; OpenSlide and tifffile must see what Pillow sees."""
    pytest.importorskip("openslide")
    pytest.importorskip("imagecodecs")
    smooth = np.asarray(Image.fromarray(pixels[::20, ::20]).resize((200, 300)))
    path = tmp_path / f"x{suffix}"
    tifffile.imwrite(path, smooth, photometric="rgb", tile=(64, 64), compression="jpeg")
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    with open_source(path) as source:
        assert source.size == (300, 200) and type(source).__name__.startswith(
            f"_{'Tiff' if suffix == '.tif' else 'Slide'}"
        )
        for top, left, height, width in WINDOWS:
            window = source.read(top, left, height, width)
            assert window.shape == (height, width, 3) and window.dtype == np.uint8
            assert np.abs(window - expected[top : top + height, left : left + width]).max() <= 2


@pytest.mark.parametrize("suffix", [".tif", ".svs", ".png"])
def test_files_that_are_none(tmp_path, suffix):
    if suffix == ".svs":
        pytest.importorskip("openslide")
    for name, content in (("empty", b""), ("text", b"no image at all" * 9), ("missing", None)):
        path = tmp_path / f"{name}{suffix}"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}{suffix}: cannot be read"):
            open_source(path)


@pytest.mark.parametrize(
    "array, options, words",
    [
        (np.zeros((9, 8, 8), np.uint8), {"photometric": "minisblack"}, "9 planes .axes QYX, 9 x 8 x 8"),
        (
            np.zeros((2, 80, 80), np.uint8),
            {"planarconfig": "separate", "photometric": "minisblack"},
            "2 channels .axes SYX, 2 x 80 x 80",
        ),
        (np.zeros((80, 80), np.complex64), {}, "complex64.*plain numbers"),
        (np.zeros((80, 80, 3), np.uint8), {"photometric": "cielab"}, "CIELAB.*save it as one grey or RGB"),
    ],
)
def test_other_tiff_is_refused(tmp_path, streamed, array, options, words):
    tifffile.imwrite(tmp_path / "x.tif", array, tile=(16, 16), **options)
    with pytest.raises(DataError, match=f"x.tif: .*{words}"):
        open_source(tmp_path / "x.tif")


@pytest.mark.parametrize("package, suffix", [("zarr", ".tif"), ("openslide", ".svs")])
def test_missing_packages_are_named(tmp_path, monkeypatch, pixels, package, suffix):
    path = tmp_path / f"x{suffix}"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64))
    monkeypatch.setattr(tiff, "DECODED_WHOLE", 0)
    forbid(monkeypatch, package)
    with pytest.raises(DataError, match=rf"x{suffix}: needs {package}.*pip install 'maskrcnn-jax\[slides\]'"):
        open_source(path)


@pytest.mark.parametrize("window", [(-1, 0, 5, 5), (0, 0, 301, 5), (0, 196, 5, 5), (5, 5, 0, 5)])
def test_windows_beyond_the_image_are_refused(pixels, window):
    with pytest.raises(ValueError, match="are not inside an image of 300 x 200 pixels"):
        open_source(pixels).read(*window)


def test_fingerprints_tell_images_apart_wherever_they_lie(tmp_path, streamed, pixels):
    def fingerprint(name, array):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / name, array, photometric="rgb", tile=(64, 64))
        with open_source(tmp_path / name) as source:
            return source.fingerprint

    changed = pixels.copy()
    changed[150, 100, 1] ^= 1
    assert fingerprint("a.tif", pixels) == fingerprint("other/b.tif", pixels) != fingerprint("c.tif", changed)
    one, other, wide = (
        open_source(array).fingerprint for array in (pixels, changed, pixels.reshape(200, 300, 3))
    )
    assert one == open_source(pixels.copy()).fingerprint and len({one, other, wide}) == 3


def forbid(monkeypatch, *packages):
    """Makes packages look as if they were not installed."""
    really = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] in packages:
            raise ImportError(f"No module named {name!r}")
        return really(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "large.tif"])
def test_grey_is_stretched_over_the_whole_image_at_its_depth(tmp_path, monkeypatch, rng, name):
    """One half is dim: windows of it do not become as bright as the other. 12 bits lie in 16."""
    deep = rng.integers(100, 4000, (300, 200)).astype(np.uint16)
    deep[:150] //= 10
    if name == "x.png":
        Image.fromarray(deep).save(tmp_path / name)
    else:
        tifffile.imwrite(tmp_path / name, deep, tile=(64, 64))
    if name == "large.tif":
        pytest.importorskip("zarr")
        monkeypatch.setattr(tiff, "is_small", lambda file: False)
        monkeypatch.setattr("maskrcnn_jax.images.sources.is_small", lambda file: False)
        monkeypatch.setattr(tiff, "DECODED_WHOLE", 0)
    expected = np.repeat(stretch_grey(deep)[..., None], 3, axis=2)
    with open_source(tmp_path / name) as source:
        stretched = source.stretched()
        assert stretched.size == source.size and stretched.fingerprint != source.fingerprint
        for top, left, height, width in WINDOWS:
            window = stretched.read(top, left, height, width)
            np.testing.assert_array_equal(window, expected[top : top + height, left : left + width])


def test_colour_is_not_stretched(pixels):
    source = open_source(pixels)
    assert source.stretched() is source


def test_limits_of_a_huge_grey_image_are_those_of_squares(rng, monkeypatch):
    """No window is large, and what lies between the squares counts for nothing."""
    monkeypatch.setattr(windows, "_ALL", 1 << 10)
    monkeypatch.setattr(windows, "_SQUARE", 16)
    image = np.zeros((800, 700), np.uint8)
    seen = windows.sample_windows(image.shape)
    assert len(seen) == 256 and {window[2:] for window in seen} == {(16, 16)}
    for top, left, height, width in seen:
        image[top : top + height, left : left + width] = rng.integers(50, 101, (16, 16))
    stretched = open_source(image).stretched()
    window = stretched.read(*seen[17])
    assert window.min() == 0 and window.max() >= 250
    assert seen[-1][0] + 16 == 800 and seen[-1][1] + 16 == 700


def test_bands_cover_an_image_once(monkeypatch):
    monkeypatch.setattr(windows, "_BAND", 50)
    bands = windows.sample_windows((17, 10))
    assert bands == [(0, 0, 5, 10), (5, 0, 5, 10), (10, 0, 5, 10), (15, 0, 2, 10)]
    assert windows.sample_windows((2, 99)) == [(0, 0, 1, 99), (1, 0, 1, 99)]
