"""Images of 16 bits are trained on as they are predicted: stretched before they lose their low byte."""

import numpy as np
import pytest
import tifffile

from maskrcnn_jax.data.datasets import load_split
from maskrcnn_jax.experiment import DataConfig
from maskrcnn_jax.images.intensity import stretch_grey
from maskrcnn_jax.images.sources import open_source


@pytest.fixture
def camera(rng, tmp_path):
    """A camera's 12 bits in 16, dim: the high byte has four levels. With a label image beside it."""
    levels = rng.integers(100, 1000, (40, 50)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", levels)
    tifffile.imwrite(tmp_path / "a_masks.tif", np.eye(40, 50, dtype=np.uint16))
    return levels


def image(folder, augment, **fields):
    config = DataConfig(format="labels", path=str(folder), augment=augment, **fields)
    (record,) = load_split(config, "train")
    return record.image


@pytest.mark.parametrize("prepared", [False, True])
def test_with_the_op_all_bits_count(camera, tmp_path, prepared):
    fields = {"prepared": str(tmp_path / "shards")} if prepared else {}
    found = image(tmp_path, ({"op": "stretch_grey"},), **fields)
    # The darkest and the brightest pixels of the camera end at 0 and 255, the others between in proportion.
    low, high = np.percentile(camera, [1, 99.8])
    expected = np.clip((camera - low) / (high - low) * 255, 0, 255)
    assert np.abs(found - expected[..., None]).max() <= 1 and len(np.unique(found)) > 200
    with open_source(tmp_path / "a.tif") as source:  # as a model with `stretch_grey` sees it in tiles
        np.testing.assert_array_equal(found, source.stretched().read(0, 0, *source.size))
    # A model that stretches what it is shown in an evaluation changes nothing any more.
    np.testing.assert_array_equal(stretch_grey(found), found)


def test_without_it_the_high_byte_counts(camera, tmp_path):
    np.testing.assert_array_equal(image(tmp_path, ())[..., 0], camera >> 8)


def test_colours_and_8_bits_are_read_as_ever(rng, tmp_path):
    for number, levels in enumerate((rng.integers(0, 60_000, (9, 9, 3)), rng.integers(3, 90, (9, 9)))):
        folder = tmp_path / str(number)
        folder.mkdir()
        tifffile.imwrite(folder / "a.tif", levels.astype(np.uint8 if number else np.uint16))
        tifffile.imwrite(folder / "a_masks.tif", np.eye(9, dtype=np.uint16))
        plain, stretched = (image(folder, augment) for augment in ((), ({"op": "stretch_grey"},)))
        np.testing.assert_array_equal(plain, stretched)
