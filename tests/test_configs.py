"""Every config of the folder is a valid experiment; the nuclei ones have the report's numbers."""

import json
import re
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.data.anchor_fit import anchor_grids, best_anchor_iou
from maskrcnn_jax.data.augment import compose
from maskrcnn_jax.experiment import Experiment
from maskrcnn_jax.interop.detectron2_config import read_config
from maskrcnn_jax.training.optimizer import make_optimizer
from maskrcnn_jax.training.schedule import warmup_steps_decay

# ml_collections loads config files in a way that Python 3.11 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
FOLDER = Path(__file__).parents[1] / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
FILES = [*NAMES, "nuclei_small.py:scratch"]


def load(name, *overrides):
    """A config as the doors load it: from its file, with overrides, locked."""
    values = flags.FlagValues()
    path = f"{FOLDER / name}{'' if '.py' in name else '.py'}"
    holder = config_flags.DEFINE_config_file("config", path, lock_config=True, flag_values=values)
    arguments = ["door", f"--config={path}", *(f"--config.{override}" for override in overrides)]
    with mock.patch.object(sys, "argv", arguments):  # where ml_collections looks for the overrides
        values(arguments)
    return holder.value


def model(config):
    return MaskRCNNConfig.from_dict(config.model.to_dict())


def test_the_folder_holds_what_the_readme_names():
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+)\.py`", readme)) <= set(NAMES)


@pytest.mark.parametrize("name", FILES)
def test_it_is_a_whole_and_valid_experiment(name):
    config = load(name)
    experiment = Experiment.from_dict(config.to_dict())
    assert experiment.to_dict() == config.to_dict(), "each field is there, for the shell to set"
    schedule = warmup_steps_decay(**config.schedule)
    make_optimizer(model(config), schedule, **config.optimizer)
    assert 0 < config.schedule.warmup < config.steps
    assert all(config.schedule.warmup < milestone < config.steps for milestone in config.schedule.milestones)
    assert config.log_every <= config.checkpoint_every <= config.steps and config.keep_checkpoints >= 1
    assert json.loads(json.dumps(config.to_dict()))["model"]["num_classes"] == config.model.num_classes


@pytest.mark.parametrize("name", FILES)
def test_augmented_images_fit_the_canvas(name):
    """The last op that sets a size sets none above the canvas."""
    data = load(name).data
    compose(data.augment)
    sizes = [op.get("longest") or op.get("size") for op in data.augment if "longest" in op or "size" in op]
    assert sizes and sizes[-1] <= min(data.canvas)


@pytest.mark.parametrize("name", FILES)
def test_fields_are_locked_and_a_misspelt_one_names_its_neighbour(name):
    config = load(name)
    with pytest.raises(AttributeError, match='Did you mean "steps" instead of "stepps"'):
        config.stepps = 1
    with pytest.raises(AttributeError, match='Did you mean "base"'):
        config.schedule.bases = 1
    with pytest.raises(KeyError, match='Did you mean "roi"'):
        load(name, "model.rois.samples=3")
    values = config.model.to_dict()
    values["backbone"]["depht"] = 50
    with pytest.raises(ValueError, match=r"backbone\.depht: unknown field \(did you mean 'depth'\?\)"):
        MaskRCNNConfig.from_dict(values)


@pytest.mark.parametrize("name", FILES)
def test_fields_can_be_set_from_the_shell(name):
    config = load(
        name, "steps=7", "model.detection.score_threshold=0.25", "optimizer.clip_norm=3.0", "eval_every=5"
    )
    assert (config.steps, config.eval_every, config.optimizer.clip_norm) == (7, 5, 3.0)
    assert model(config).detection.score_threshold == 0.25


def test_the_default_is_a_small_c4_model_on_drawn_nuclei():
    config = load("synthetic_tiny")
    default = model(config)
    assert config.data.format == "synthetic" and not config.init_from
    assert default.fpn is None and default.levels == (8,)
    assert default.backbone.norm == default.roi.norm == "group" and default.backbone.freeze_at == 0
    assert default.rpn.positive_iou == 0.5 and len(default.rpn.anchor_sizes[0]) == 2


@pytest.mark.parametrize(
    ("name", "depth", "head"), [("nuclei_r50_c4", 50, "group"), ("nuclei_r101_c4", 101, "frozen_bn")]
)
def test_the_experiment_has_the_reports_numbers(name, depth, head):
    config = load(name)
    c4 = model(config)
    backbone, rpn, roi, detection = c4.backbone, c4.rpn, c4.roi, c4.detection
    assert (c4.num_classes, c4.fpn, c4.levels, backbone.depth, backbone.freeze_at) == (
        1,
        None,
        (16,),
        depth,
        2,
    )
    assert (backbone.norm, roi.norm, backbone.stride_in_1x1) == ("frozen_bn", head, True)
    assert (rpn.anchor_sizes, rpn.anchor_ratios, rpn.anchor_offset) == (
        ((8, 16, 32, 64, 128),),
        (0.5, 1, 2),
        0,
    )
    assert (rpn.positive_iou, rpn.negative_iou, rpn.samples, rpn.positive_fraction) == (0.7, 0.3, 256, 0.5)
    assert (rpn.pre_nms, rpn.post_nms, rpn.nms_iou) == ((12000, 6000), (2000, 1000), 0.7)
    assert (roi.positive_iou, roi.samples, roi.positive_fraction, roi.bins) == (0.5, 512, 0.25, 14)
    assert (roi.box_weights, c4.mask_size) == ((10, 10, 5, 5), 28)
    assert (rpn.smooth_l1_beta, roi.smooth_l1_beta) == (1, 1)
    assert (detection.score_threshold, detection.nms_iou, detection.max_detections) == (0.05, 0.5, 500)
    crop, resize, flip = config.data.augment
    assert crop == {"op": "random_crop", "size": 500} and flip == {"op": "flip_horizontal"}
    assert (min(resize["sizes"]), max(resize["sizes"]), resize["longest"]) == (608, 800, 800)
    assert (config.batch_size, config.steps, config.data.validation_images) == (1, 2400, 4)
    assert config.schedule.to_dict() == {
        "base": 0.01,
        "warmup": 72,
        "milestones": (480, 1200, 1920, 2160),
        "factor": 0.1,
        "warmup_factor": 0.0,
    }
    assert (config.optimizer.momentum, config.optimizer.weight_decay) == (0.9, 1e-4)


ZOO = {  # Detectron2's files in its `configs/`: what they set on top of its defaults
    "coco_r50_c4": """
        MODEL: {MASK_ON: true, RESNETS: {DEPTH: 50}, RPN: {PRE_NMS_TOPK_TEST: 6000, POST_NMS_TOPK_TEST: 1000}}
        VERSION: 2
    """,
    "coco_r50_fpn": """
        MODEL:
          MASK_ON: true
          BACKBONE: {NAME: build_resnet_fpn_backbone}
          RESNETS: {DEPTH: 50, OUT_FEATURES: [res2, res3, res4, res5]}
          FPN: {IN_FEATURES: [res2, res3, res4, res5]}
          ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]], ASPECT_RATIOS: [[0.5, 1.0, 2.0]]}
          RPN:
            IN_FEATURES: [p2, p3, p4, p5, p6]
            PRE_NMS_TOPK_TRAIN: 2000
            PRE_NMS_TOPK_TEST: 1000
            POST_NMS_TOPK_TRAIN: 1000
            POST_NMS_TOPK_TEST: 1000
          ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5]}
          ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 2, POOLER_RESOLUTION: 7}
          ROI_MASK_HEAD: {NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 4, POOLER_RESOLUTION: 14}
        VERSION: 2
    """,
}


@pytest.mark.parametrize("name", ZOO)
def test_the_coco_models_are_detectron2s(name, tmp_path):
    """So a checkpoint of its model zoo, converted by its own YAML file, can be evaluated with this config."""
    (tmp_path / "zoo.yaml").write_text(textwrap.dedent(ZOO[name]))
    assert replace(read_config(tmp_path / "zoo.yaml"), dtype="bfloat16") == model(load(name))


def test_configs_of_large_models_compute_in_bfloat16():
    """The others are small and gain nothing by it on a CPU; the shell has the last word."""
    wide = {name for name in FILES if model(load(name)).dtype == "bfloat16"}
    assert wide == {
        "nuclei_r50_c4",
        "nuclei_r50_c4_cpu",
        "nuclei_r101_c4",
        "nuclei_r50_fpn",
        "coco_r50_c4",
        "coco_r50_fpn",
    }
    assert model(load("nuclei_r50_fpn", "model.dtype=float32")).dtype == "float32"


def test_the_coco_schedule_is_detectron2s_3x():
    config = load("coco_r50_c4")
    assert (config.batch_size, config.steps) == (16, 270_000)
    schedule = warmup_steps_decay(**config.schedule)
    # WarmupMultiStepLR: from a thousandth of 0.02 over 1,000 steps; a tenth at 210,000 and at 250,000.
    rates = {0: 2e-5, 500: 0.02 * 0.5005, 1000: 0.02, 209_999: 0.02, 210_000: 2e-3, 250_000: 2e-4}
    for step, rate in rates.items():
        assert float(schedule(step)) == pytest.approx(rate)
    resize, flip = config.data.augment
    assert resize["sizes"] == (640, 672, 704, 736, 768, 800) and resize["longest"] == 1333
    assert flip == {"op": "flip_horizontal"}
    a, b = (load(f"coco_r50_{name}").to_dict() for name in ("c4", "fpn"))
    assert a | {"model": None} == b | {"model": None}


def test_the_recommended_model_has_detectron2s_heads_and_anchors_for_nuclei():
    config = load("nuclei_r50_fpn")
    ours, usual = model(config), MaskRCNNConfig.resnet_fpn()
    assert ours.roi == usual.roi and ours.fpn.channels == usual.fpn.channels
    assert ours.levels == (4, 8, 16) and not ours.test_resize
    sides = np.geomspace(8, 112, 40)
    for ratio in (0.6, 1.0, 1.6):
        boxes = np.stack([300 - sides, 200 - sides * ratio, 300 + sides, 200 + sides * ratio], axis=1) / 2
        grids = anchor_grids(ours)
        assert (best_anchor_iou(boxes, (512, 512), grids) > 0.5).all()


def test_the_two_experiments_differ_in_depth_and_where_they_start():
    a, b = (load(f"nuclei_{name}_c4").to_dict() for name in ("r50", "r101"))
    for config in (a, b):
        del config["init_from"], config["model"]["backbone"]["depth"], config["model"]["roi"]["norm"]
    assert a == b
