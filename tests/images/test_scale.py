"""What files say of a pixel's length, as their programs write it; windows of the level next above."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from maskrcnn_jax.images import scale
from maskrcnn_jax.images.sources import open_source

PIXELS = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48).astype(np.uint8)


@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}}, 0.25),
        (
            {
                "ome": True,
                "metadata": {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25},
            },
            0.25,
        ),
        ({"ome": True, "metadata": {}}, None),
        ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "um"}}, 0.5),
        ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "micron"}}, 0.5),
        ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "inch"}}, None),
        ({"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER", "metadata": None}, 0.5),
        ({"resolution": (50_800, 50_800), "resolutionunit": "INCH", "metadata": None}, 0.5),
        ({"resolution": (300, 300), "resolutionunit": "INCH", "metadata": None}, None),
        ({"description": "Aperio Image Library |AppMag = 40|MPP = 0.2520", "metadata": None}, 0.252),
        ({"metadata": None}, None),
    ],
)
def test_what_a_tiff_says(tmp_path, options, mpp):
    tifffile.imwrite(tmp_path / "x.tif", PIXELS, **options)
    with open_source(tmp_path / "x.tif") as source:
        assert source.mpp == (mpp if mpp is None else pytest.approx(mpp))


def test_other_files_say_nothing(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "x.png", dpi=(96, 96))
    assert open_source(tmp_path / "x.png").mpp is None and open_source(PIXELS).mpp is None


def test_what_openslide_says():
    assert scale.of_slide({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.27"}) == pytest.approx(0.26)
    for wrong in ({}, {"openslide.mpp-x": "0.25"}, {f"openslide.mpp-{axis}": "zero" for axis in "xy"}):
        assert scale.of_slide(wrong) is None


@pytest.mark.parametrize("form", ["tiff", "grey"])
def test_the_level_next_above(tmp_path, rng, form):
    """Windows of levels 1, 2 and 4 times smaller; those between pixels are resampled."""
    pytest.importorskip("zarr")
    smooth = Image.fromarray(rng.integers(0, 256, (10, 9, 3), np.uint8)).resize(
        (252, 300), Image.Resampling.BICUBIC
    )
    smooth = smooth.convert("L") if form == "grey" else smooth
    levels = [np.asarray(smooth.reduce(factor)) for factor in (1, 2, 4)]
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        for n, level in enumerate(levels):
            file.write(level, tile=(64, 64), metadata=None, subfiletype=int(n > 0))
    with open_source(tmp_path / "x.tif") as source:
        assert [size[0] for size in source.levels] == [300, 150, 75]
        for most, level in ((1, 0), (1.9, 0), (2, 1), (3.5, 1), (4, 2), (99, 2)):
            factor = 2**level
            window = source.read_reduced(96, 64, 128, 160, most)
            expected = levels[level][96 // factor : 224 // factor, 64 // factor : 224 // factor]
            np.testing.assert_array_equal(window[..., 1], expected if form == "grey" else expected[..., 1])
        between = source.read_reduced(97, 65, 128, 160, 4)
        assert between.shape == (32, 40, 3)
        exact = source.read(97, 65, 128, 160).reshape(32, 4, 40, 4, 3).mean(axis=(1, 3))
        assert np.abs(between - exact).mean() < 4
        if form == "grey":
            stretched = source.stretched()
            assert stretched.levels == source.levels
            assert stretched.read_reduced(96, 64, 128, 160, 4).shape == (32, 40, 3)
        with pytest.raises(ValueError, match="are not inside an image"):
            source.read_reduced(200, 0, 101, 10, 4)
