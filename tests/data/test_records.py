"""Layers give every mask back, records refuse what does not fit, and errors list all faults."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from maskrcnn_jax.data.records import MAX_INSTANCES, Record, encode_layers
from maskrcnn_jax.errors import DataError, Fault
from maskrcnn_jax.masks.crops import Crop

SIZE = (9, 7)
overlapping_masks = st.lists(arrays.arrays(bool, SIZE).filter(np.any), max_size=12)


def record_of(masks, size=SIZE):
    return Record(
        image_id=1,
        name="r",
        image=np.zeros((*size, 3), np.uint8),
        layers=encode_layers(masks, size),
        classes=np.zeros(len(masks), np.int32),
    )


@given(overlapping_masks)
def test_every_mask_comes_back_from_the_layers(masks):
    record = record_of(masks)
    assert len(record.classes) == len(masks)
    for n, mask in enumerate(masks):
        np.testing.assert_array_equal(record.mask(n), mask)


@given(overlapping_masks)
def test_boxes_are_tight(masks):
    for mask, box in zip(masks, record_of(masks).boxes, strict=True):
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert box.tolist() == [cols[0], rows[0], cols[-1] + 1, rows[-1] + 1]


@given(overlapping_masks)
def test_crops_encode_as_whole_masks_do(masks):
    crops = []
    for mask in masks:
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        crops.append(Crop(rows[0], cols[0], mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]))
    np.testing.assert_array_equal(encode_layers(crops, SIZE), encode_layers(masks, SIZE))


def test_masks_that_do_not_overlap_share_one_layer(rng):
    labels = rng.integers(0, 20, SIZE)
    assert len(encode_layers([labels == k for k in range(20)], SIZE)) == 1


def test_without_instances_there_is_one_empty_layer():
    record = record_of([])
    assert record.layers.shape == (1, *SIZE) and not record.layers.any()
    assert record.boxes.shape == (0, 4) and record.boxes.dtype == np.float32
    assert record.layer.shape == (0,)


def test_one_pixel_in_the_last_corner_has_a_box_of_area_one():
    mask = np.zeros(SIZE, bool)
    mask[-1, -1] = True
    assert record_of([mask]).boxes.tolist() == [[6, 8, 7, 9]]


def test_a_mask_outside_the_image_is_refused():
    with pytest.raises(DataError, match="mask 1: covers rows 8 to 10"):
        encode_layers([np.ones(SIZE, bool), Crop(8, 0, np.ones((2, 2), bool))], SIZE)


def test_more_masks_than_uint16_can_name_are_refused():
    with pytest.raises(DataError, match="at most 65535 fit"):
        encode_layers([Crop(0, 0, np.ones((1, 1), bool))] * (MAX_INSTANCES + 1), (1, 1))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image", np.zeros((4, 4), np.uint8), r"image is uint8 \(4, 4\)"),
        ("image", np.zeros((4, 4, 3), np.float32), "image is float32"),
        ("layers", np.zeros((1, 4, 5), np.uint16), r"layers are uint16 \(1, 4, 5\)"),
        ("layers", np.zeros((0, 4, 4), np.uint16), "L at least 1"),
        ("layers", np.full((1, 4, 4), 3, np.uint16), "hold instance 3, classes 2"),
        ("layers", np.ones((1, 4, 4), np.uint16), "instance 1 has no pixels"),
        ("layers", np.stack([np.ones((4, 4)), np.eye(4) + 1]).astype(np.uint16), "instance 0 is in several"),
        ("classes", np.zeros(2, np.int64), "classes are int64"),
        ("classes", np.array([0, -1], np.int32), "one class from 0"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(field, value, message):
    layers = np.zeros((1, 4, 4), np.uint16)
    layers[0, 0, :2] = 1, 2
    fields = {"image": np.zeros((4, 4, 3), np.uint8), "layers": layers, "classes": np.zeros(2, np.int32)}
    with pytest.raises(DataError, match=message):
        Record(image_id=1, name="r", **fields | {field: value})


def test_a_data_error_prints_and_keeps_all_faults():
    faults = [Fault("a.png", "is empty", "delete it"), Fault("b.png", "is gone", "restore it")]
    error = DataError(faults)
    assert error.faults == faults
    assert str(error).splitlines() == [
        "2 faults in the data:",
        "  a.png: is empty; delete it",
        "  b.png: is gone; restore it",
    ]
