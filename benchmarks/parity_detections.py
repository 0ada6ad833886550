"""End to end: from the image to proposals, and to detections at two output sizes."""

import jax
import numpy as np
from parity_goldens import Golden, Row, largest, pair
from parity_stages import own_features, stage_outputs
from pycocotools import mask as coco

from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.rle import RLE
from maskrcnn_jax.prediction.predictor import Predictor, to_result
from maskrcnn_jax.structures import Detections

_BOX, _SCORE, _MASK = 0.02, 5e-4, 1e-3


def measure_detections(golden: Golden) -> list[Row]:
    """Sets of proposals and of detections, found from the image alone.

    Detections come through the predictor, which resizes as the config says and pads to a bucket.
    """
    proposals = stage_outputs(golden, own_features(golden))[1]
    valid = proposals.valid[0]
    rows = proposal_rows(golden, proposals.boxes[0][valid], proposals.logits[0][valid])
    bucket = max(golden.image.shape) + 7
    predictor = Predictor(golden.config, golden.params, buckets=(bucket,))
    image = np.ascontiguousarray(golden.test["image_bgr"][..., ::-1])
    rows += result_rows(golden, "final", predictor(image))
    # The same detections at a size that the predictor has no reason to give.
    size = golden.image.shape[:2]
    canvas = np.zeros((1, bucket, bucket, 3), np.uint8)
    canvas[0, : size[0], : size[1]] = golden.image
    detections = jax.device_get(predictor._detect(golden.params, canvas, np.array([size], np.int32)))
    one = Detections(*(field[0] for field in detections))
    return rows + result_rows(golden, "scaled", to_result(one, size, golden.test["scaled_size"].tolist()))


def proposal_rows(golden: Golden, boxes: np.ndarray, logits: np.ndarray) -> list[Row]:
    expected, expected_logits = golden.test["proposal_boxes"], golden.test["proposal_logits"]
    ours, theirs = pair(boxes, expected)
    return [
        Row(golden.name, "end to end: number of proposals", abs(len(boxes) - len(expected)), 0),
        Row(golden.name, "end to end: proposals, pixels", largest(boxes[ours], expected[theirs]), _BOX),
        Row(
            golden.name,
            "end to end: logits of proposals",
            largest(logits[ours], expected_logits[theirs]),
            _SCORE,
        ),
    ]


def result_rows(golden: Golden, kind: str, result: Result) -> list[Row]:
    """A result against `final_*` or `scaled_*`; boxes of a larger output may be off by as much more."""
    boxes, scores, classes = (golden.test[f"{kind}_{field}"] for field in ("boxes", "scores", "classes"))
    ours, theirs = pair(result.boxes, boxes, result.classes, classes)
    scale = max(1.0, *(a / b for a, b in zip(result.size, golden.image.shape[:2], strict=True)))
    title = f"end to end, {kind} output"
    masks = [golden.masks[kind][i] for i in theirs]
    return [
        Row(golden.name, f"{title}: number of detections", abs(len(result) - len(boxes)), 0),
        Row(golden.name, f"{title}: classes", float((result.classes[ours] != classes[theirs]).sum()), 0),
        Row(golden.name, f"{title}: boxes, pixels", largest(result.boxes[ours], boxes[theirs]), _BOX * scale),
        Row(golden.name, f"{title}: scores", largest(result.scores[ours], scores[theirs]), _SCORE),
        Row(
            golden.name,
            f"{title}: mask pixels, share",
            _differing([result.masks[i] for i in ours], [mask["segmentation"] for mask in masks]),
            _MASK,
        ),
    ]


def _differing(found: list[RLE], golden: list[RLE]) -> float:
    """Pixels in one mask of a pair and not in the other, over all pixels of the golden masks."""
    both = [coco.merge([a, b], intersect=True) for a, b in zip(found, golden, strict=True)]
    found, golden, both = (sum(float(coco.area(code)) for code in codes) for codes in (found, golden, both))
    return (found + golden - 2 * both) / max(golden, 1.0)
