"""Detectron2's YAML becomes our config; what it switches on and we lack is named."""

import pytest
import yaml

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.interop.detectron2_config import read_config
from maskrcnn_jax.interop.detectron2_yaml import Detectron2Error

C4 = {"VERSION": 2, "MODEL": {"MASK_ON": True}}
FPN = """
MODEL:
  MASK_ON: true
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  RESNETS: {OUT_FEATURES: [res2, res3, res4, res5]}
  FPN: {IN_FEATURES: [res2, res3, res4, res5]}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
  RPN:
    IN_FEATURES: [p2, p3, p4, p5, p6]
    PRE_NMS_TOPK_TRAIN: 2000
    PRE_NMS_TOPK_TEST: 1000
    POST_NMS_TOPK_TRAIN: 1000
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5]}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 2, POOLER_RESOLUTION: 7}
  ROI_MASK_HEAD: {NUM_CONV: 4}
"""


@pytest.fixture
def read(tmp_path):
    """Reads a tree, with changes by dotted name."""

    def reader(tree, changes=None):
        tree = yaml.safe_load(yaml.safe_dump(tree))
        for name, value in (changes or {}).items():
            *parts, last = name.split(".")
            node = tree
            for part in parts:
                node = node.setdefault(part, {})
            node[last] = value
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(tree))
        return read_config(path)

    return reader


@pytest.fixture
def fpn():
    return yaml.safe_load(FPN)


def test_the_defaults_are_detectron2s_c4(read):
    config = read(C4)
    assert config == MaskRCNNConfig.from_dict(
        {
            "num_classes": 80,
            "test_resize": [800, 1333],
            "rpn": {"anchor_sizes": [[32, 64, 128, 256, 512]], "smooth_l1_beta": 0},
            "roi": {"sampling": 0, "smooth_l1_beta": 0, "fc_channels": []},
            "detection": {"max_detections": 100},
        }
    )


def test_the_usual_pyramid(read, fpn):
    config = read(fpn)
    assert config.levels == (4, 8, 16, 32, 64)
    assert config.backbone.last_stage == 5 and config.fpn.first_stage == 2 and config.fpn.extra_levels == 1
    assert config.rpn.anchor_sizes == ((32,), (64,), (128,), (256,), (512,))
    assert config.rpn.pre_nms == (2000, 1000) and config.rpn.post_nms == (1000, 1000)
    assert config.roi.fc_channels == (1024, 1024)
    assert (config.roi.bins, config.roi.mask_bins, config.roi.mask_convs, config.mask_size) == (7, 14, 4, 28)


FIELDS = [
    ("INPUT.FORMAT", "RGB", "channel_order", "RGB"),
    ("INPUT.MIN_SIZE_TEST", 0, "test_resize", None),
    ("INPUT.MIN_SIZE_TEST", 600, "test_resize", (600, 1333)),
    ("INPUT.MAX_SIZE_TEST", 900, "test_resize", (800, 900)),
    ("MODEL.PIXEL_MEAN", [1, 2, 3.5], "pixel_mean", (1.0, 2.0, 3.5)),
    ("MODEL.PIXEL_STD", [57.0, 58.0, 59.0], "pixel_std", (57.0, 58.0, 59.0)),
    ("MODEL.BACKBONE.FREEZE_AT", 0, "backbone.freeze_at", 0),
    ("MODEL.BACKBONE.FREEZE_AT", 5, "backbone.freeze_at", 4),
    ("MODEL.RESNETS.DEPTH", 101, "backbone.depth", 101),
    ("MODEL.RESNETS.NORM", "GN", "backbone.norm", "group"),
    ("MODEL.RESNETS.NORM", "GN", "roi.norm", "group"),
    ("MODEL.RESNETS.NORM", "SyncBN", "backbone.norm", "frozen_bn"),
    ("MODEL.RESNETS.NUM_GROUPS", 32, "backbone.groups", 32),
    ("MODEL.RESNETS.NUM_GROUPS", 32, "backbone.bottleneck_channels", 2048),
    ("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "backbone.stem_channels", 8),
    ("MODEL.RESNETS.RES2_OUT_CHANNELS", 24, "backbone.res2_channels", 24),
    ("MODEL.RESNETS.WIDTH_PER_GROUP", 8, "backbone.bottleneck_channels", 8),
    ("MODEL.RESNETS.STRIDE_IN_1X1", False, "backbone.stride_in_1x1", False),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [[8, 16]], "rpn.anchor_sizes", ((8, 16),)),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[1.0]], "rpn.anchor_ratios", (1.0,)),
    ("MODEL.ANCHOR_GENERATOR.OFFSET", 0.5, "rpn.anchor_offset", 0.5),
    ("MODEL.RPN.CONV_DIMS", [40], "rpn.channels", 40),
    ("MODEL.RPN.CONV_DIMS", [-1, -1], "rpn.convs", 2),
    ("MODEL.RPN.BBOX_REG_LOSS_TYPE", "giou", "rpn.box_loss", "giou"),
    ("MODEL.RPN.LOSS_WEIGHT", 2.0, "rpn.loss_weights", (2.0, 2.0)),
    ("MODEL.RPN.BBOX_REG_LOSS_WEIGHT", 3.0, "rpn.loss_weights", (1.0, 3.0)),
    ("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "giou", "roi.box_loss", "giou"),
    ("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT", 10.0, "roi.box_loss_weight", 10.0),
    ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlign", "roi.aligned", False),
    ("MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", True, "roi.mask_boxes", "proposals"),
    ("MODEL.RPN.IOU_THRESHOLDS", [0.2, 0.6], "rpn.negative_iou", 0.2),
    ("MODEL.RPN.IOU_THRESHOLDS", [0.2, 0.6], "rpn.positive_iou", 0.6),
    ("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 48, "rpn.samples", 48),
    ("MODEL.RPN.POSITIVE_FRACTION", 0.3, "rpn.positive_fraction", 0.3),
    ("MODEL.RPN.PRE_NMS_TOPK_TRAIN", 7, "rpn.pre_nms", (7, 6000)),
    ("MODEL.RPN.POST_NMS_TOPK_TEST", 7, "rpn.post_nms", (2000, 7)),
    ("MODEL.RPN.NMS_THRESH", 0.65, "rpn.nms_iou", 0.65),
    ("MODEL.RPN.BBOX_REG_WEIGHTS", [1, 1, 2, 2], "rpn.box_weights", (1, 1, 2, 2)),
    ("MODEL.RPN.SMOOTH_L1_BETA", 0.11, "rpn.smooth_l1_beta", 0.11),
    ("MODEL.ROI_HEADS.NUM_CLASSES", 3, "num_classes", 3),
    ("MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.6], "roi.positive_iou", 0.6),
    ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 64, "roi.samples", 64),
    ("MODEL.ROI_HEADS.POSITIVE_FRACTION", 0.5, "roi.positive_fraction", 0.5),
    ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.1, "detection.score_threshold", 0.1),
    ("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.4, "detection.nms_iou", 0.4),
    ("TEST.DETECTIONS_PER_IMAGE", 500, "detection.max_detections", 500),
    ("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 12, "roi.bins", 12),
    ("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 2, "roi.sampling", 2),
    ("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", -1, "roi.sampling", 0),
    ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", "(10.0, 10.0, 4.0, 4.0)", "roi.box_weights", (10, 10, 4, 4)),
    ("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True, "roi.class_agnostic_boxes", True),
    ("MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", 1, "roi.smooth_l1_beta", 1.0),
    ("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", True, "roi.class_agnostic_masks", True),
    ("MODEL.ROI_MASK_HEAD.CONV_DIM", 20, "roi.mask_channels", 20),
    ("MODEL.ROI_MASK_HEAD.NUM_CONV", 2, "roi.mask_convs", 2),
]


@pytest.mark.parametrize(("name", "value", "ours", "expected"), FIELDS)
def test_every_field_has_its_place(read, name, value, ours, expected):
    config = read(C4, {name: value})
    for part in ours.split("."):
        config = getattr(config, part)
    assert config == expected


@pytest.mark.parametrize(
    ("changes", "ours", "expected"),
    [
        ({"MODEL.FPN.OUT_CHANNELS": 16}, "fpn.channels", 16),
        ({"MODEL.FPN.FUSE_TYPE": "avg"}, "fpn.fuse", "avg"),
        ({"MODEL.FPN.NORM": "GN"}, "fpn.norm", "group"),
        (
            {"MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, True, True, True]},
            "backbone.deformable",
            (False, True, True, True),
        ),
        ({"MODEL.ROI_BOX_HEAD.NUM_CONV": 4, "MODEL.ROI_BOX_HEAD.CONV_DIM": 24}, "roi.box_convs", 4),
        ({"MODEL.ROI_BOX_HEAD.NUM_CONV": 4, "MODEL.ROI_BOX_HEAD.NORM": "GN"}, "roi.box_norm", "group"),
        ({"MODEL.ROI_MASK_HEAD.NORM": "SyncBN"}, "roi.mask_norm", "frozen_bn"),
        ({"MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": True}, "roi.mask_boxes", "predicted"),
        (
            {f"MODEL.ROI_{head}_HEAD.POOLER_TYPE": "ROIAlign" for head in ("BOX", "MASK")},
            "roi.aligned",
            False,
        ),
        ({"MODEL.ROI_BOX_HEAD.NUM_FC": 1, "MODEL.ROI_BOX_HEAD.FC_DIM": 48}, "roi.fc_channels", (48,)),
        ({"MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 16}, "mask_size", 32),
        ({"MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2}, "roi.mask_sampling", 2),
        ({"MODEL.RESNETS.DEPTH": 18, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64}, "backbone.depth", 18),
        ({"MODEL.ANCHOR_GENERATOR.SIZES": [[8]]}, "rpn.anchor_sizes", ((8,),) * 5),
        ({"MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[1.0, 2.0]] * 5}, "rpn.anchor_ratios", (1.0, 2.0)),
        (
            {
                "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5"],
                "MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16], [32], [64]],
            },
            "fpn.extra_levels",
            0,
        ),
        (
            {
                "MODEL.FPN.IN_FEATURES": ["res3", "res4"],
                "MODEL.RESNETS.OUT_FEATURES": ["res3", "res4"],
                "MODEL.RPN.IN_FEATURES": ["p3", "p4", "p5"],
                "MODEL.ROI_HEADS.IN_FEATURES": ["p3", "p4"],
                "MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16], [32]],
            },
            "levels",
            (8, 16, 32),
        ),
    ],
)
def test_pyramids_of_other_kinds(read, fpn, changes, ours, expected):
    config = read(fpn, changes)
    for part in ours.split("."):
        config = getattr(config, part)
    assert config == expected


REFUSED = [
    ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True], "deformable"),
    ("MODEL.ROI_HEADS.IOU_LABELS", [0, -1], "other RoI labels"),
    ("MODEL.RESNETS.NORM", "LN", "another norm"),
    ("MODEL.RESNETS.RES5_DILATION", 2, "dilated"),
    ("MODEL.RESNETS.DEPTH", 18, "two kinds of blocks"),
    ("MODEL.RESNETS.DEPTH", 77, "another depth"),
    ("MODEL.RESNETS.OUT_FEATURES", ["res3"], "must end with res4"),
    ("MODEL.KEYPOINT_ON", True, "keypoints"),
    ("MODEL.MASK_ON", False, "without masks"),
    ("MODEL.LOAD_PROPOSALS", True, "precomputed"),
    ("MODEL.META_ARCHITECTURE", "RetinaNet", "'RetinaNet'"),
    ("MODEL.META_ARCHITECTURE", "PanopticFPN", "'PanopticFPN'"),
    ("MODEL.ROI_HEADS.NAME", "PointRendROIHeads", "PointRend"),
    ("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", False, "ground truths"),
    ("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN", "'RRPN'"),
    ("MODEL.PROPOSAL_GENERATOR.MIN_SIZE", 4, "smallest"),
    ("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator", "anchor generator"),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.5], [1.0]], "same for all levels"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16]], r"rpn\.anchor_sizes has 2 levels"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [8, 16], r"rpn\.anchor_sizes"),
    ("MODEL.BACKBONE.NAME", "build_vit", "another backbone"),
    ("MODEL.RPN.IN_FEATURES", ["res3"], "supported: \\['res4'\\]"),
    ("MODEL.RPN.CONV_DIMS", [64, 32], "several convolutions"),
    ("MODEL.RPN.BOUNDARY_THRESH", 0, "border"),
    ("MODEL.RPN.BBOX_REG_LOSS_TYPE", "ciou", "box loss"),
    ("MODEL.RPN.IOU_THRESHOLDS", [0.5], "has not 2 values"),
    ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool", "RoI pooling"),
    ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True, "sigmoid"),
    ("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", True, "federated"),
    ("MODEL.ROI_MASK_HEAD.NAME", "PointRendMaskHead", "another mask head"),
    ("INPUT.FORMAT", "L", "image format"),
    ("TEST.DETECTIONS_PER_IMAGE", -1, "without a limit"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_what_is_lacking_is_refused_by_name(read, name, value, message):
    with pytest.raises(Detectron2Error, match=rf"(?s)config\.yaml.*{message}") as error:
        read(C4, {name: value})
    # Our config's own check names our field.
    assert name in str(error.value) or message.startswith(r"rpn\.")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MODEL.FPN.NORM", "LN", "another norm"),
        ("MODEL.FPN.IN_FEATURES", [], "names no stage"),
        ("MODEL.FPN.IN_FEATURES", ["res2", "res4", "res5"], r"supported: \['res2', 'res3', 'res4', 'res5'\]"),
        ("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4"], "must have"),
        ("MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone", "another backbone"),
        ("MODEL.RPN.IN_FEATURES", ["p3", "p4", "p5"], "with or without p6"),
        ("MODEL.ROI_HEADS.IN_FEATURES", ["p2"], "not supported with StandardROIHeads"),
        ("MODEL.RESNETS.RES5_DILATION", 2, "supported: 1"),
        ("MODEL.ROI_BOX_HEAD.NUM_FC", 0, "at least one layer"),
        ("MODEL.ROI_MASK_HEAD.POOLER_TYPE", "", "supported: 'ROIAlignV2'"),
        ("MODEL.ROI_MASK_HEAD.NORM", "LN", "another norm"),
        ("MODEL.RESNETS.DEFORM_NUM_GROUPS", 2, "several groups"),
    ],
)
def test_pyramids_that_are_lacking(read, fpn, name, value, message):
    with pytest.raises(Detectron2Error, match=rf"{name}: (?s:.)*{message}"):
        read(fpn, {name: value})


def test_all_lacking_features_in_one_error(read):
    changes = {name: value for name, value, message in REFUSED[:5] + REFUSED[7:9]}
    with pytest.raises(Detectron2Error) as error:
        read(C4, changes)
    assert all(name in str(error.value) for name in changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"MODEL.RESNETS.DEFORM_MODULATED": True, "MODEL.RETINANET.NUM_CLASSES": 3},
        {"MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.5], "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": 4},
        {"MODEL.FPN.OUT_CHANNELS": 7, "MODEL.ROI_BOX_HEAD.NUM_FC": 2, "MODEL.ROI_MASK_HEAD.NORM": "GN"},
        {"SOLVER.ANYTHING": 1, "DATASETS.TRAIN": "('coco_2017_train',)", "MY_OWN": {"PART": 3}, "SEED": 4},
        {"MODEL.WEIGHTS": "detectron2://x.pkl", "MODEL.DEVICE": "cpu", "TEST.AUG.ENABLED": False},
        {"INPUT.CROP.ENABLED": True, "INPUT.MIN_SIZE_TRAIN": "(640, 672)"},
    ],
)
def test_what_is_not_switched_on_does_not_matter(read, changes):
    without_fpn = read(C4)
    assert read(C4, changes) == without_fpn


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"MODEL.ROI_HEADS.NUM_CLASES": 3},
            r"NUM_CLASES: unknown .did you mean 'MODEL\.ROI_HEADS\.NUM_CLASSES'",
        ),
        ({"MODEL.POINT_HEAD.NAME": "x"}, r"MODEL\.POINT_HEAD\.NAME: unknown"),
        ({"MODEL.ROI_HEADS.NUM_CLASSES": "three"}, "'three' where Detectron2 has a value of type int"),
        ({"MODEL.MASK_ON": 1}, "1 where Detectron2 has a value of type bool"),
        ({"MODEL.RPN.IN_FEATURES": "res4"}, "'res4' where Detectron2 has a value of type list"),
        ({"MODEL.RPN.IOU_THRESHOLDS": None}, "None where Detectron2 has a value of type list"),
        ({"MODEL.ROI_HEADS.NUM_CLASSES": 2.5}, r"num_classes is 2\.5: it must be a whole number"),
        ({"MODEL.RPN": 3}, r"MODEL\.RPN: unknown"),
        ({"VERSION": 1}, "VERSION: 1; only 2 is read"),
        ({"MODEL.PIXEL_MEAN": [128.0], "MODEL.PIXEL_STD": [1.0]}, "a list of 3 values"),
        ({"MODEL.RPN.POST_NMS_TOPK_TEST": 0}, r"rpn\.post_nms\[1\] is 0"),
    ],
)
def test_faults_of_fields(read, changes, message):
    with pytest.raises(Detectron2Error, match=message):
        read(C4, changes)


def test_a_chain_of_bases(tmp_path):
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "root.yaml").write_text(
        "MODEL: {MASK_ON: true, RESNETS: {DEPTH: 101, STEM_OUT_CHANNELS: 8}}"
    )
    (tmp_path / "bases" / "middle.yaml").write_text("_BASE_: root.yaml\nMODEL: {ROI_HEADS: {NUM_CLASSES: 3}}")
    leaf = tmp_path / "leaf.yaml"
    leaf.write_text(
        "_BASE_: bases/middle.yaml\nMODEL: {ROI_HEADS: {NUM_CLASSES: 2}, PIXEL_STD: !!python/tuple [2, 2, 2]}"
    )
    config = read_config(leaf)
    assert (config.backbone.depth, config.backbone.stem_channels, config.num_classes) == (101, 8, 2)
    assert config.pixel_std == (2, 2, 2)


def test_of_several_bases_the_later_one_wins(tmp_path):
    (tmp_path / "a.yaml").write_text("MODEL: {MASK_ON: true, RESNETS: {DEPTH: 101, STEM_OUT_CHANNELS: 8}}")
    (tmp_path / "b.yaml").write_text("MODEL: {RESNETS: {DEPTH: 152}, ROI_HEADS: {NUM_CLASSES: 3}}")
    (tmp_path / "c.yaml").write_text("_BASE_: [a.yaml, b.yaml]\nMODEL: {ROI_HEADS: {NUM_CLASSES: 4}}")
    config = read_config(tmp_path / "c.yaml")
    assert (config.backbone.depth, config.backbone.stem_channels, config.num_classes) == (152, 8, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_BASE_: absent.yaml", r"absent\.yaml, the _BASE_ of .*config\.yaml, cannot be read"),
        ("_BASE_: config.yaml", "its own _BASE_"),
        ("_BASE_: https://example.org/base.yaml", "download it"),
        ("_BASE_: [3]", "_BASE_ 3 is no path"),
        ("", "holds no fields"),
        ("- 1", "holds no fields"),
        ("a: [", "no plain YAML"),
        ("a: !!python/object/apply:os.system ['touch pwned']", "no plain YAML"),
        ("a: !!python/name:os.system", "no plain YAML"),
        ("a: \x00", "no plain YAML"),
        ("a: !!float ''", "no plain YAML"),
        ('_BASE_: "a\\0b"', "is no path"),
        ("_BASE_: ~nobody-of-this-name/a.yaml", "is no path"),
        (f"_BASE_: {'a' * 5000}", "cannot be read|is no path"),
        (f"MODEL: {{{', '.join(f'{n}: 1' for n in range(900))}}}", "880 more unknown fields"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(Detectron2Error, match=message):
        read_config(tmp_path / "config.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_bases_that_multiply_are_refused(tmp_path):
    """Ten bases that have ten bases each, eight times."""
    for n in range(8):
        (tmp_path / f"{n}.yaml").write_text(f"_BASE_: [{', '.join([f'{n + 1}.yaml'] * 10)}]")
    (tmp_path / "8.yaml").write_text("MODEL: {MASK_ON: true}")
    with pytest.raises(Detectron2Error, match="more than 100 files"):
        read_config(tmp_path / "0.yaml")


def test_an_absent_file(tmp_path):
    with pytest.raises(Detectron2Error, match=r"absent\.yaml cannot be read"):
        read_config(tmp_path / "absent.yaml")


def test_the_golden_configs(shared):
    c4 = read_config(shared / "goldens" / "c4_config.yaml")
    assert c4.fpn is None and c4.num_classes == 3 and c4.backbone.res2_channels == 24
    assert c4.rpn.pre_nms == (1200, 800) and c4.rpn.channels == 40 and c4.mask_size == 14
    fpn = read_config(shared / "goldens" / "fpn_config.yaml")
    assert fpn.levels == (4, 8, 16, 32, 64) and fpn.fpn.channels == 16 and fpn.mask_size == 28
