"""Compares the model with what torchvision computed: stages, end to end, and a training step.

    python benchmarks/torchvision_parity.py --goldens tests/parity/torchvision [--out docs/parity.md]

`torchvision_goldens.py` made what is compared with, from the inputs of `torchvision_case.py`.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torchvision_case as case
from parity_document import here, replace_section, table
from parity_goldens import Row, as_batch, largest, pair

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.interop import torchvision
from maskrcnn_jax.interop import torchvision_names as names
from maskrcnn_jax.interop.trees import flatten
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.rle import crop_of_rle
from maskrcnn_jax.models.mask_rcnn import MaskRCNN, normalize
from maskrcnn_jax.ops.sampling import Sample
from maskrcnn_jax.prediction.predictor import to_result
from maskrcnn_jax.prediction.resize import interpolate, target_size_down
from maskrcnn_jax.structures import Batch, Detections, Proposals

# Pixels, scores, and the share of mask pixels that may differ, from the image on.
_BOX, _SCORE, _MASK = 0.02, 5e-4, 1e-3
_LOSS, _GRADIENT = 1e-5, 1e-2
_LOSSES = {
    "loss_cls": "loss_classifier",
    "loss_box_reg": "loss_box_reg",
    "loss_mask": "loss_mask",
    "loss_rpn_cls": "loss_objectness",
    "loss_rpn_loc": "loss_rpn_box_reg",
}


class Golden(NamedTuple):
    """One of torchvision's models as read by this package, and what torchvision computed with it."""

    name: str
    config: MaskRCNNConfig
    params: dict[str, Any]
    arrays: Mapping[str, np.ndarray]


def load(folder: Path, name: str) -> Golden:
    """Reads `NAME.npz`; the weights are drawn anew."""
    arrays = dict(np.load(folder / f"{name}.npz"))
    shapes = [tuple(map(int, shape.split())) for shape in arrays["shapes"]]
    shapes = dict(zip(arrays["names"].tolist(), shapes, strict=True))
    tensors = case.weights(shapes, arrays["class_bias"])
    config, params = torchvision.load(tensors, norm_epsilon=0.0 if name == "v1" else None)
    limits = {"pre_nms": (case.PRE_NMS,) * 2, "post_nms": (case.POST_NMS,) * 2}
    config = dataclasses.replace(
        config,
        test_resize=(case.SHORT_SIDE, config.test_resize[1]),
        rpn=dataclasses.replace(config.rpn, **limits),
        roi=dataclasses.replace(config.roi, samples=case.ROIS),
        detection=dataclasses.replace(config.detection, max_detections=case.DETECTIONS),
    )
    return Golden(f"torchvision {name}", config, params, arrays)


def measure_prediction(golden: Golden) -> list[Row]:
    """Every stage within ten times what torchvision's float32 is from float64; then sets of boxes."""
    config, arrays, pixels = golden.config, golden.arrays, case.image()
    size = target_size_down(*pixels.shape[:2], *config.test_resize)
    found, detections = jax.device_get(
        _predict(config, golden.params, *as_batch(interpolate(pixels, size)), case.probes(*size))
    )
    proposals = found.pop("proposals")
    rows = [Row(golden.name, "image's side, resized", largest(np.array(size), arrays["image_size"]), 0)]
    for name, value in found.items():
        allowed = 10 * float(arrays[f"noise/{name}"])
        # The background has a box there, which nothing reads.
        expected = arrays[name][:, 4:] if name == "box_deltas" else arrays[name]
        rows.append(Row(golden.name, f"stage: {name}", largest(value, expected), allowed))
    rows += _box_rows(golden, "proposals", proposals, arrays["proposals"])
    options = {"whole_pixels": config.detection.pasting == "whole_pixels"}
    one = Detections(*(field[0] for field in detections))
    return rows + _detection_rows(golden, to_result(one, size, pixels.shape[:2], **options))


@functools.partial(jax.jit, static_argnums=0)
def _predict(config, params, images, sizes, probes):
    def run(model: MaskRCNN):
        features = model.features(images, sizes)
        proposals, logits, deltas = model.propose(features, sizes, training=False)
        shapes = [level.shape[1:3] for level in features.levels]
        heads, roi = model.roi_heads, config.roi
        outputs = {"preprocessed": normalize(config, images, sizes)[0][0].transpose(2, 0, 1)[:, ::4, ::4]}
        for stage, level in enumerate(features.levels, 2):
            outputs[f"p{stage}"] = level[0].transpose(2, 0, 1)[::16]
        outputs |= {"rpn_logits": logits[0], "rpn_deltas": deltas[0]}
        outputs["anchors"] = model._anchors(shapes, [extent[0] for extent in features.extents])[0].boxes
        pooled = heads._pool(features, probes[None], roi.bins, roi.sampling)
        outputs["pooled"] = pooled.transpose(0, 3, 1, 2)[:, ::64]
        classes, regression, _ = heads.boxes(features, probes[None])
        outputs["class_logits"] = jnp.roll(classes, 1, axis=1)  # The background is torchvision's first.
        outputs["box_deltas"] = regression.reshape(len(probes), -1)
        outputs["mask_logits"] = heads.masks(features, probes[None]).transpose(0, 3, 1, 2)[:, :, ::3, ::3]
        outputs["proposals"] = proposals.boxes[0]
        boxes, scores, labels, valid = model.detect_boxes(features, proposals, sizes)
        masks = model.detect_masks(features, boxes, labels, valid)
        return outputs, Detections(boxes, scores, labels, masks, valid)

    return MaskRCNN(config).apply({"params": params}, method=run)


def _box_rows(golden: Golden, what: str, boxes: np.ndarray, expected: np.ndarray) -> list[Row]:
    boxes = boxes[np.any(boxes != 0, axis=1)]
    ours, theirs = pair(boxes, expected)
    return [
        Row(golden.name, f"number of {what}", abs(len(boxes) - len(expected)), 0),
        Row(golden.name, f"{what}, pixels", largest(boxes[ours], expected[theirs]), _BOX),
    ]


def _detection_rows(golden: Golden, result: Result) -> list[Row]:
    boxes, labels, scores = (golden.arrays[f"found_{name}"] for name in ("boxes", "labels", "scores"))
    ours, theirs = pair(result.boxes, boxes, result.classes, labels - 1)
    there = np.unpackbits(golden.arrays["found_masks"], axis=1, count=case.HEIGHT * case.WIDTH)
    here = np.stack([_pixels(result, i) for i in ours]).reshape(len(ours), -1)
    differ = (here != there[theirs]).sum() / there.sum()
    return [
        Row(golden.name, "number of detections", abs(len(result) - len(boxes)), 0),
        Row(golden.name, "classes", float((result.classes[ours] != labels[theirs] - 1).sum()), 0),
        Row(golden.name, "detections, pixels", largest(result.boxes[ours], boxes[theirs]), _BOX),
        Row(golden.name, "scores", largest(result.scores[ours], scores[theirs]), _SCORE),
        Row(golden.name, "mask pixels, share", float(differ), _MASK),
    ]


def _pixels(result: Result, i: int) -> np.ndarray:
    mask, top, left = crop_of_rle(result.masks[i])
    whole = np.zeros(result.size, bool)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return whole


def measure_training(golden: Golden) -> list[Row]:
    """Losses and gradients, with torchvision's proposals and samples."""
    arrays = golden.arrays
    proposals = arrays["train_proposals"]
    fixed = (
        _sample(arrays, "anchors"),
        Proposals(proposals, np.zeros(len(proposals), np.float32), np.ones(len(proposals), bool)),
        _sample(arrays, "rois"),
    )
    fixed = jax.tree.map(lambda x: x[None], fixed)
    losses, gradients = jax.device_get(_differentiate(golden.config, golden.params, _batch(), *fixed))
    rows = [
        Row(golden.name, f"{ours}, relative", _relative(losses[ours], arrays[f"loss/{theirs}"]), _LOSS)
        for ours, theirs in _LOSSES.items()
    ]
    return rows + _gradient_rows(golden, flatten(gradients))


@functools.partial(jax.jit, static_argnums=0)
def _differentiate(config, params, batch, anchor_sample, proposals, roi_sample):
    def total(params):
        losses = MaskRCNN(config).apply(
            {"params": params},
            batch,
            jax.random.key(0),
            anchor_sample=anchor_sample,
            proposals=proposals,
            roi_sample=roi_sample,
            method="losses",
        )
        return sum(losses.values()), losses

    gradients, losses = jax.grad(total, has_aux=True)(params)
    return losses, gradients


def _gradient_rows(golden: Golden, gradients: Mapping[str, np.ndarray]) -> list[Row]:
    """Norms of all gradients; elements of the small ones; and zeros where our norms and stages are frozen."""
    arrays, config = golden.arrays, golden.config
    there = {names.model_name(p, config): names.to_there(p, g, config) for p, g in gradients.items()}
    norms = dict(zip(arrays["gradient_names"].tolist(), arrays["gradient_norms"].tolist(), strict=True))
    norms = {name: norm for name, norm in norms.items() if not _is_norm(name)}
    worst = max(_relative(np.linalg.norm(there[name]), norm) for name, norm in norms.items())
    small = [name.removeprefix("gradient/") for name in arrays if name.startswith("gradient/")]
    small = [name for name in small if name in norms]
    apart = max(
        _relative(np.linalg.norm(there[name] - arrays[f"gradient/{name}"]) + norms[name], norms[name])
        for name in small
    )
    frozen = max(float(np.abs(there[name]).max()) for name in there if name not in norms)
    return [
        Row(golden.name, f"gradient norms of {len(norms)} parameters, relative", worst, _GRADIENT),
        Row(golden.name, f"{len(small)} whole gradients, relative", apart, _GRADIENT),
        Row(golden.name, f"gradients of {len(there) - len(norms)} frozen parameters", frozen, 0),
    ]


def _is_norm(name: str) -> bool:
    """Whether a batch norm's scale or bias: torchvision's v2 trains them, here they are fixed."""
    return any(part in name for part in (".bn", "downsample.1.")) or (
        name.split(".")[-2] == "1" and ("blocks" in name or "_head." in name)
    )


def _sample(arrays: Mapping[str, np.ndarray], kind: str) -> Sample:
    positive, negative = arrays[f"{kind}_positive"], arrays[f"{kind}_negative"]
    index = np.concatenate([positive, negative]).astype(np.int32)
    return Sample(index, np.arange(len(index)) < len(positive), np.ones(len(index), bool))


def _batch() -> Batch:
    """The image and its truths; each has a layer of its own, as they overlap."""
    truths, count = case.truths(), len(case.truths().boxes)
    images, sizes = as_batch(case.image())
    ids = np.arange(1, count + 1, dtype=np.uint16)
    batch = Batch(
        images=images[0],
        sizes=sizes[0],
        boxes=truths.boxes,
        classes=truths.classes.astype(np.int32),
        valid=np.ones(count, bool),
        crowd=np.zeros(count, bool),
        layers=np.arange(count, dtype=np.int32),
        instance_map=truths.masks * ids[:, None, None],
        index=np.int32(0),
        cut=np.int32(0),
    )
    return jax.tree.map(lambda x: np.asarray(x)[None], batch)


def _relative(found: float, golden: float) -> float:
    return abs(float(found) - float(golden)) / max(abs(float(golden)), 1e-12)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--goldens", type=Path, required=True, help="the folder of what torchvision computed")
    parser.add_argument("--out", type=Path, help="a Markdown file for the section")
    arguments = parser.parse_args()
    goldens = [load(arguments.goldens, name) for name in case.MODELS]
    rows = [row for g in goldens for measure in (measure_prediction, measure_training) for row in measure(g)]
    text = f"""`maskrcnn_resnet50_fpn` (v1, as loaded from COCO_V1: frozen batch norms, epsilon 0) and
`maskrcnn_resnet50_fpn_v2` at full width, with weights that a seed gives both sides, against torchvision
itself. Each stage starts from the image and must agree within ten times what torchvision's float32 differs
from float64; boxes are compared as sets, at the image's own size, after torchvision's resize and with its
pasted masks. Losses and gradients are those of torchvision's proposals and samples, its batch norms fixed.
The tests repeat all of it with the same goldens.

    python benchmarks/torchvision_goldens.py --out tests/parity/torchvision
    python benchmarks/torchvision_parity.py --goldens tests/parity/torchvision --out docs/parity.md

{here()}
torchvision: {goldens[0].arrays["about"]}.

{table(rows)}
"""
    if arguments.out is not None:
        replace_section(arguments.out, "torchvision", text)
    print(text)
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
