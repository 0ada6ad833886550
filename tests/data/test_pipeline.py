"""A batch is what plain NumPy makes of the record, the order is exact, and every edge case has its place."""

import dataclasses
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from maskrcnn_jax.data.order import make_deck
from maskrcnn_jax.data.padding import REGIONS
from maskrcnn_jax.data.pipeline import batches, hide_gpus_from_tensorflow
from maskrcnn_jax.data.records import Record, encode_layers
from maskrcnn_jax.data.runs import tight_boxes
from maskrcnn_jax.data.synthetic import draw_records
from maskrcnn_jax.ops.matching import ignore_crowds

AUGMENT = (
    {"op": "random_crop", "size": 40},
    {"op": "resize_shortest_edge", "sizes": (32, 48), "longest": 64},
    {"op": "flip_horizontal"},
    {"op": "rotate90"},
)


def stream(records, *, canvas=(64, 64), batch_size=1, max_instances=10, seed=0, augment=(), **options):
    return batches(
        records,
        augment=augment,
        canvas=canvas,
        batch_size=batch_size,
        max_instances=max_instances,
        seed=seed,
        **options,
    )


def record_of(masks, size=(20, 30), name="r"):
    """A record with an own grey level for each instance, and one class each."""
    image = np.full((*size, 3), 9, np.uint8)
    for n, mask in enumerate(masks):
        image[mask] = 50 + n
    return Record(1, name, image, encode_layers(masks, size), np.arange(len(masks), dtype=np.int32))


def box_mask(top, left, bottom, right, size=(20, 30)):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture(scope="module")
def drawn():
    """Records of different sizes, with overlaps."""
    return [
        record
        for i, size in enumerate((60, 48, 64, 56, 52))
        for record in draw_records(1, seed=i, size=size, nuclei=(6, 9), diameters=(8, 18))
    ]


def assert_same(a, b):
    for name, x, y in zip(a._fields, a, b, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)


def assert_consistent(batch):
    """Every sample's rows agree with its instance map, and padding is zero."""
    for b in range(len(batch.images)):
        height, width = batch.sizes[b]
        maps = batch.instance_map[b]
        assert not maps[:, height:].any() and not maps[:, :, width:].any()
        assert not batch.images[b, height:].any() and not batch.images[b, :, width:].any()
        count = batch.valid[b].sum()
        regions = batch.crowd[b, -REGIONS:]
        assert regions.any() == (batch.cut[b] > 0) and batch.boxes[b, -REGIONS:][regions].any(axis=1).all()
        assert batch.valid[b, :count].all() and set(np.unique(maps)) <= set(range(count + 1))
        for g in range(count):
            layer, rows, cols = np.nonzero(maps == g + 1)
            assert set(layer) == {batch.layers[b, g]}
            tight = [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
            assert batch.boxes[b, g].tolist() == tight
        assert not batch.boxes[b, count:][~batch.crowd[b, count:]].any()
        assert not batch.classes[b, count:].any() and not batch.layers[b, count:].any()


def test_without_augmentation_a_batch_holds_the_record():
    masks = [box_mask(0, 0, 5, 8), box_mask(3, 6, 20, 30), box_mask(4, 7, 20, 30)]
    record = record_of(masks)
    batch = next(stream([record], canvas=(24, 32), max_instances=5))
    np.testing.assert_array_equal(batch.images[0, :20, :30], record.image)
    np.testing.assert_array_equal(batch.instance_map[0, :, :20, :30], record.layers)
    assert batch.sizes.tolist() == [[20, 30]] and batch.cut.tolist() == [0] and batch.index.tolist() == [0]
    assert batch.valid[0, :5].tolist() == [True, True, True, False, False]
    assert not batch.valid[0, 5:].any() and not batch.crowd.any()
    assert batch.boxes[0, :3].tolist() == [[0, 0, 8, 5], [6, 3, 30, 20], [7, 4, 30, 20]]
    assert batch.classes[0, :5].tolist() == [0, 1, 2, 0, 0]
    assert batch.layers[0, :5].tolist() == [0, 1, 2, 0, 0]
    assert_consistent(batch)


def test_dtypes_and_shapes_are_those_of_a_batch(drawn):
    batch = next(stream(drawn, augment=AUGMENT, batch_size=3))
    depth, rows = max(len(record.layers) for record in drawn), 10 + REGIONS
    expected = {
        "images": (np.uint8, (3, 64, 64, 3)),
        "sizes": (np.int32, (3, 2)),
        "boxes": (np.float32, (3, rows, 4)),
        "classes": (np.int32, (3, rows)),
        "valid": (np.bool_, (3, rows)),
        "crowd": (np.bool_, (3, rows)),
        "layers": (np.int32, (3, rows)),
        "instance_map": (np.uint16, (3, depth, 64, 64)),
        "index": (np.int32, (3,)),
        "cut": (np.int32, (3,)),
    }
    assert {k: (v.dtype, v.shape) for k, v in batch._asdict().items()} == expected


def test_augmented_batches_are_consistent(drawn):
    seen = list(itertools.islice(stream(drawn, augment=AUGMENT, batch_size=2, max_instances=5), 12))
    for batch in seen:
        assert_consistent(batch)
    assert any(batch.cut.any() for batch in seen) and any(not batch.valid.all() for batch in seen)
    assert any((batch.layers > 0).any() for batch in seen)


def test_instances_outside_the_crop_go_and_the_others_keep_their_order():
    """Of a row of five, a crop sees some; grey levels and classes say which."""
    record = record_of([box_mask(2, 6 * n, 8, 6 * n + 4, (10, 30)) for n in range(5)], (10, 30))
    seen = set()
    for batch in itertools.islice(stream([record], augment=[{"op": "random_crop", "size": 10}]), 20):
        assert_consistent(batch)
        visible = sorted(set(batch.images[0, 5, :10, 0].tolist()) - {9})
        classes = batch.classes[0][batch.valid[0]].tolist()
        assert classes == [level - 50 for level in visible]
        seen.add(tuple(classes))
    assert len(seen) > 3


def test_instances_past_the_limit_are_cut_from_the_end_and_counted():
    record = record_of([box_mask(0, 3 * n, 20, 3 * n + 2) for n in range(7)])
    batch = next(stream([record], max_instances=4))
    assert batch.cut.tolist() == [3] and batch.classes[0, :4].tolist() == [0, 1, 2, 3]
    assert batch.instance_map.max() == 4
    assert_consistent(batch)
    assert next(stream([record], max_instances=7)).cut.tolist() == [0]


def test_a_crowd_keeps_its_box_but_is_no_ground_truth():
    masks = [box_mask(0, 0, 5, 8), box_mask(3, 6, 20, 30), box_mask(10, 0, 14, 4)]
    record = dataclasses.replace(record_of(masks), crowd=np.array([False, True, False]))
    batch = next(stream([record], max_instances=5))
    assert batch.valid[0, :3].tolist() == [True, False, True] and batch.valid.sum() == 2
    assert batch.crowd[0, :3].tolist() == [False, True, False] and batch.crowd.sum() == 1
    assert batch.boxes[0, 1].tolist() == [6, 3, 30, 20]
    flipped = next(stream([record], max_instances=2, augment=[{"op": "random_crop", "size": 500}]))
    assert flipped.crowd[0, :2].tolist() == [False, True] and flipped.cut.tolist() == [1]
    assert flipped.crowd.sum() == 2, "the third is a region of its own"


def test_instances_past_the_limit_are_regions_to_ignore():
    """Whoever finds one of them is not told that it is background."""
    record = record_of([box_mask(5 * i, 6 * j, 5 * i + 4, 6 * j + 4) for i in range(4) for j in range(5)])
    for limit in (1, 7, 19):
        batch = next(stream([record], max_instances=limit))
        assert_consistent(batch)
        boxes, crowd = batch.boxes[0], batch.crowd[0]
        assert batch.cut[0] == 20 - limit and not crowd[:limit].any()
        np.testing.assert_array_equal(boxes[:limit], record.boxes[:limit])
        labels = ignore_crowds(np.zeros(20, np.int8), record.boxes, boxes, crowd)
        assert (np.asarray(labels)[limit:] == -1).all()
        ground = np.array([[0, 0, 4, 4]], np.float32)  # of the first instance, far from all others
        assert ignore_crowds(np.zeros(1, np.int8), ground, boxes, crowd)[0] == 0


def annotated(record, by):
    """The record with boxes that reach `by` pixels beyond the tight ones: left, up, right, down."""
    x0, y0, x1, y1 = (record.boxes + np.array([-1, -1, 1, 1]) * by).T.astype(float)
    rows = np.stack([x0, y0, x1 - x0, y1 - y0, np.full(len(x0), 5.0)], axis=1)
    return dataclasses.replace(record, annotated=rows)


def test_boxes_are_those_of_the_annotation_unless_a_crop_cut_the_instance():
    masks = [box_mask(4, 4, 12, 14), box_mask(4, 20, 12, 28), box_mask(14, 10, 19, 20)]
    plain, by = record_of(masks), np.array([0.25, 0.5, 0.125, 0.75])
    record = annotated(plain, by)
    record.annotated[2, :4] = np.nan
    crops = [{"op": "random_crop", "size": 16}, {"op": "flip_horizontal"}]
    pairs = zip(*(stream([r], augment=crops, steps=40) for r in (plain, record)), strict=True)
    seen = set()
    for tight, batch in pairs:
        for g, k in enumerate(batch.classes[0][batch.valid[0]]):
            x0, y0, x1, y1 = tight.boxes[0, g]
            whole = k < 2 and tuple(sorted((x1 - x0, y1 - y0))) == ((8, 10), (8, 8))[k]
            inside = min(x0, y0) > 0 and max(x1, y1) < 16
            seen.add((int(k), whole and inside))
            found = batch.boxes[0, g] - tight.boxes[0, g]
            if whole and inside:
                expected = [-by, -by[[2, 1, 0, 3]]]  # as it was, or mirrored
                expected = [e * [1, 1, -1, -1] for e in expected]
                assert any(np.allclose(found, e, atol=1e-5) for e in expected)
            elif not whole:
                assert not found.any()
    assert seen == {(0, True), (0, False), (1, True), (1, False), (2, False)}


def test_annotated_boxes_are_scaled_with_their_image_and_end_at_its_border():
    record = annotated(record_of([box_mask(4, 5, 12, 15), box_mask(0, 20, 9, 30)]), np.full(4, 0.5))
    double = ({"op": "resize_shortest_edge", "sizes": (40,), "longest": 60},)
    batch = next(stream([record], augment=double))
    assert batch.boxes[0, :2].tolist() == [[9, 7, 31, 25], [39, 0, 60, 19]]


def test_no_instances_and_one_instance():
    empty = next(stream([record_of([])], augment=AUGMENT))
    assert not empty.valid.any() and not empty.boxes.any() and not empty.instance_map.any()
    one = next(stream([record_of([np.ones((20, 30), bool)])], augment=AUGMENT[1:]))
    assert one.valid.sum() == 1
    assert one.boxes[0, 0].tolist() == [0, 0, one.sizes[0, 1], one.sizes[0, 0]]
    assert_consistent(one)


def test_an_epoch_sees_each_record_once_and_epochs_differ(drawn):
    order = np.concatenate([batch.index for batch in stream(drawn, steps=40)]).reshape(8, 5)
    assert (np.sort(order, axis=1) == np.arange(5)).all()
    assert len(np.unique(order, axis=0)) > 4
    other = np.concatenate([batch.index for batch in stream(drawn, steps=40, seed=1)]).reshape(8, 5)
    assert not np.array_equal(order, other)


def test_the_order_is_the_same_in_every_version_of_tensorflow(drawn):
    """The shuffle is experimental there: were it to change, no run could be resumed or repeated."""
    order = np.concatenate([batch.index for batch in stream(drawn, steps=20, seed=3)])
    assert order.tolist() == [4, 0, 2, 3, 1, 2, 3, 4, 1, 0, 3, 4, 2, 1, 0, 2, 1, 0, 3, 4]


def test_a_resumed_stream_gives_the_same_bytes(drawn):
    options = {"augment": AUGMENT, "batch_size": 3, "seed": 5}
    whole = list(itertools.islice(stream(drawn, **options), 1000, 1003))
    resumed = list(stream(drawn, steps=3, start_step=1000, **options))
    assert len(whole) == 3 and len(resumed) == 3
    for a, b in zip(whole, resumed, strict=True):
        assert_same(a, b)
    assert not np.array_equal(whole[0].images, whole[1].images)


def test_another_seed_gives_other_augmentations(drawn):
    a, b = (next(stream(drawn[:1], augment=AUGMENT[:1], seed=seed)) for seed in (0, 1))
    assert not np.array_equal(a.images, b.images)


def test_processes_share_out_the_global_batch(drawn):
    options = {"augment": AUGMENT, "batch_size": 4, "steps": 3}
    whole = list(stream(drawn, **options))
    parts = [list(stream(drawn, process_index=i, process_count=2, **options)) for i in range(2)]
    for batch, *slices in zip(whole, *parts, strict=True):
        assert_same(batch, type(batch)(*(np.concatenate(arrays) for arrays in zip(*slices, strict=True))))


def test_no_records_or_an_uneven_share_are_refused(drawn):
    with pytest.raises(ValueError, match="no records"):
        stream([])
    with pytest.raises(ValueError, match="batch_size 3 must be a multiple of the 2 processes"):
        stream(drawn, batch_size=3, process_count=2)


def test_an_image_larger_than_the_canvas_is_named():
    record = record_of([], name="slide_7")
    with pytest.raises(ValueError, match=r"'slide_7' has 20 x 30 pixels .* 24 x 29: raise `canvas`"):
        next(stream([record], canvas=(24, 29)))


def test_tight_boxes_equal_a_loop_over_masks(rng):
    """Ragged instances in two layers, some in several pieces, some absent."""
    layers = np.stack([rng.integers(0, 9, (13, 11)), rng.integers(9, 15, (13, 11))]).astype(np.uint16)
    layers[1] *= rng.random((13, 11)) < 0.3
    layers[layers == 4] = 0
    boxes, present = tight_boxes(layers, 16)
    for n, (box, there) in enumerate(zip(boxes, present, strict=True)):
        _, rows, cols = np.nonzero(layers == n + 1)
        assert there == (len(rows) > 0)
        tight = [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1] if there else [0] * 4
        assert box.tolist() == tight


def test_a_gpu_is_hidden_or_its_use_refused(monkeypatch):
    visible = ["GPU:0"]
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: visible)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: visible.clear())
    hide_gpus_from_tensorflow()
    assert not visible

    def too_late(devices, kind):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    visible.append("GPU:0")
    monkeypatch.setattr(tf.config, "set_visible_devices", too_late)
    with pytest.raises(RuntimeError, match="before its first use"):
        hide_gpus_from_tensorflow()


def test_the_room_needs_no_jax():
    """Data preparation runs where JAX is not installed."""
    rooms = ", ".join(
        f"maskrcnn_jax.data.{m}" for m in ("records", "datasets", "synthetic", "augment", "pipeline")
    )
    code = f"import sys; sys.modules['jax'] = sys.modules['flax'] = None; import {rooms}"
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_kinds_are_drawn_by_their_shares(drawn):
    names = ["a_1", "a_2", "a_3", "b_1", "c_1"]
    records = [dataclasses.replace(r, name=n) for r, n in zip(drawn, names, strict=True)]
    shares = {"a": 0.5, "b": 0.4, "c": 0.1}
    draws = [names[int(b.index[0])][0] for b in stream(records, shares=shares, steps=400)]
    for kind, share in shares.items():
        assert abs(draws.count(kind) / len(draws) - share) < 0.08
    deck = make_deck(names, shares)
    assert {int((deck == n).sum()) for n in range(3)} == {7}, "records of a kind are drawn equally often"


@pytest.mark.parametrize(
    ("shares", "message"),
    [({"a": 1.0}, r"begin with none or several: \['b_1', 'c_1'\]"), ({"": 1.0, "a": 1.0}, "several")],
)
def test_kinds_that_do_not_fit_the_names_are_told(shares, message):
    with pytest.raises(ValueError, match=message):
        make_deck(["a_1", "b_1", "c_1"], shares)


def test_a_kind_without_records_is_told():
    with pytest.raises(ValueError, match="no record's name begins with z"):
        make_deck(["a_1"], {"a": 0.5, "z": 0.5})
