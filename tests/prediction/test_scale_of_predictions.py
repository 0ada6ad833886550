"""What people are told of the scale at which the model sees their images."""

import numpy as np
import pytest

from maskrcnn_jax.images.sources import open_source
from maskrcnn_jax.prediction.scale import Scale


@pytest.fixture
def source():
    """An array, which does not say how long its pixels are."""
    return open_source(np.zeros((5, 5, 3), np.uint8))


def test_the_size_of_the_models_objects_is_told_with_its_scale(source):
    learnt = "; it has learnt objects of 21.5 px (median)"
    for objects, end in ((21.5, learnt), (None, "")):
        zoom, note = Scale(0.25, mpp=0.5, objects=objects).of(source)
        assert (zoom, note) == (2, f"0.5 µm a pixel, shown 2 times as large: the model's 0.25 µm{end}")
        zoom, note = Scale(0.25, objects=objects).of(source)
        assert zoom == 1 and note.startswith("the file has no µm a pixel") and note.endswith(end or "--mpp)")
        with pytest.raises(ValueError, match="give --zoom") as error:
            Scale(mpp=0.5, objects=objects)
        assert str(error.value).endswith(end or "enlarged for it")


def test_nothing_is_told_where_nothing_is_done(source):
    for scale in (Scale(), Scale(0.25, mpp=0.26, objects=9), Scale(0.25, zoom=2, objects=9)):
        assert scale.of(source)[1] is None
