"""Drawn records are reproducible, lawful, varied, and their masks lie on the drawn edges."""

import numpy as np
import pytest

from maskrcnn_jax.data.synthetic import draw_records


@pytest.fixture(scope="module")
def records():
    return draw_records(6, seed=0, size=128, nuclei=(12, 25))


def test_a_record_depends_on_seed_and_index_alone(records):
    again = draw_records(3, seed=0, size=128, nuclei=(12, 25))
    for a, b in zip(records, again, strict=False):
        assert (a.image_id, a.name) == (b.image_id, b.name)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.layers, b.layers)
    other = draw_records(1, seed=1, size=128, nuclei=(12, 25))[0]
    assert not np.array_equal(other.image, records[0].image)


def test_counts_and_sizes_keep_to_their_ranges(records):
    assert [r.image_id for r in records] == [1, 2, 3, 4, 5, 6]
    assert all(12 <= len(r.classes) <= 25 and r.size == (128, 128) for r in records)
    assert len({len(r.classes) for r in records}) > 1
    for record in draw_records(3, seed=0, size=400, nuclei=(20, 20), diameters=(20, 24)):
        inside = (record.boxes[:, :2] > 0).all(1) & (record.boxes[:, 2:] < 400).all(1)
        areas = np.array([record.mask(n).sum() for n in range(len(record.classes))])[inside]
        diameters = 2 * np.sqrt(areas / np.pi)
        assert diameters.min() > 18.5 and diameters.max() < 25.5


def test_some_nuclei_overlap_and_most_do_not(records):
    assert any(len(r.layers) > 1 for r in records)
    shared_pixels = sum(((r.layers > 0).sum(axis=0) > 1).sum() for r in records)
    assert 0 < shared_pixels < 0.1 * sum((r.layers > 0).sum() for r in records)


def test_no_nuclei_and_one_nucleus_can_be_drawn():
    assert len(draw_records(1, seed=0, size=64, nuclei=(0, 0))[0].classes) == 0
    (one,) = draw_records(1, seed=0, size=64, nuclei=(1, 1))
    assert len(one.classes) == 1 and one.mask(0).any()


def test_nuclei_are_darker_than_what_is_around_them(records):
    for record in records:
        nuclei = (record.layers > 0).any(axis=0)
        assert record.image[nuclei].mean() < record.image[~nuclei].mean() - 40


def test_masks_lie_on_the_drawn_edge():
    """The step in brightness, over all outlines, is steepest between the masks' last pixel and the next."""
    steps = np.zeros(6)
    for record in draw_records(4, seed=3, size=192, nuclei=(6, 6), diameters=(24, 30)):
        red = record.image[..., 0].astype(float)
        layer = (record.layers > 0).any(axis=0)
        entries = np.argwhere(~layer[:, :-1] & layer[:, 1:])  # column of the last pixel outside, per row
        for row, col in entries:
            if (
                3 <= col < 192 - 4
                and not layer[row, col - 3 : col].any()
                and layer[row, col + 1 : col + 4].all()
            ):
                steps += red[row, col - 3 : col + 3] - red[row, col - 2 : col + 4]
    assert steps.argmax() == 3  # between `col` and `col` + 1, where the mask begins
    assert steps[2:5].sum() > 0.8 * steps.sum()
