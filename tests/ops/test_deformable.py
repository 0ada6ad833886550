"""Deformable convolution against one tap at a time; without offsets it is a convolution."""

import jax
import numpy as np
import pytest

from maskrcnn_jax.models.convolution import convolve
from maskrcnn_jax.ops.deformable import deformable_conv


def read(x, row, column):
    """Bilinear in float64, zeros outside."""
    value, top, left = np.zeros(x.shape[2]), int(np.floor(row)), int(np.floor(column))
    for y, share_y in ((top, top + 1 - row), (top + 1, row - top)):
        for at, share_x in ((left, left + 1 - column), (left + 1, column - left)):
            if 0 <= y < x.shape[0] and 0 <= at < x.shape[1]:
                value += share_y * share_x * x[y, at]
    return value


def slowly(x, kernel, offsets, weights, stride, dilation, groups):
    """A place, a tap and a group at a time."""
    height, width = offsets.shape[:2]
    inputs, outputs = x.shape[2] // groups, kernel.shape[3] // groups
    out = np.zeros((height, width, kernel.shape[3]))
    for y, at, (tap, (i, j)), g in _places(height, width, groups):
        down, across = offsets[y, at, 2 * tap : 2 * tap + 2]
        value = read(x, y * stride + (i - 1) * dilation + down, at * stride + (j - 1) * dilation + across)
        value = value[g * inputs : (g + 1) * inputs] * (1 if weights is None else weights[y, at, tap])
        part = slice(g * outputs, (g + 1) * outputs)
        out[y, at, part] += value @ kernel[i, j, :, part]
    return out


def _places(height, width, groups):
    taps = list(enumerate(np.ndindex(3, 3)))
    return [(y, at, tap, g) for y, at in np.ndindex(height, width) for tap in taps for g in range(groups)]


@pytest.mark.parametrize(("stride", "dilation", "groups", "weighted"), [(1, 1, 1, False), (2, 2, 2, True)])
def test_a_tap_at_a_time(stride, dilation, groups, weighted, rng):
    x = rng.normal(size=(6, 7, 4)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 4 // groups, 6)).astype(np.float32)
    height, width = (-(-side // stride) for side in x.shape[:2])
    offsets = rng.normal(0, 2, (height, width, 18)).astype(np.float32)
    weights = rng.random((height, width, 9)).astype(np.float32) if weighted else None
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    found = jax.jit(lambda *a: deformable_conv(*a, **options))(x, kernel, offsets, weights)
    np.testing.assert_allclose(found, slowly(x, kernel, offsets, weights, **options), atol=2e-5)
    still = deformable_conv(x, kernel, offsets * 0, **options)
    np.testing.assert_allclose(still, convolve(x[None], kernel, **options)[0], atol=2e-5)
