"""Every stage of the model fed with its golden input, so that what came before it does not matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from parity_goldens import Golden, Row, as_batch, extents, largest, level_names

from maskrcnn_jax.models import rpn
from maskrcnn_jax.models.fpn import assign_levels
from maskrcnn_jax.models.heads import BoxHead, BoxPredictor, Features, MaskHead
from maskrcnn_jax.models.heads import pool as pool_boxes
from maskrcnn_jax.models.mask_rcnn import MaskRCNN, normalize
from maskrcnn_jax.models.resnet import Stage
from maskrcnn_jax.structures import Proposals

# Of these the README's table has no line.
_OTHERS = {"preprocessed": 1e-5, "anchors": 1e-4, "probe_levels": 0.0}


def measure_stages(golden: Golden) -> list[Row]:
    """One row for each stage between two golden arrays."""
    found = backbone_outputs(golden) | stage_outputs(golden, golden_features(golden))[0]
    allowed = golden.allowed | _OTHERS
    missing = {name for name in golden.allowed if name in golden.test} - found.keys()
    if missing:
        raise ValueError(f"the README lists stages that are not compared: {sorted(missing)}")
    return [
        Row(golden.name, f"stage: {name}", largest(value, golden.test[name]), allowed[name])
        for name, value in found.items()
    ]


def golden_features(golden: Golden) -> Features:
    """The levels that Detectron2 computed."""
    levels = [golden.test[name].transpose(1, 2, 0)[None] for name in level_names(golden.config)]
    sizes = extents(golden.config, golden.image.shape[:2])
    return Features(tuple(levels), tuple(np.array([size], np.int32) for size in sizes))


def own_features(golden: Golden) -> Features:
    """The levels from the image."""
    return _features(golden.config, golden.params, *as_batch(golden.image))


@functools.partial(jax.jit, static_argnums=0)
def _features(config, params, images, sizes):
    return MaskRCNN(config).apply({"params": params}, images, sizes, method="features")


def backbone_outputs(golden: Golden) -> dict[str, np.ndarray]:
    """The network's input and its feature levels, by the golden arrays' names."""
    pixels = normalize(golden.config, *map(jnp.asarray, as_batch(golden.image)))[0]
    levels = zip(level_names(golden.config), own_features(golden).levels, strict=True)
    outputs = {"preprocessed": pixels} | dict(levels)
    return {name: np.asarray(value[0]).transpose(2, 0, 1) for name, value in outputs.items()}


def stage_outputs(golden: Golden, features: Features) -> tuple[dict[str, np.ndarray], Proposals]:
    """What comes after the backbone, by the golden arrays' names, and the proposals of `features`."""
    inputs = {name: value for name, value in golden.test.items() if value.dtype == np.float32}
    size = np.array([golden.image.shape[:2]], np.int32)
    return jax.device_get(_after_backbone(golden.config, golden.params, features, size, inputs))


@functools.partial(jax.jit, static_argnums=0)
def _after_backbone(config, params, features, sizes, inputs):
    model = MaskRCNN(config)
    apply = functools.partial(model.apply, {"params": params})
    heads = params["roi_heads"]

    def module(kind, name, x):
        return kind.apply({"params": heads[name]}, x)

    proposals, logits, deltas = apply(features, sizes, training=False, method="propose")
    shapes = [level.shape[1:3] for level in features.levels]
    outputs = {"rpn_logits": logits[0], "rpn_deltas": deltas[0]}
    outputs["anchors"] = rpn.make_anchors(config.rpn, shapes, config.levels).boxes
    outputs |= (_c4_stages if config.fpn is None else _fpn_stages)(config, heads, features, inputs, module)
    predictor = BoxPredictor(config)
    for prefix, vectors in (("", inputs["roi_vectors"]), ("probe_", outputs.pop("predictor_input"))):
        logits, deltas = module(predictor, "box_predictor", vectors)
        outputs |= {f"{prefix}class_logits": logits, f"{prefix}box_deltas": deltas.reshape(len(deltas), -1)}
    drawn = apply(features, inputs["det_boxes"][None], method=lambda m, *x: m.roi_heads.masks(*x))
    outputs["mask_logits"] = drawn.transpose(0, 3, 1, 2)
    return outputs, proposals


def _c4_stages(config, heads, features, inputs, module):
    """RoIAlign, the residual stage and the mask head on the probes; the features of every proposal."""
    stage = config.backbone.last_stage + 1
    body = Stage(config.backbone, stage, config.roi.norm)

    def pool(boxes):
        return pool_boxes(features, boxes[None], config.levels, config.roi.bins, config.roi.sampling)

    last = inputs[f"probe_res{stage}"].transpose(0, 2, 3, 1)
    return {
        "probe_pooled": pool(inputs["probe_boxes"]).transpose(0, 3, 1, 2),
        f"probe_res{stage}": module(
            body, f"res{stage}", inputs["probe_pooled"].transpose(0, 2, 3, 1)
        ).transpose(0, 3, 1, 2),
        "probe_mask_logits": module(MaskHead(config), "mask_head", last).transpose(0, 3, 1, 2),
        "roi_vectors": module(body, f"res{stage}", pool(inputs["proposal_boxes"])).mean(axis=(1, 2)),
        "predictor_input": last.mean(axis=(1, 2)),
    }


def _fpn_stages(config, heads, features, inputs, module):
    """Levels, RoIAlign, box and mask head on the probes; the features of every proposal."""
    roi, count = config.roi, config.backbone.last_stage - config.fpn.first_stage + 1
    strides = config.levels[:count]
    finest = Features(features.levels[:count], features.extents[:count])

    def pool(boxes, bins, sampling):
        level = assign_levels(boxes[None], strides)
        return pool_boxes(finest, boxes[None], strides, bins, sampling, level=level)

    def box_head(pooled):
        return module(BoxHead(roi), "box_head", pooled)

    probes = inputs["probe_boxes"]
    mask_sampling = roi.sampling if roi.mask_sampling is None else roi.mask_sampling
    mask_input = inputs["probe_mask_pooled"].transpose(0, 2, 3, 1)
    return {
        "probe_levels": assign_levels(probes, strides),
        "probe_pooled": pool(probes, roi.bins, roi.sampling).transpose(0, 3, 1, 2),
        "probe_vectors": box_head(inputs["probe_pooled"].transpose(0, 2, 3, 1)),
        "probe_mask_pooled": pool(probes, roi.mask_bins, mask_sampling).transpose(0, 3, 1, 2),
        "probe_mask_logits": module(MaskHead(config), "mask_head", mask_input).transpose(0, 3, 1, 2),
        "roi_vectors": box_head(pool(inputs["proposal_boxes"], roi.bins, roi.sampling)),
        "predictor_input": inputs["probe_vectors"],
    }
