"""The RPN: the order of its outputs, proposals against a slow selection, samples and losses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.config import RPNConfig
from maskrcnn_jax.models import rpn
from maskrcnn_jax.ops.boxes import clip, decode, encode, pairwise_iou
from maskrcnn_jax.ops.sampling import Sample

CONFIG = RPNConfig(
    anchor_sizes=((8, 16), (16, 32)),
    anchor_ratios=(0.5, 1.0, 2.0),
    channels=4,
    samples=16,
    pre_nms=(25, 10_000),
    post_nms=(12, 60),
)
SHAPES, STRIDES = ((5, 6), (3, 3)), (8, 16)
SIZE = np.array([37, 44], np.int32)


@pytest.fixture(scope="module")
def anchors():
    return rpn.make_anchors(CONFIG, SHAPES, STRIDES)


@pytest.fixture
def outputs(anchors, rng):
    """Logits and deltas of every anchor."""
    count = len(anchors.boxes)
    return rng.normal(size=count).astype(np.float32), rng.normal(0, 0.4, (count, 4)).astype(np.float32)


def test_outputs_are_in_the_order_of_the_anchors(rng):
    """Level, row, column, anchor: every anchor has its own bias, every cell its own activation."""
    levels = [np.abs(rng.normal(size=(2, *shape, 1))).astype(np.float32) for shape in SHAPES]
    centre = np.zeros((3, 3, 1, 4), np.float32)
    centre[1, 1, 0, 0] = 1  # The first hidden channel is the cell itself.
    first = np.zeros((1, 1, 4, 1), np.float32)
    first[0, 0, 0] = 1
    biases = np.arange(6, dtype=np.float32) * 100
    params = {
        "conv": {"kernel": centre, "bias": np.zeros(4, np.float32)},
        "objectness": {"kernel": first.repeat(6, axis=3), "bias": biases},
        "deltas": {"kernel": first.repeat(24, axis=3), "bias": np.arange(24, dtype=np.float32) * 100},
    }
    extents = [jnp.array([shape] * 2, jnp.int32) for shape in SHAPES]
    logits, deltas = rpn.RPNHead(CONFIG).apply({"params": params}, levels, extents)
    cells = np.concatenate([level.reshape(2, -1, 1) for level in levels], axis=1)
    np.testing.assert_allclose(logits, (cells + biases).reshape(2, -1), rtol=1e-5)
    expected = cells[..., None] + 100 * np.arange(24).reshape(6, 4)
    np.testing.assert_allclose(deltas, expected.reshape(2, -1, 4), rtol=1e-5)


def test_objectness_has_as_many_values_as_anchors_in_bfloat16_too(rng):
    """Were the last layer rounded to 8 bits, a thousand anchors would share every value near the top."""
    level = rng.normal(size=(1, 30, 40, 8)).astype(np.float32)
    inputs = [jnp.asarray(level, jnp.bfloat16)], [jnp.array([[30, 40]], jnp.int32)]
    head = rpn.RPNHead(dataclasses.replace(CONFIG, channels=None), jnp.bfloat16)
    logits, deltas = jax.jit(lambda key: head.init_with_output(key, *inputs)[0])(jax.random.key(0))
    for values in (logits, deltas):
        assert values.dtype == jnp.float32
        assert len(np.unique(values)) > 0.95 * values.size
        assert len(np.unique(values.astype(jnp.bfloat16))) < 0.5 * values.size


def test_anchors_and_their_validity(anchors):
    assert anchors.count == (5 * 6 * 6, 3 * 3 * 6)
    extents = [jnp.array([4, 2], jnp.int32), jnp.array([2, 1], jnp.int32)]
    valid = np.asarray(rpn.valid_anchors(CONFIG, SHAPES, extents))
    centre = (anchors.boxes[:, :2] + anchors.boxes[:, 2:]) / 2
    first = np.arange(len(valid)) < anchors.count[0]
    limit = np.where(first[:, None], [[2 * 8, 4 * 8]], [[1 * 16, 2 * 16]])
    np.testing.assert_array_equal(valid, (np.asarray(centre) < limit).all(axis=1))


@functools.cache
def compiled(config, training):
    def run(logits, deltas, valid, size):
        anchors = rpn.make_anchors(config, SHAPES, STRIDES)
        return rpn.propose(config, logits, deltas, anchors, valid, size, training=training)

    return jax.jit(run)


def propose(logits, deltas, valid=None, size=SIZE, *, training=False, config=CONFIG):
    valid = np.ones(len(logits), bool) if valid is None else valid
    return jax.device_get(compiled(config, training)(logits, deltas, valid, size))


def slow_proposals(iou, anchors, logits, deltas, valid, *, training):
    """The best of each level, greedily, one box at a time."""
    before, after = (
        (CONFIG.pre_nms[0], CONFIG.post_nms[0]) if training else (CONFIG.pre_nms[1], CONFIG.post_nms[1])
    )
    boxes = np.asarray(clip(decode(deltas, anchors.boxes, CONFIG.box_weights), SIZE))
    found, start = [], 0
    for count in anchors.count:
        usable = [i for i in range(start, start + count) if valid[i]]
        best, kept = sorted(usable, key=lambda i: -logits[i])[:before], []
        for i in (i for i in best if (boxes[i, 2:] > boxes[i, :2]).all()):
            if not kept or iou(boxes[kept], boxes[i]).max() <= CONFIG.nms_iou:
                kept.append(i)
        found += kept
        start += count
    found = sorted(found, key=lambda i: -logits[i])[:after]
    return boxes[found], logits[found]


@pytest.mark.parametrize("training", [True, False])
def test_proposals_equal_a_slow_selection(iou, anchors, outputs, rng, training):
    """In training few candidates and few places; in test more places asked for than there are anchors."""
    valid = rng.random(len(outputs[0])) < 0.8
    found = propose(*outputs, valid, training=training)
    boxes, logits = slow_proposals(iou, anchors, *outputs, valid, training=training)
    count = found.valid.sum()
    assert found.valid[:count].all() and count == len(boxes)
    np.testing.assert_array_equal(found.logits[:count], logits)
    np.testing.assert_allclose(found.boxes[:count], boxes, atol=1e-4)
    assert len(found.valid) == CONFIG.post_nms[0 if training else 1]
    assert not found.boxes[count:].any() and np.isneginf(found.logits[count:]).all()


def test_proposals_stay_inside_the_image_and_are_best_first(outputs):
    found = propose(*outputs)
    boxes = found.boxes[found.valid]
    assert (boxes >= 0).all() and (boxes <= SIZE[[1, 0, 1, 0]]).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    assert (np.diff(found.logits[found.valid]) <= 0).all()


def test_boxes_without_area_are_no_proposals(outputs, anchors):
    """Every box is moved out of the image."""
    away = np.zeros_like(outputs[1])
    away[:, 0] = 50
    assert not propose(outputs[0], away).valid.any()


def test_levels_do_not_suppress_each_other(outputs, anchors):
    """The same two boxes on both levels: one of each level remains."""
    place = [0, 1, anchors.count[0], anchors.count[0] + 1]
    boxes = np.asarray(anchors.boxes)
    deltas = outputs[1].copy()
    deltas[place] = encode(np.array([[4, 4, 30, 30]] * 4, np.float32), boxes[place], CONFIG.box_weights)
    found = propose(outputs[0], deltas, np.isin(np.arange(len(boxes)), place))
    assert found.valid.sum() == 2
    np.testing.assert_allclose(found.boxes[:2], [[4, 4, 30, 30]] * 2, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_without_a_valid_anchor_there_is_no_proposal(outputs, training):
    found = propose(*outputs, np.zeros(len(outputs[0]), bool), training=training)
    assert not found.valid.any() and not found.boxes.any() and np.isneginf(found.logits).all()


def test_an_image_of_one_pixel(outputs):
    found = propose(*outputs, size=np.array([1, 1], np.int32))
    assert np.isfinite(found.boxes).all() and (found.boxes <= 1).all()


@functools.cache
def compiled_losses():
    def run(logits, deltas, valid, boxes, boxes_valid, key):
        anchors = rpn.make_anchors(CONFIG, SHAPES, STRIDES)
        drawn, matched = rpn.sample_anchors(CONFIG, anchors, valid, boxes, boxes_valid, key)
        losses = rpn.rpn_losses(CONFIG, logits, deltas, anchors, boxes, drawn, matched)
        return drawn, matched, {name: term.mean for name, term in losses.items()}

    return jax.jit(run)


BOXES = np.array([[2, 3, 12, 11], [20, 10, 36, 30], [0, 0, 0, 0]], np.float32)
BOXES_VALID = np.array([True, True, False])


def sample_and_lose(outputs, valid, boxes_valid=BOXES_VALID, key=0):
    return jax.device_get(compiled_losses()(*outputs, valid, BOXES, boxes_valid, jax.random.key(key)))


def test_samples_are_of_valid_anchors_and_truths(anchors, outputs, rng):
    """Positives overlap a true box well, or best of all; negatives overlap none much; padding is neither."""
    valid = rng.random(len(outputs[0])) < 0.7
    drawn, matched, _ = sample_and_lose(outputs, valid)
    assert drawn.valid.all() and valid[drawn.index].all() and (matched < 2).all()
    iou = np.asarray(pairwise_iou(BOXES[:2], anchors.boxes))
    best_of_box = (iou == iou.max(axis=1, keepdims=True)).any(axis=0)
    positive = (iou.max(axis=0) >= CONFIG.positive_iou) | best_of_box
    np.testing.assert_array_equal(positive[drawn.index], drawn.positive)
    negatives = drawn.index[~drawn.positive]
    assert (iou.max(axis=0)[negatives] < CONFIG.negative_iou).all()
    assert len(set(drawn.index.tolist())) == len(drawn.index) == CONFIG.samples
    assert drawn.positive.sum() == min((positive & valid).sum(), CONFIG.samples // 2)


def test_no_background_is_drawn_from_a_crowd(anchors, outputs):
    """The second box is a crowd: no truth, and anchors that lie in it are left out, whatever is drawn."""
    crowd, truths = np.array([False, True, False]), np.array([True, False, False])
    draw = jax.jit(functools.partial(rpn.sample_anchors, CONFIG))
    everywhere = np.ones(len(outputs[0]), bool)
    x0, y0, x1, y1 = np.asarray(anchors.boxes).T
    width = np.clip(np.minimum(x1, BOXES[1, 2]) - np.maximum(x0, BOXES[1, 0]), 0, None)
    height = np.clip(np.minimum(y1, BOXES[1, 3]) - np.maximum(y0, BOXES[1, 1]), 0, None)
    inside = width * height > 0.7 * (x1 - x0) * (y1 - y0)
    assert inside.sum() > 5
    seen = {True: [], False: []}
    for key in range(30):
        for known in seen:
            regions = crowd if known else np.zeros(3, bool)
            drawn, _ = draw(anchors, everywhere, BOXES, truths, jax.random.key(key), regions)
            assert drawn.valid.all()
            seen[known] += np.asarray(drawn.index)[~np.asarray(drawn.positive)].tolist()
    assert not inside[seen[True]].any() and inside[seen[False]].any()


def test_without_ground_truth_all_samples_are_negative(outputs):
    drawn, _, losses = sample_and_lose(outputs, np.ones(len(outputs[0]), bool), np.zeros(3, bool))
    assert drawn.valid.all() and not drawn.positive.any()
    assert losses["loss_rpn_loc"] == 0 and np.isfinite(losses["loss_rpn_cls"]) and losses["loss_rpn_cls"] > 0


def test_without_valid_anchors_the_losses_are_zero(outputs):
    drawn, _, losses = sample_and_lose(outputs, np.zeros(len(outputs[0]), bool))
    assert not drawn.valid.any() and losses == {"loss_rpn_cls": 0, "loss_rpn_loc": 0}


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_losses_are_these_sums(anchors, outputs, rng, beta):
    """Both divided by the number of samples that the config asks for, though fewer were drawn."""
    logits, deltas = outputs
    index = rng.permutation(len(logits))[:10].astype(np.int32)
    drawn = Sample(index, np.arange(10) < 4, np.arange(10) < 8)
    matched = rng.integers(0, 2, len(logits)).astype(np.int32)
    config = dataclasses.replace(CONFIG, smooth_l1_beta=beta)
    losses = rpn.rpn_losses(config, logits, deltas, anchors, jnp.asarray(BOXES), drawn, matched)
    entropy = np.log1p(np.exp(np.where(drawn.positive, -1, 1) * logits[index]))
    targets = encode(BOXES[matched[index]], np.asarray(anchors.boxes)[index], config.box_weights)
    apart = np.abs(deltas[index] - targets)
    if beta:
        apart = np.where(apart < beta, apart**2 / (2 * beta), apart - beta / 2)
    np.testing.assert_allclose(losses["loss_rpn_cls"].mean, entropy[:8].sum() / CONFIG.samples, rtol=1e-5)
    np.testing.assert_allclose(losses["loss_rpn_loc"].mean, apart[:4].sum() / CONFIG.samples, rtol=1e-5)


def test_small_proposals_are_dropped(anchors, outputs):
    valid = jnp.ones(len(anchors.boxes), bool)
    least = 12.0
    config = dataclasses.replace(
        CONFIG, min_size=least, nms_iou=1.0, pre_nms=(10_000,) * 2, post_nms=(10_000,) * 2
    )
    found = jax.jit(lambda *a: rpn.propose(config, *a, anchors, valid, SIZE, training=False))(*outputs)
    boxes = clip(decode(outputs[1], anchors.boxes, config.box_weights), SIZE)
    large = np.all(np.asarray(boxes[:, 2:] - boxes[:, :2]) > least, axis=1)
    assert 0 < large.sum() < len(large)
    np.testing.assert_allclose(np.sort(found.logits[found.valid]), np.sort(outputs[0][large]))


def test_sums_are_divided_by_what_was_drawn_and_weighted(anchors, outputs):
    """torchvision divides by the anchors that were drawn; Detectron2 weighs the two losses."""
    truth = np.array([[5, 5, 25, 25]], np.float32)
    drawn = Sample(np.array([3, 8, 0]), np.array([True, False, False]), np.array([True, True, False]))
    matched = np.zeros(len(anchors.boxes), np.int32)
    plain = rpn.rpn_losses(CONFIG, *outputs, anchors, truth, drawn, matched)
    assert {float(term.count) for term in plain.values()} == {CONFIG.samples}
    config = dataclasses.replace(CONFIG, loss_count="drawn", loss_weights=(3.0, 5.0))
    other = rpn.rpn_losses(config, *outputs, anchors, truth, drawn, matched)
    assert {float(term.count) for term in other.values()} == {2}
    for name, weight in (("loss_rpn_cls", 3), ("loss_rpn_loc", 5)):
        np.testing.assert_allclose(other[name].total, weight * plain[name].total, rtol=1e-6)


def test_anchors_may_share_out_the_content():
    """Eleven cells of 16 pixels are six of 32: 176 // 6 = 29 pixels down, and 192 // 6 = 32 across."""
    extents = [np.array([11, 12]), np.array([6, 6])]
    strides = [np.asarray(stride).tolist() for stride in rpn.content_spacing((16, 32), extents)]
    assert strides == [[16, 16], [29, 32]]
