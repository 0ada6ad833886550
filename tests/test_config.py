"""A configuration that no model can have is refused, by the field's name."""

import pytest

from maskrcnn_jax.config import MaskRCNNConfig

WRONG = {
    "num_classes": (0, "num_classes must be at least 1"),
    "pixel_mean": ((128.0,), "pixel_mean .* three values"),
    "pixel_std": ((1.0, 0.0, 1.0), "none of them 0"),
    "test_resize": ((0, 1333), "test_resize"),
    "backbone.depth": (51, "backbone.depth 51 is not one of"),
    "backbone.stem_channels": (0, "backbone.stem_channels is 0, not positive"),
    "backbone.stage_strides": ((1, 2, 0, 2), r"backbone.stage_strides is \(1, 2, 0, 2\), not positive"),
    "backbone.freeze_at": (6, "backbone.freeze_at 6 is not in"),
    "rpn.anchor_sizes": (((8,), (16,)), "rpn.anchor_sizes has 2 levels, the model 1"),
    "rpn.pre_nms": ((12000, 0), "rpn.pre_nms"),
    "rpn.box_weights": ((1.0, 1.0, 1.0), "rpn.box_weights has 3 values"),
    "roi.bins": (0, "roi.bins is 0"),
    "roi.sampling": (-1, "roi.sampling is -1, not at least 0"),
    "roi.fc_channels": ((1024, 0), "roi.fc_channels"),
    "detection.max_detections": (0, "detection.max_detections is 0"),
}


def changed(path, value, start):
    values = start.to_dict()
    *parts, name = path.split(".")
    part = values
    for key in parts:
        part = part[key]
    part[name] = value
    return values


@pytest.mark.parametrize(("path", "case"), WRONG.items())
def test_impossible_values_are_refused_by_name(path, case):
    value, message = case
    with pytest.raises(ValueError, match=message):
        MaskRCNNConfig.from_dict(changed(path, value, MaskRCNNConfig()))


def test_levels_need_as_many_anchors_each():
    sizes = ((32, 64), (64,), (128,), (256,), (512,))
    with pytest.raises(ValueError, match="same number of positive sizes"):
        MaskRCNNConfig.from_dict(changed("rpn.anchor_sizes", sizes, MaskRCNNConfig.resnet_fpn()))


@pytest.mark.parametrize("config", [MaskRCNNConfig(), MaskRCNNConfig.c4(101), MaskRCNNConfig.resnet_fpn(18)])
def test_plain_values_and_back(config):
    assert MaskRCNNConfig.from_dict(config.to_dict()) == config
