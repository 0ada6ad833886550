"""RoIAlign in all its forms: against one sample at a time, against Detectron2, and at its edges."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_jax.ops import roi_products
from maskrcnn_jax.ops.roi_align import bin_weights, roi_align, sample_counts

# XYXY pixels, for maps of about 12 x 16 cells of 8 pixels: ordinary, tiny, long, without area, partly and
# wholly outside, larger than the map.
BOXES = np.array(
    [
        [16.0, 8.0, 96.0, 72.0],
        [3.3, 5.1, 9.4, 6.2],
        [40.5, 1.0, 43.5, 95.0],
        [50.0, 50.0, 50.0, 50.0],
        [60.0, 20.0, 60.0, 70.0],
        [-30.0, -20.0, 25.0, 30.0],
        [100.0, 70.0, 150.0, 120.0],
        [-100.0, -90.0, 260.0, 230.0],
        [300.0, 300.0, 340.0, 350.0],
        [-90.0, 10.0, -50.0, 40.0],
        [124.0, 92.0, 132.0, 100.0],
        [0.0, 0.0, 128.0, 96.0],
    ],
    np.float32,
)


def bilinear(feature, y, x):
    """One sample: zero beyond one cell outside, else that of the nearest point of the map."""
    height, width, _ = feature.shape
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(feature.shape[2])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = y - top, x - left
    upper = feature[top, left] * (1 - fx) + feature[top, right] * fx
    lower = feature[bottom, left] * (1 - fx) + feature[bottom, right] * fx
    return upper * (1 - fy) + lower * fy


def slow_roi_align(feature, boxes, stride, bins, samples):
    """A box, a bin and a sample at a time."""
    out = np.zeros((len(boxes), bins, bins, feature.shape[2]))
    for r, (x0, y0, x1, y1) in enumerate(boxes.astype(np.float64) / stride - 0.5):
        bin_height, bin_width = (y1 - y0) / bins, (x1 - x0) / bins
        rows = samples or max(int(np.ceil(bin_height)), 0)
        cols = samples or max(int(np.ceil(bin_width)), 0)
        for i, j in np.ndindex(bins, bins):
            for a, b in np.ndindex(rows, cols):
                y = y0 + (i + (a + 0.5) / rows) * bin_height
                x = x0 + (j + (b + 0.5) / cols) * bin_width
                out[r, i, j] += bilinear(feature, y, x) / (rows * cols)
    return out


STRIDES, BINS = (8, 16, 32), 4
SHAPES = [(12 >> v, 16 >> v) for v in range(3)]
ON_ALL_LEVELS = np.arange(len(BOXES), dtype=np.int32) % 3


@functools.cache
def compiled(form, samples, strides=STRIDES, bins=BINS, gradient=True):
    """RoIAlign, and its gradient. The tests share shapes, so that each form is compiled only a few times."""

    def forward(levels, boxes, level, extents):
        return roi_align(
            levels, boxes, strides=strides, bins=bins, samples=samples, level=level, extents=extents
        )

    def both(levels, boxes, level, extents, upstream):
        out, pull = jax.vjp(lambda levels: forward(levels, boxes, level, extents), levels)
        return out, pull(upstream.astype(out.dtype))[0]

    return jax.jit(both if gradient else forward)


def align(form, levels, boxes=BOXES, *, level=ON_ALL_LEVELS, extents=SHAPES, upstream=None, samples=0):
    """The output, and the gradient of each level for an upstream gradient (by default of ones)."""
    if upstream is None:
        upstream = np.ones((len(boxes), BINS, BINS, levels[0].shape[-1]), np.float32)
    return compiled(form, samples)(levels, boxes, level, np.array(extents, np.int32), upstream)


@pytest.fixture
def pyramid(rng):
    """Three levels whose sides halve."""
    return [rng.normal(size=(*shape, 3)).astype(np.float32) for shape in SHAPES]


@pytest.mark.parametrize("samples", [0, 2])
def test_equals_single_samples_of_each_box_level(form, pyramid, samples):
    out, _ = align(form, pyramid, samples=samples)
    for v, stride in enumerate(STRIDES):
        here = v == ON_ALL_LEVELS
        expected = slow_roi_align(pyramid[v], BOXES[here], stride, BINS, samples)
        np.testing.assert_allclose(out[here], expected, atol=2e-5)


@pytest.mark.parametrize("samples", [0, 2])
def test_the_gradient_is_the_transpose(form, pyramid, rng, samples):
    """RoIAlign A is linear in the features: <A f, g> = <f, A' g> for any f and g."""
    upstream = rng.normal(size=(len(BOXES), BINS, BINS, 3)).astype(np.float32)
    out, back = align(form, pyramid, upstream=upstream, samples=samples)
    left = np.vdot(np.asarray(out, np.float64), upstream)
    right = sum(np.vdot(np.asarray(b, np.float64), f) for b, f in zip(back, pyramid, strict=True))
    np.testing.assert_allclose(left, right, rtol=1e-5)


@pytest.mark.parametrize("samples", [0, 2])
def test_vmap_of_all_forms_gives_the_same(pyramid, rng, monkeypatch, samples):
    """Under `vmap`, as the model calls them, with images of different sizes; and no gradient is lost."""
    levels = [np.stack([f, 2 * f]) for f in pyramid]
    extents = np.array([[[10, 13], [6, 8], [3, 3]], [[12, 16], [5, 6], [2, 4]]], np.int32)
    upstream = rng.normal(size=(2, len(BOXES), BINS, BINS, 3)).astype(np.float32)
    results = []
    for form in ("cpu", "cuda", "default"):

        def choose(*args, default, form=form, **branches):
            return branches.get(form, default)(*args)

        monkeypatch.setattr(jax.lax, "platform_dependent", choose)
        batched = jax.jit(jax.vmap(compiled.__wrapped__(form, samples), in_axes=(0, None, None, 0, 0)))
        results.append(batched(levels, BOXES, ON_ALL_LEVELS, extents, upstream))
    for other in results[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), results[0], other)
    for i in range(2):
        inputs = {"extents": extents[i], "upstream": upstream[i], "samples": samples}
        one = align(form, [f[i] for f in levels], **inputs)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a, b[i], atol=1e-5), one, results[0])


def test_the_padding_is_not_read(form, pyramid):
    """Values beyond `extents` change nothing: the result is that of the cropped level."""
    extents = [(9, 11), (6, 5), (1, 4)]
    filled = [np.full_like(f, 1e6) for f in pyramid]
    for big, f, (height, width) in zip(filled, pyramid, extents, strict=True):
        big[:height, :width] = f[:height, :width]
    out, back = align(form, filled, extents=extents)
    for v, (height, width) in enumerate(extents):
        here = v == ON_ALL_LEVELS
        expected = slow_roi_align(pyramid[v][:height, :width], BOXES[here], STRIDES[v], BINS, 0)
        np.testing.assert_allclose(out[here], expected, atol=2e-5)
        gradient = np.array(back[v])
        gradient[:height, :width] = 0
        assert not gradient.any()


@pytest.mark.parametrize("samples", [0, 2])
def test_a_plane_is_exact(form, pyramid, rng, samples):
    """Bilinear sampling reproduces a plane: every bin holds the plane at the bin's centre."""
    y, x = np.mgrid[:12, :16].astype(np.float32) + 0.5
    plane = np.stack([2 * x + 3 * y, 5 - x, np.full_like(x, 7)], axis=-1)
    corner = rng.uniform(4, [60, 40], BOXES[:, :2].shape)
    boxes = np.concatenate([corner, corner + rng.uniform(1, 50, corner.shape)], axis=1).astype(np.float32)
    out, _ = align(form, [plane, *pyramid[1:]], boxes, level=np.zeros_like(ON_ALL_LEVELS), samples=samples)
    shares = (np.arange(BINS) + 0.5) / BINS
    x, y = ((boxes[:, a, None] + (boxes[:, a + 2] - boxes[:, a])[:, None] * shares) / 8 for a in (0, 1))
    x, y = np.broadcast_arrays(x[:, None, :], y[:, :, None])
    expected = np.stack([2 * x + 3 * y, 5 - x, np.full_like(x, 7)], axis=-1)
    np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("samples", [0, 2])
def test_boxes_outside_are_zero_with_zero_gradient(form, pyramid, samples):
    far = np.array([[900, 900, 950, 950], [-99, 0, -60, 30], [9, 800, 30, 900]] * 4, np.float32)
    out, back = align(form, pyramid, far, samples=samples)
    assert not out.any() and not any(gradient.any() for gradient in back)


def test_samples_exactly_one_cell_outside_count(form, pyramid):
    """Whole numbers of cells in 7 bins: 1/7 is no binary number, and the rounded sums end beside -1."""
    low = np.arange(-12, 3)[:, None]
    high = low + 7 * np.arange(1, 5)
    low, high = (np.broadcast_arrays(low, high)[i].ravel() for i in (0, 1))
    boxes = np.stack([8 * low, 8 * low, 8 * high, 8 * high], axis=1).astype(np.float32)
    inputs = (pyramid[:1], boxes, np.zeros(len(boxes), np.int32), np.array(SHAPES[:1], np.int32))
    out = compiled(form, 0, (8,), 7, gradient=False)(*inputs)
    np.testing.assert_allclose(out, slow_roi_align(pyramid[0], boxes, 8, 7, 0), atol=2e-5)


@pytest.mark.parametrize("samples", [0, 2])
def test_padding_boxes_are_finite(form, pyramid, samples):
    """Empty, inverted and absurdly large boxes: padded RoIs must never make a NaN."""
    odd = np.array([[0, 0, 0, 0], [20, 20, 10, 10], [5, 5, 5, 60], [-4e3, -4e3, 4e3, 4e3]] * 3, np.float32)
    out, back = align(form, pyramid, odd, samples=samples)
    assert np.isfinite(out).all() and all(np.isfinite(gradient).all() for gradient in back)


@pytest.mark.parametrize("count", [0, 1])
def test_no_box_and_one_box(form, pyramid, count):
    out, back = align(form, pyramid, BOXES[:count], level=ON_ALL_LEVELS[:count])
    expected = slow_roi_align(pyramid[0], BOXES[:count], 8, BINS, 0)
    np.testing.assert_allclose(out, expected, atol=2e-5)
    assert [gradient.shape for gradient in back] == [f.shape for f in pyramid]
    assert back[0].any() == bool(count) and not back[1].any()


def test_bfloat16_in_and_out(form, pyramid):
    out, back = align(form, [f.astype(jnp.bfloat16) for f in pyramid])
    assert out.dtype == jnp.bfloat16 and {gradient.dtype for gradient in back} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(out.astype(np.float32), align(form, pyramid)[0], atol=0.05)


def test_no_gradient_flows_to_the_boxes(pyramid):
    def total(boxes):
        return roi_align(pyramid[:1], boxes, strides=[8], bins=3, samples=2).sum()

    assert not jax.jit(jax.grad(total))(BOXES).any()


@pytest.mark.parametrize(("bins", "step"), [(14, 2), (5, 3)])
def test_step_keeps_every_so_many_bins(rng, bins, step):
    feature = rng.normal(size=(12, 16, 2)).astype(np.float32)

    @jax.jit
    def both(feature):
        kinds = (roi_align([feature], BOXES, strides=[8], bins=bins, samples=1, step=s) for s in (1, step))
        return tuple(kinds)

    every, some = both(feature)
    np.testing.assert_allclose(some, every[:, ::step, ::step], atol=1e-6)


@pytest.mark.parametrize("bins", [4, 7])
def test_products_over_a_flat_map_and_in_bands_are_the_same(rng, monkeypatch, bins):
    """A small map of one level is multiplied at once, a large one in bands of rows."""
    feature = rng.normal(size=(13, 21, 3)).astype(np.float32)
    rows, cols = (rng.uniform(size=(5, bins, side)).astype(np.float32) for side in (13, 21))
    upstream = rng.normal(size=(5, bins, bins, 3)).astype(np.float32)

    def both(feature):
        level = np.zeros(5, np.int32)
        out, pull = jax.vjp(lambda f: roi_products.pool_products([f], rows, cols, level), feature)
        return out, pull(upstream)[0]

    flat = jax.jit(both)(feature)
    monkeypatch.setattr(roi_products, "_FLAT_CELLS", 0)
    bands = jax.jit(lambda feature: both(feature))(feature)
    exact = np.einsum("rph,rqw,hwc->rpqc", rows, cols, feature)
    np.testing.assert_allclose(flat[0], exact, rtol=1e-4, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), flat, bands)


@functools.cache
def compiled_weights():
    return jax.jit(functools.partial(bin_weights, cells=10, bins=7, samples=0, step=2))


@given(low=st.floats(-0.9, 8.5), size=st.floats(0.0, 8.0), count=st.integers(1, 5))
@settings(deadline=None)
def test_weights_are_an_average(low, size, count):
    """Inside the map each bin's weights sum to one, sit within the box, and none is negative."""
    high = min(low + size, 9.0)
    ends = (np.array([v], np.float32) for v in (low, high, count))
    weights = np.asarray(compiled_weights()(*ends, np.array([10], np.int32)))[0]
    assert weights.shape == (4, 10) and (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)
    used = np.flatnonzero(weights.any(axis=0))
    assert used[0] >= np.floor(low - 1e-4) and used[-1] <= np.ceil(high + 1e-4)


@pytest.mark.parametrize("bins", [1, 3, 7, 14, 28, 49])
def test_the_number_of_samples_is_exact(bins):
    """Whole multiples of the bins, where a rounded quotient would give one sample too many."""
    sides = np.concatenate([np.arange(0, 3000), np.arange(0, 60, 0.25), [-4, 1e-3, 20.999998, 21.000002]])
    counts = jax.jit(functools.partial(sample_counts, bins=bins))(sides.astype(np.float32))
    exact = np.ceil(sides.astype(np.float32).astype(np.float64) / bins)
    np.testing.assert_array_equal(counts, np.maximum(exact, 0))


def of_detectron2(data, i):
    """Image i of the golden file, and all boxes: those of the other image are ignored."""
    feature = data["feat"][i].transpose(1, 2, 0)
    boxes, here = data["rois"][:, 1:], data["rois"][:, 0] == i
    return [feature], boxes, np.zeros(len(boxes), np.int32), np.array([feature.shape[:2]], np.int32), here


def test_equals_detectron2(form, golden):
    """Every square output of the golden file, whatever its size, scale and number of samples."""
    data = golden("comp_roi_align")
    names = [re.fullmatch(r"out_(\d+)x(\d+)_s(\d+)_r(\d+)", name) for name in data.files]
    square = [name for name in names if name and name[1] == name[2]]
    assert square
    for name in square:
        bins, _, stride, samples = map(int, name.groups())
        for i in range(len(data["feat"])):
            *inputs, here = of_detectron2(data, i)
            out = compiled(form, samples, (stride,), bins, gradient=False)(*inputs)
            expected = data[name.string].transpose(0, 2, 3, 1)
            np.testing.assert_allclose(out[here], expected[here], atol=2e-5, err_msg=name.string)


def test_the_gradient_equals_detectron2s(form, golden):
    data = golden("comp_roi_align")
    for i in range(len(data["feat"])):
        *inputs, here = of_detectron2(data, i)
        upstream = np.where(here[:, None, None, None], data["grad_up"].transpose(0, 2, 3, 1), 0)
        _, (back,) = compiled(form, 0, (16,), upstream.shape[1])(*inputs, upstream)
        np.testing.assert_allclose(back.transpose(2, 0, 1), data["grad_feat"][i], atol=2e-5)


@pytest.mark.parametrize("samples", [0, 2])
def test_unaligned_is_half_a_cell_off_and_a_cell_long_at_least(pyramid, samples):
    """So it was first written (Detectron2's `ROIAlign`, torchvision): the aligned one of other boxes."""
    ends = np.maximum(BOXES[:, 2:], BOXES[:, :2] + STRIDES[0])
    boxes = np.concatenate([BOXES[:, :2], ends], axis=1) + STRIDES[0] / 2
    expected = slow_roi_align(pyramid[0], boxes, STRIDES[0], BINS, samples)
    out = roi_align(pyramid[:1], BOXES, strides=STRIDES[:1], bins=BINS, samples=samples, aligned=False)
    np.testing.assert_allclose(out, expected, atol=1e-4)
