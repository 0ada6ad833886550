"""The field's numbers on cases worked by hand, and against slow definitions on random label maps."""

import itertools
import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from maskrcnn_jax.evaluation.nuclei import F1_THRESHOLDS, averages, summarize, tally, tally_results
from maskrcnn_jax.masks.rle import rle_of_crop, rles_of_labels


def metrics_of(truth, found):
    return summarize(tally(truth, found))


def bar(*runs):
    """A label map of one row: (label, length) after each other."""
    return np.array([[label for label, length in runs for _ in range(length)]])


def pixel_sets(labels):
    return [set(zip(*np.nonzero(labels == n), strict=True)) for n in np.unique(labels) if n]


def iou(a, b):
    return len(a & b) / len(a | b)


def slow_metrics(truths, founds):
    """Each number by its definition, with sets of pixels and every assignment tried."""
    ajis = []
    # Kumar et al. 2017, algorithm 1, line by line: a prediction may be the best of several.
    common, total, used = 0, 0, set()
    for g in truths:
        best = max(range(len(founds)), key=lambda d: iou(g, founds[d]), default=None)
        if best is None or not g & founds[best]:
            total += len(g)
            continue
        common, total = common + len(g & founds[best]), total + len(g | founds[best])
        used.add(best)
    total += sum(len(f) for d, f in enumerate(founds) if d not in used)
    ajis.append(common / total)

    slots = [*range(len(founds)), *[None] * len(truths)]
    assignments = [
        [(g, d) for g, d in enumerate(chosen) if d is not None and truths[g] & founds[d]]
        for chosen in set(itertools.permutations(slots, len(truths)))
    ]

    def best_assignment(threshold):
        valued = [[iou(truths[g], founds[d]) for g, d in pairs] for pairs in assignments]
        kept = [[v for v in values if v > threshold] for values in valued]
        return max(kept, key=sum)

    pairs = max(assignments, key=lambda pairs: sum(iou(truths[g], founds[d]) for g, d in pairs))
    common = sum(len(truths[g] & founds[d]) for g, d in pairs)
    total = sum(len(truths[g] | founds[d]) for g, d in pairs)
    total += sum(len(t) for g, t in enumerate(truths) if g not in [g for g, _ in pairs])
    total += sum(len(f) for d, f in enumerate(founds) if d not in [d for _, d in pairs])
    ajis.append(common / total)

    truth, found = (set().union(*sets) for sets in (truths, founds))
    count = len(truths) + len(founds)
    matched = best_assignment(0.5)
    result = {
        "AJI": ajis[0],
        "AJI+": ajis[1],
        "Dice": 2 * len(truth & found) / (len(truth) + len(found)),
        "DQ": len(matched) / (len(matched) + (count - 2 * len(matched)) / 2),
        "SQ": np.mean(matched) if matched else 0,
        "count_error": abs(len(truths) - len(founds)) / len(truths) if truths else math.nan,
    }
    result["PQ"] = result["DQ"] * result["SQ"]
    return result | {f"F1@{t}": 2 * len(best_assignment(t)) / count for t in F1_THRESHOLDS}


label_maps = arrays.arrays(np.int32, (3, 5), elements=st.integers(0, 3))


@settings(max_examples=200, deadline=None)
@given(label_maps, label_maps)
def test_equals_the_definitions(truth, found):
    require_equal_to_the_definitions(tally(truth, found), pixel_sets(truth), pixel_sets(found))


rectangles = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 4), st.integers(1, 4)), max_size=3
)


@settings(max_examples=200, deadline=None)
@given(rectangles, rectangles)
def test_instances_that_overlap_equal_the_definitions(truth, found):
    """Rectangles of one image share pixels; each pair is still one to one, but in AJI."""

    def codes(boxes):
        return [rle_of_crop(np.ones((h, w), bool), y, x, (6, 6)) for y, x, h, w in boxes]

    def sets(boxes):
        return [
            {(i, j) for i in range(y, min(y + h, 6)) for j in range(x, min(x + w, 6))} for y, x, h, w in boxes
        ]

    require_equal_to_the_definitions(tally(codes(truth), codes(found)), sets(truth), sets(found))


def require_equal_to_the_definitions(sums, truths, founds):
    if not truths and not founds:
        return
    ours, slow = summarize(sums), slow_metrics(truths, founds)
    # Ties of IoU leave AJI and AJI+ open; the definition's other numbers do not depend on them.
    tied = {"AJI", "AJI+"} if has_ties(truths, founds) else set()
    assert {k: v for k, v in ours.items() if k not in tied} == pytest.approx(
        {k: v for k, v in slow.items() if k not in tied}, nan_ok=True
    )


def has_ties(truths, founds):
    ious = [iou(g, d) for g, d in itertools.product(truths, founds) if g & d]
    sums = [round(sum(s), 9) for n in range(1, 4) for s in itertools.combinations(ious, n)]
    return len(set(sums)) < len(sums)


def test_perfect_answer():
    labels = np.array([[1, 1, 0, 2], [1, 0, 3, 2]])
    metrics = metrics_of(labels, np.array([0, 3, 1, 2])[labels])
    assert metrics.pop("count_error") == 0
    assert set(metrics.values()) == {1.0}


def test_split_nucleus_by_hand():
    """One nucleus of 10 pixels found as 7 and 3: the larger part is the pair (IoU 0.7), the other is wrong.

    AJI = 7 / (10 + 3); one match of three objects: DQ = 2/3, SQ = 0.7; the foregrounds agree.
    """
    metrics = metrics_of(bar((1, 10)), bar((1, 7), (2, 3)))
    assert metrics == pytest.approx(
        {
            "AJI": 7 / 13,
            "AJI+": 7 / 13,
            "Dice": 1,
            "DQ": 2 / 3,
            "SQ": 0.7,
            "PQ": 1.4 / 3,
            "F1@0.5": 2 / 3,
            "F1@0.6": 2 / 3,
            "F1@0.7": 0,  # an IoU must be above the threshold
            "F1@0.8": 0,
            "F1@0.9": 0,
            "count_error": 1,
        }
    )


def test_merged_nuclei_tell_aji_from_aji_plus():
    """Nuclei of 6 and 4 found as one of 10. AJI pairs it twice: (6 + 4) / (10 + 10).

    AJI+ pairs it once, with the larger: 6 / (10 + 4).
    """
    metrics = metrics_of(bar((1, 6), (2, 4)), bar((1, 10)))
    assert metrics["AJI"] == 10 / 20
    assert metrics["AJI+"] == pytest.approx(6 / 14)
    assert metrics["DQ"] == pytest.approx(2 / 3)
    assert metrics["count_error"] == 0.5


def test_iou_of_exactly_one_half_is_no_match():
    metrics = metrics_of(bar((1, 2), (0, 2)), bar((0, 1), (1, 1), (0, 2)))
    assert metrics["DQ"] == metrics["SQ"] == metrics["PQ"] == 0
    assert metrics["AJI"] == 0.5


def test_predictions_that_overlap_match_one_to_one():
    """The same nucleus found twice is one match and one error."""
    truth = [rle_of_crop(np.ones((4, 4), bool), 2, 2, (9, 9))]
    metrics = metrics_of(truth, truth * 2)
    assert metrics["F1@0.9"] == metrics["DQ"] == pytest.approx(2 / 3)
    assert metrics["SQ"] == metrics["Dice"] == 1
    assert metrics["AJI"] == 0.5


def test_label_maps_and_codes_agree_and_gaps_do_not_count():
    truth, found = np.array([[5, 5, 0, 2], [5, 9, 9, 2]]), np.array([[1, 1, 0, 4], [0, 4, 4, 4]])
    codes = rles_of_labels(truth[None], 9), rles_of_labels(found[None], 4)
    assert metrics_of(truth, found) == metrics_of(*codes)
    assert tally(truth, found).counts.tolist() == [3, 2]


def test_empty_sides():
    nothing, something = np.zeros((3, 4), int), np.eye(3, 4, dtype=int)
    assert all(map(math.isnan, metrics_of(nothing, nothing).values()))
    assert all(map(math.isnan, metrics_of([], []).values()))
    missed, invented = metrics_of(something, nothing), metrics_of([], rles_of_labels(something[None], 1))
    assert missed.pop("count_error") == 1
    assert math.isnan(invented.pop("count_error"))
    assert set(missed.values()) == set(invented.values()) == {0.0}


def test_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"different image sizes: \[\(2, 2\), \(3, 3\)\]"):
        tally(np.ones((2, 2), int), np.ones((3, 3), int))


def test_averages_over_images():
    """The mean weighs images, the micro average pixels and objects; an image of nothing weighs neither."""
    perfect, half = tally(bar((1, 4)), bar((1, 4))), tally(bar((1, 2), (2, 2)), bar((1, 2), (0, 2)))
    nothing = tally(bar((0, 4)), bar((0, 4)))
    found = averages([perfect, half, nothing])
    assert found["nuclei/AJI"] == 0.75
    assert found["nuclei_micro/AJI"] == 6 / 8
    assert found["nuclei/DQ"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["nuclei_micro/DQ"] == pytest.approx(4 / 5)
    assert found["nuclei/count_error"] == 0.25
    assert found["nuclei_micro/count_error"] == pytest.approx(1 / 3)


def test_results_are_tallied_by_image_from_their_score_on():
    codes = rles_of_labels(np.array([[[1, 1, 0, 2]]]), 2)
    annotations = [{"image_id": 1, "segmentation": c, "iscrowd": n} for n, c in enumerate(codes)]
    rows = [{"image_id": 1, "score": s, "segmentation": codes[0]} for s in (0.5, 0.4)]
    images = [{"id": n, "height": 1, "width": 4} for n in (1, 2)]
    found = tally_results({"images": images, "annotations": annotations}, rows)
    assert summarize(found[1])["PQ"] == 1, "neither the crowd nor the weak detection counts"
    assert found[2].counts.tolist() == [0, 0]


def test_what_lies_in_crowds_does_not_count():
    """The first is right, the second wrong, the third half in a crowd, the last mostly in two together."""
    truth, *crowds = rles_of_labels(bar((1, 4), (0, 4), (2, 2), (3, 2), (0, 4))[None], 3)
    found = rles_of_labels(bar((1, 4), (2, 1), (0, 2), (3, 2), (4, 4), (0, 3))[None], 4)
    masks = [(truth, 0), *((crowd, 1) for crowd in crowds)]
    ground_truth = {
        "images": [{"id": 1, "height": 1, "width": 16}],
        "annotations": [{"image_id": 1, "segmentation": c, "iscrowd": n} for c, n in masks],
    }
    rows = [{"image_id": 1, "score": 1.0, "segmentation": code} for code in found]
    assert [coco.area(code) for code in found] == [4, 1, 2, 4]
    assert tally_results(ground_truth, rows)[1].counts.tolist() == [1, 3]


def test_every_form_of_a_coco_mask():
    """A square as polygon, as list of counts and as text."""
    code = rle_of_crop(np.ones((2, 2), bool), 1, 1, (4, 4))
    forms = ([[1, 1, 3, 1, 3, 3, 1, 3]], {"size": [4, 4], "counts": [5, 2, 2, 2, 5]}, code)
    for form in forms:
        truth = {
            "images": [{"id": 1, "height": 4, "width": 4}],
            "annotations": [{"image_id": 1, "segmentation": form}],
        }
        found = tally_results(truth, [{"image_id": 1, "score": 1.0, "segmentation": code}])
        assert summarize(found[1])["AJI"] == 1
