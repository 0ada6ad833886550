"""NMS against one that takes a box at a time, against torchvision's, and at its edges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.ops.nms import nms

FORMS = pytest.mark.parametrize("form", ["cpu", "cuda"], indirect=True)


def random_boxes(rng, count, size=100.0):
    corner = rng.uniform(0, size, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(2, 30, (count, 2))], axis=1).astype(np.float32)


def greedy_nms(boxes, threshold, groups=None):
    """One box at a time, as the textbook says it."""
    groups = np.zeros(len(boxes)) if groups is None else groups
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept = []
    for i, box in enumerate(boxes):
        low = np.maximum(box[:2], boxes[kept, :2])
        high = np.minimum(box[2:], boxes[kept, 2:])
        overlap = np.prod(np.maximum(high - low, 0), axis=1)
        iou = overlap / (area[i] + area[kept] - overlap)
        if not np.any((iou > threshold) & (groups[kept] == groups[i])):
            kept.append(i)
    return kept


def real(kept, count):
    """The result without its padding, which must stand at the end."""
    kept = np.asarray(kept)
    total = int((kept < count).sum())
    assert (kept[total:] == count).all()
    return kept[:total].tolist()


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 1000])
@pytest.mark.parametrize("grouped", [False, True])
def test_equals_greedy(rng, count, grouped):
    boxes = random_boxes(rng, count)
    groups = rng.integers(0, 3, count) if grouped else None
    suppress = jax.jit(functools.partial(nms, iou_threshold=0.3, max_kept=count))
    kept = suppress(boxes, np.ones(count, bool), groups=groups)
    assert real(kept, count) == greedy_nms(boxes, 0.3, groups)


@FORMS
@pytest.mark.parametrize("count", [3, 2500])
def test_blocks_of_all_sizes_equal_greedy(form, rng, count):
    """A GPU takes larger blocks than a CPU: fewer boxes than a block, and several blocks of them."""
    boxes, groups = random_boxes(rng, count, 300.0), rng.integers(0, 3, count)
    valid = rng.random(count) < 0.9
    kept = jax.jit(lambda *a: nms(*a[:2], iou_threshold=0.3, max_kept=count, groups=a[2]))
    expected = np.flatnonzero(valid)[greedy_nms(boxes[valid], 0.3, groups[valid])]
    assert real(kept(boxes, valid, groups), count) == expected.tolist()


@FORMS
def test_a_chain_longer_than_a_block(form):
    """Each box suppresses its neighbour only: every second one survives, and each hangs on the one before."""
    left = np.arange(1100, dtype=np.float32)
    boxes = np.stack([left, np.zeros(1100), left + 2.5, np.ones(1100)], axis=1).astype(np.float32)
    kept = nms(boxes, jnp.ones(1100, bool), iou_threshold=0.4, max_kept=1100)
    assert real(kept, 1100) == list(range(0, 1100, 2))


@FORMS
def test_stops_at_max_kept(form, rng):
    boxes = random_boxes(rng, 700, size=1000.0)
    kept = nms(boxes, jnp.ones(700, bool), iou_threshold=0.5, max_kept=40)
    assert real(kept, 700) == greedy_nms(boxes, 0.5)[:40]


def test_padding_is_neither_kept_nor_suppresses():
    boxes = jnp.tile(jnp.array([[0.0, 0.0, 9.0, 9.0]]), (3, 1))
    kept = nms(boxes, jnp.array([False, True, True]), iou_threshold=0.5, max_kept=3)
    assert kept.tolist() == [1, 3, 3]


@pytest.mark.parametrize("count", [0, 5, 256])
def test_nothing_valid_gives_only_padding(count):
    kept = nms(jnp.ones((count, 4)), jnp.zeros(count, bool), iou_threshold=0.5, max_kept=4)
    assert kept.tolist() == [count] * 4


def test_result_is_longer_than_the_input():
    kept = nms(jnp.array([[0.0, 0.0, 1.0, 1.0]]), jnp.array([True]), iou_threshold=0.5, max_kept=3)
    assert kept.tolist() == [0, 1, 1]


@FORMS
def test_vmap_equals_a_loop(form, rng):
    """Images that need different numbers of blocks do not disturb each other."""
    boxes = np.stack([random_boxes(rng, 600, size) for size in (20.0, 100.0, 1000.0)])
    valid = np.arange(600)[None] < np.array([0, 130, 600])[:, None]
    groups = rng.integers(0, 2, (3, 600))
    one = functools.partial(nms, iou_threshold=0.5, max_kept=200)
    batched = jax.jit(jax.vmap(lambda b, v, g: one(b, v, groups=g)))(boxes, valid, groups)
    for i in range(3):
        np.testing.assert_array_equal(batched[i], one(boxes[i], valid[i], groups=groups[i]))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_keeps_what_torchvision_keeps(golden, threshold):
    data = golden("comp_nms")
    order = np.argsort(-data["scores"])
    kept = nms(data["boxes"][order], np.ones(300, bool), iou_threshold=threshold, max_kept=300)
    assert order[real(kept, 300)].tolist() == data[f"keep_{threshold}"].tolist()


@pytest.mark.parametrize("name", ["small", "large"])
def test_keeps_what_torchvision_keeps_by_group(golden, name):
    data = golden("comp_nms")
    boxes, scores, groups = (data[f"{name}_{field}"] for field in ("boxes", "scores", "groups"))
    order, count = np.argsort(-scores), len(scores)
    kept = nms(
        boxes[order],
        np.ones(count, bool),
        iou_threshold=0.5,
        max_kept=count,
        groups=groups[order].astype(np.int32),
    )
    assert order[real(kept, count)].tolist() == data[f"{name}_keep_0.5"].tolist()
