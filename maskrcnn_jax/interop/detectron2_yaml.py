"""Detectron2's YAML files as one flat table: `_BASE_` followed, defaults filled in, types checked.

Values by dotted name, `MODEL.RPN.NMS_THRESH`. `DEFAULTS` are those of Detectron2 0.6 (config/defaults.py)
for every field that a Mask R-CNN's numbers depend on.
"""

import ast
import contextlib
import os
import re
from pathlib import Path
from typing import Any

from maskrcnn_jax import documents
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.plain_values import nearest

VERSION = 2
DEFAULTS: dict[str, Any] = {
    "INPUT.FORMAT": "BGR",
    "INPUT.MAX_SIZE_TEST": 1333,
    "INPUT.MIN_SIZE_TEST": 800,
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.BACKBONE.FREEZE_AT": 2,
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.FPN.IN_FEATURES": [],
    "MODEL.FPN.NORM": "",
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.KEYPOINT_ON": False,
    "MODEL.LOAD_PROPOSALS": False,
    "MODEL.MASK_ON": False,
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 0,
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.RESNETS.DEFORM_MODULATED": False,
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": 1,
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, False, False, False],
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.RESNETS.OUT_FEATURES": ["res4"],
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 256,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 64,
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": [
        [n * w for w in (10.0, 10.0, 5.0, 5.0)] for n in (1, 2, 3)
    ],
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.5, 0.6, 0.7],
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": 1.0,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 256,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
    "MODEL.ROI_BOX_HEAD.NAME": "",
    "MODEL.ROI_BOX_HEAD.NORM": "",
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 0,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.0,
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": False,
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": False,
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
    "MODEL.ROI_HEADS.IOU_LABELS": [0, 1],
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.5],
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeads",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
    "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": True,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": False,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 256,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NORM": "",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 0,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 256,
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": 1.0,
    "MODEL.RPN.BBOX_REG_WEIGHTS": [1.0, 1.0, 1.0, 1.0],
    "MODEL.RPN.BOUNDARY_THRESH": -1,
    "MODEL.RPN.CONV_DIMS": [-1],
    "MODEL.RPN.HEAD_NAME": "StandardRPNHead",
    "MODEL.RPN.IN_FEATURES": ["res4"],
    "MODEL.RPN.IOU_LABELS": [0, -1, 1],
    "MODEL.RPN.IOU_THRESHOLDS": [0.3, 0.7],
    "MODEL.RPN.LOSS_WEIGHT": 1.0,
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.RPN.POSITIVE_FRACTION": 0.5,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 12000,
    "MODEL.RPN.SMOOTH_L1_BETA": 0.0,
    "TEST.DETECTIONS_PER_IMAGE": 100,
}
# Parts of Detectron2 that only work where another field switches them on, and settings of a run.
_WITHOUT_EFFECT = re.compile(
    r"(?!MODEL|INPUT\.(FORMAT|MAX_SIZE_TEST|MIN_SIZE_TEST)$|TEST\.DETECTIONS_PER_IMAGE$).*"
    r"|MODEL\.(DEVICE|WEIGHTS)"
    r"|MODEL\.(PANOPTIC_FPN|RETINANET|ROI_KEYPOINT_HEAD|SEM_SEG_HEAD)\..*"
    r"|MODEL\.ANCHOR_GENERATOR\.ANGLES"
    r"|MODEL\.ROI_BOX_HEAD\.(FED_LOSS_FREQ_WEIGHT_POWER|FED_LOSS_NUM_CLASSES)"
)


_MOST_FILES = 100
_MOST_LISTED = 20


class Detectron2Error(UserError):
    """A Detectron2 file cannot be used; the message says which, names every fault, and what to do."""


def read_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """All fields of `DEFAULTS` as a YAML file and its bases set them; tuples are lists.

    Raises:
      Detectron2Error: a file is missing or no YAML, or fields are unknown or of another type.
    """
    fields = _flatten(_Files().merged(Path(path), ()))
    unknown = [name for name in fields if name not in DEFAULTS and not _WITHOUT_EFFECT.fullmatch(name)]
    faults = [f"{name}: unknown{nearest(name, DEFAULTS)}" for name in unknown[:_MOST_LISTED]]
    if len(unknown) > _MOST_LISTED:
        faults.append(f"{len(unknown) - _MOST_LISTED} more unknown fields")
    version = fields.get("VERSION", VERSION)
    if version != VERSION:
        faults.append(f"VERSION: {version!r}; only {VERSION} is read: let Detectron2 write the file again")
    values = dict(DEFAULTS)
    for name in DEFAULTS.keys() & fields.keys():
        values[name] = _plain(fields[name], DEFAULTS[name])
        if _kind(values[name]) != _kind(DEFAULTS[name]):
            expected = type(DEFAULTS[name]).__name__
            faults.append(f"{name}: {fields[name]!r} where Detectron2 has a value of type {expected}")
    if faults:
        raise Detectron2Error(
            "\n  ".join([f"{path} is no configuration of Detectron2 0.6:", *sorted(faults)])
        )
    return values


class _Files:
    """Reads files and their bases; not without end, as each of ten bases may have ten."""

    def __init__(self):
        self._left = _MOST_FILES

    def merged(self, path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
        """The tree of a file merged onto that of its `_BASE_`, or of several."""
        if path in above:
            raise Detectron2Error(f"{path} is its own _BASE_ in the end: {' -> '.join(map(str, above))}")
        self._left -= 1
        if self._left < 0:
            raise Detectron2Error(f"{above[0]} has more than {_MOST_FILES} files as its _BASE_ and theirs")
        try:
            tree = documents.read_yaml(path)
        except documents.DocumentError as error:
            by = f", the _BASE_ of {above[-1]}," if above else ""
            raise Detectron2Error(f"{path}{by} {error.what}; {error.remedy}") from error
        if not isinstance(tree, dict):
            raise Detectron2Error(f"{path} holds no fields: expected a Detectron2 configuration")
        bases = tree.pop("_BASE_", None) or []
        merged = {}
        for base in bases if isinstance(bases, list) else [bases]:  # Of several, a later one wins.
            merged = _merge(merged, self.merged(_base(path, base), (*above, path)))
        return _merge(merged, tree)


def _base(path: Path, base: Any) -> Path:
    """The path that a file names as its base, with all `..` in it followed."""
    if isinstance(base, str) and "://" not in base:
        # A NUL, a user that is not there, a link to itself.
        with contextlib.suppress(ValueError, RuntimeError, OSError):
            return (path.parent / Path(base).expanduser()).resolve()
    raise Detectron2Error(f"{path}: _BASE_ {base!r} is no path of a file; download it and name its path")


def _merge(base: dict, tree: dict) -> dict:
    merged = dict(base)
    for name, value in tree.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = _merge(base[name], value) if both else value
    return merged


def _flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    fields = {}
    for name, value in tree.items():
        nested = isinstance(value, dict)
        fields |= _flatten(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return fields


def _plain(value: Any, default: Any) -> Any:
    """`value` with lists for tuples; YAML takes `(1, 2)` for text, and Detectron2 evaluates it."""
    if isinstance(value, str) and not isinstance(default, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    if isinstance(value, list | tuple):
        return [_plain(item, None) for item in value]
    return value


def _kind(value: Any) -> type:
    """Whole numbers may stand for others."""
    return float if type(value) is int else type(value)
