"""A configuration that no model can have is refused, by the field's name, with what is possible."""

import json
import math

import pytest
from fields import ODD, changed, numbers, without_range

from maskrcnn_jax.config import DetectionConfig, FPNConfig, MaskRCNNConfig, RPNConfig
from maskrcnn_jax.interop.trees import expected_shapes
from maskrcnn_jax.plain_values import FieldError

WRONG = {
    "num_classes": (0, "num_classes is 0: it must be a whole number from 1 to 10,000"),
    "pixel_mean": ((128.0,), "pixel_mean is (128.0,): it must be a list of 3 values, each a number"),
    "pixel_std": ((1.0, 0.0, 1.0), "pixel_std[1] is 0.0: it must be a number from 0.001 to 1,000"),
    "channel_order": ("RBG", "channel_order is 'RBG': it must be one of 'RGB', 'BGR'"),
    "test_resize": ((0, 1333), "test_resize[0] is 0"),
    "test_zoom": (0.0, "test_zoom is 0.0"),
    "backbone.depth": (51, "backbone.depth is 51: it must be one of 18, 34, 50, 101, 152"),
    "backbone.stem_channels": (0, "backbone.stem_channels is 0"),
    "backbone.stem_pool": (1, "backbone.stem_pool is 1: it must be True or False"),
    "backbone.stage_strides": ((1, 2, 2000, 2), "backbone.stage_strides[2] is 2000"),
    "backbone.freeze_at": (5, "backbone.freeze_at is 5: it must be at most last_stage, 4"),
    "backbone.last_stage": (5, "backbone.last_stage is 5: it must be at most 4 for a C4 model"),
    "backbone": (3, "backbone is 3: it must be a mapping with the fields depth, last_stage"),
    "rpn.anchor_sizes": (((8,), (16,)), "rpn.anchor_sizes has 2 levels: it must have the model's, 1"),
    "rpn.pre_nms": ((12000, 0), "rpn.pre_nms[1] is 0"),
    "rpn.box_weights": ((1.0, 1.0, 1.0), "rpn.box_weights is (1.0, 1.0, 1.0): it must be a list of 4 values"),
    "rpn.nms_iou": (1.7, "rpn.nms_iou is 1.7: it must be a number from 0 to 1"),
    "rpn.negative_iou": (0.8, "rpn.negative_iou is 0.8: it must be at most positive_iou, 0.7"),
    "rpn.positive_fraction": (3, "rpn.positive_fraction is 3: it must be a number from 0 to 1"),
    "roi.bins": (0, "roi.bins is 0"),
    "roi.sampling": (-1, "roi.sampling is -1: it must be a whole number from 0 to 16"),
    "roi.fc_channels": ((1024, 0), "roi.fc_channels[1] is 0"),
    "roi.mask_convs": (2**63, "roi.mask_convs is 9223372036854775808: it must be a whole number from 0 to"),
    "roi.mask_margin": (0.1, "roi.mask_margin is 0.1: it must be 0 for a C4 model"),
    "roi.mask_deconvs": (10**400, "it must be a whole number from 0 to 4"),
    "detection.max_detections": (0, "detection.max_detections is 0"),
    "detection.score_threshold": (10**400, "it must be a number from 0 to 1"),
    "detection.containment": (0.0, "detection.containment is 0.0: it must be a number above 0, up to 1"),
    "detection.offset": ((0.0, math.nan), "detection.offset[1] is nan"),
    "detection.min_score": (1.5, "detection.min_score is 1.5: it must be a number from 0 to 1"),
    "detection.nms_iou": (math.nan, "detection.nms_iou is nan: it must be a number from 0 to 1"),
}
USUAL = {"c4": MaskRCNNConfig.c4(18), "pyramid": MaskRCNNConfig.resnet_fpn(18)}


@pytest.mark.parametrize(("path", "case"), WRONG.items())
def test_impossible_values_are_refused_by_name(path, case):
    value, message = case
    with pytest.raises(FieldError) as refused:
        MaskRCNNConfig.from_dict(changed(MaskRCNNConfig().to_dict(), path, value))
    assert message in str(refused.value)


def test_what_a_pyramid_cannot_be():
    for changes, message in (
        ({"rpn": RPNConfig(anchor_sizes=((32,), (64,)))}, "rpn.anchor_sizes has 2 levels"),
        ({"fpn": FPNConfig(first_stage=5)}, "rpn.anchor_sizes has 5 levels"),
        ({"backbone": {"last_stage": 5, "stage_strides": (1, 2, 1, 2)}}, "each after res2 must be 2"),
        (
            {"backbone": {"last_stage": 2}, "fpn": {"first_stage": 3}},
            "fpn.first_stage is 3: it must be at most",
        ),
    ):
        with pytest.raises(FieldError, match=message):
            MaskRCNNConfig.resnet_fpn(**changes)


def test_levels_need_as_many_anchors_each():
    with pytest.raises(FieldError, match="each level must have the same number of sizes"):
        RPNConfig(anchor_sizes=((32, 64), (64,)))


def test_all_faults_are_told_at_once():
    values = {
        "num_classes": 0,
        "rpn": {"nms_iou": 2.0, "samples": "many"},
        "roi": {"bin": 3},
        "detections": {},
    }
    with pytest.raises(FieldError) as refused:
        MaskRCNNConfig.from_dict(values)
    assert {fault.split(" ")[0].rstrip(":") for fault in refused.value.faults} == {
        "num_classes",
        "rpn.nms_iou",
        "rpn.samples",
        "roi.bin",
        "detections",
    }
    assert "roi.bin: unknown field (did you mean 'bins'?)" in refused.value.faults


def test_python_is_checked_as_files_are():
    with pytest.raises(FieldError, match=r"nms_iou is 1\.7"):
        DetectionConfig(nms_iou=1.7)
    config = RPNConfig(anchor_sizes=[[8, 16]], box_weights=[1, 1, 2, 2])
    assert config.anchor_sizes == ((8.0, 16.0),) and type(config.anchor_sizes[0][0]) is float
    assert hash(config) == hash(RPNConfig(anchor_sizes=((8.0, 16.0),), box_weights=(1.0, 1.0, 2.0, 2.0)))


def test_every_number_has_its_range():
    assert without_range(MaskRCNNConfig) == []


@pytest.mark.parametrize("usual", USUAL.values(), ids=USUAL)
@pytest.mark.parametrize("value", ODD)
def test_odd_numbers_are_refused_by_name_or_make_a_model(usual, value):
    """Each number of a config in turn; what is accepted stays, and makes one model in the end."""
    config = usual
    for path in numbers(usual.to_dict()):
        try:
            config = MaskRCNNConfig.from_dict(changed(config.to_dict(), path, value))
        except FieldError as error:
            # Its last name: where it does not go with another field, that one may be the first.
            named = path.split("[")[0].split(".")[-1]
            assert named in str(error) or path == "fpn.extra_levels"
            assert " must " in str(error)
    assert all(math.isfinite(number) for number in _leaves(config.to_dict()))
    if config != usual and value == 0 and type(value) is int:
        assert expected_shapes(config)


def _leaves(values):
    if isinstance(values, dict):
        values = tuple(values.values())
    if isinstance(values, tuple):
        return [leaf for value in values for leaf in _leaves(value)]
    return [values] if type(values) in (int, float) else []


@pytest.mark.parametrize("config", [MaskRCNNConfig(), MaskRCNNConfig.c4(101), MaskRCNNConfig.resnet_fpn(18)])
def test_plain_values_and_back(config):
    assert MaskRCNNConfig.from_dict(config.to_dict()) == config
    assert MaskRCNNConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
