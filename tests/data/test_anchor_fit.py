"""The best anchor found by place equals the best of all anchors."""

import numpy as np
import pytest

from maskrcnn_jax.config import MaskRCNNConfig, RPNConfig
from maskrcnn_jax.data.anchor_fit import anchor_grids, best_anchor_iou
from maskrcnn_jax.ops.anchors import grid_anchors


def pairwise_iou(a, b):
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(x[:, 2:] - x[:, :2]).prod(axis=1) for x in (a, b)]
    return overlap / (areas[0][:, None] + areas[1] - overlap)


@pytest.mark.parametrize(
    "config",
    [
        MaskRCNNConfig.c4(),
        MaskRCNNConfig.resnet_fpn(),
        MaskRCNNConfig.c4(rpn=RPNConfig(anchor_sizes=((6, 30),), anchor_offset=0.5)),
    ],
)
def test_the_best_anchor_is_the_best_of_all(config, rng):
    size = (150, 203)
    corner = rng.uniform(0, (195, 140), (200, 2))
    boxes = np.concatenate([corner, np.minimum(corner + rng.uniform(1, 120, (200, 2)), size[::-1])], axis=1)
    levels = [
        grid_anchors(
            -(-size[0] // stride),
            -(-size[1] // stride),
            stride=stride,
            sizes=sizes,
            ratios=config.rpn.anchor_ratios,
            offset=config.rpn.anchor_offset,
        )
        for stride, sizes in zip(config.levels, config.rpn.anchor_sizes, strict=True)
    ]
    expected = pairwise_iou(boxes, np.concatenate(levels).astype(float)).max(axis=1)
    np.testing.assert_allclose(best_anchor_iou(boxes, size, anchor_grids(config)), expected, atol=1e-5)


def test_no_boxes():
    assert best_anchor_iou(np.zeros((0, 4)), (20, 20), anchor_grids(MaskRCNNConfig.c4())).shape == (0,)
