"""Levels of every type against closed forms, percentiles against sorting."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskrcnn_jax.images.levels import Levels, has_range, percentiles, tell_once


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 8, 10, 12, 14, 16])
def test_all_values_of_a_type_with_range(bits):
    values = np.arange(1 << bits).astype(np.uint8 if bits <= 8 else np.uint16)[None]
    levels = Levels(bits=bits)(values)[0].astype(int)
    assert levels[0] == 0 and levels[-1] == 255 and (np.diff(levels) >= 0).all()
    if bits == 8:
        np.testing.assert_array_equal(levels, values[0])
    if bits == 16:
        np.testing.assert_array_equal(levels, values[0] // 256)
    np.testing.assert_array_equal(Levels(bits=bits, inverted=True)(values)[0], 255 - levels)


def test_bool():
    np.testing.assert_array_equal(Levels(bits=1)(np.array([[False, True]])), [[0, 255]])


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint32, np.int64, np.float16, np.float32])
def test_types_without_range_span_their_percentiles(rng, dtype):
    assert not has_range(np.dtype(dtype))
    values = rng.normal(40, 10, (100, 100)).astype(dtype)
    ends = percentiles(values, together=False)
    ordered = np.sort(values.ravel().astype(float))
    assert ordered[99] <= ends[0, 0] <= ordered[101] and ordered[9978] <= ends[0, 1] <= ordered[9981]
    levels = Levels(ends=ends)(values)
    assert levels.dtype == np.uint8 and levels.min() == 0 and levels.max() == 255
    order = np.argsort(values.ravel(), kind="stable")
    assert (np.diff(levels.ravel()[order].astype(int)) >= 0).all()


def test_scale_and_offset_do_not_matter(rng):
    """A camera's gain and offset change nothing."""
    values = rng.normal(size=(30, 40))
    expected = Levels(ends=percentiles(values, together=False))(values).astype(int)
    scaled = values * 1e-6 + 3
    found = Levels(ends=percentiles(scaled, together=False))(scaled)
    assert np.abs(found - expected).max() <= 1


def test_channels_apart_and_colours_together(rng):
    values = rng.random((20, 30, 3)) * [1, 10, 100]
    assert percentiles(values, together=True).shape == (1, 2)
    levels = Levels(ends=percentiles(values, together=False))(values)
    for c in range(3):
        alone = values[..., c]
        np.testing.assert_array_equal(levels[..., c], Levels(ends=percentiles(alone, together=False))(alone))


@given(arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_any_floats(values):
    """NaN, infinity, denormal and huge values, and images of one value."""
    levels = Levels(ends=percentiles(values, together=False))(values)
    assert levels.dtype == np.uint8 and levels.shape == values.shape
    assert (levels[np.isnan(values)] == 0).all()


def test_it_is_told_once(caplog):
    tell_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            tell_once(np.dtype(np.float32))
    assert len(caplog.records) == 1 and "images of float32: the type has no range" in caplog.text
