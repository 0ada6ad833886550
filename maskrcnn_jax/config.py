"""What a Mask R-CNN is made of: frozen, validated, and written to JSON beside every checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from maskrcnn_jax.plain_values import build

Norm = Literal["frozen_bn", "group"]

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


@dataclass(frozen=True)
class BackboneConfig:
    """A ResNet (He et al. 2016). Stages are numbered as in the paper: res2 to res5.

    Attributes:
      depth: 18 and 34 have basic blocks, 50, 101 and 152 bottlenecks.
      last_stage: the deepest stage that the backbone computes. For C4 its output is the feature map,
        and the next stage becomes the RoI head.
      stem_channels: outputs of conv1.
      stem_pool: whether the 3x3/2 max pool follows conv1/2; without it every stride is halved.
      res2_channels: outputs of res2; each stage doubles them.
      bottleneck_channels: width of res2's 3x3 convolution; each stage doubles it. Basic blocks ignore it.
      stage_strides: stride of res2, res3, res4, res5.
      stride_in_1x1: the stride of a bottleneck sits in its first 1x1 convolution (MSRA, Detectron2's C4)
        or in its 3x3 (torchvision).
      norm: `frozen_bn`, an affine layer with fixed numbers, or `group`, to learn from scratch.
      freeze_at: stages up to this one get no gradient; 1 is the stem, 2 stem and res2, 0 none.
    """

    depth: int = 50
    last_stage: int = 4
    stem_channels: int = 64
    stem_pool: bool = True
    res2_channels: int = 256
    bottleneck_channels: int = 64
    stage_strides: tuple[int, ...] = (1, 2, 2, 2)
    stride_in_1x1: bool = True
    norm: Norm = "frozen_bn"
    freeze_at: int = 2

    def __post_init__(self):
        _require(self.depth in BLOCKS, f"backbone.depth {self.depth} is not one of {sorted(BLOCKS)}")
        _require(2 <= self.last_stage <= 5, f"backbone.last_stage {self.last_stage} is not in 2..5")
        _require(len(self.stage_strides) == 4, "backbone.stage_strides needs four values, for res2 to res5")
        _require(
            0 <= self.freeze_at <= self.last_stage,
            f"backbone.freeze_at {self.freeze_at} is not in 0..{self.last_stage}",
        )
        _require_positive(
            "backbone", self, "stem_channels", "res2_channels", "bottleneck_channels", "stage_strides"
        )

    def stride(self, stage: int) -> int:
        """Image pixels per cell of a stage's output."""
        stride = 4 if self.stem_pool else 2
        for s in self.stage_strides[: stage - 1]:
            stride *= s
        return stride

    def channels(self, stage: int) -> int:
        """Output channels of a stage."""
        return self.res2_channels * 2 ** (stage - 2)


@dataclass(frozen=True)
class FPNConfig:
    """A feature pyramid (Lin et al. 2017) over res`first_stage` to the backbone's last stage.

    Attributes:
      channels: of every level.
      first_stage: the finest level is P`first_stage`.
      extra_levels: coarser levels by max pooling; the RPN reads them, the RoI heads do not.
      fuse: how the top-down path joins the lateral one: `sum` or `avg`.
    """

    channels: int = 256
    first_stage: int = 2
    extra_levels: int = 1
    fuse: Literal["sum", "avg"] = "sum"


@dataclass(frozen=True)
class RPNConfig:
    """Region proposal network (Ren et al. 2015).

    Attributes:
      anchor_sizes: square roots of the anchors' areas in pixels, one tuple for each level.
      anchor_ratios: heights over widths.
      anchor_offset: where in its cell an anchor is centred, in cells; 0 as in Detectron2.
      channels: of the 3x3 convolution; None as many as its input.
      positive_iou, negative_iou: labels of anchors; between the two they are ignored.
      samples, positive_fraction: anchors that enter the loss, per image.
      pre_nms, post_nms: (training, test) proposals before NMS, per level, and after it, in all.
      nms_iou: proposals that overlap a better one by more are dropped.
      box_weights: scale of the four deltas.
      smooth_l1_beta: where the box loss turns from square to linear; 0 is plain L1.
    """

    anchor_sizes: tuple[tuple[float, ...], ...] = ((8, 16, 32, 64, 128),)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchor_offset: float = 0.0
    channels: int | None = None
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    samples: int = 256
    positive_fraction: float = 0.5
    pre_nms: tuple[int, int] = (12000, 6000)
    post_nms: tuple[int, int] = (2000, 1000)
    nms_iou: float = 0.7
    box_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    smooth_l1_beta: float = 1.0

    def __post_init__(self):
        _require_positive(
            "rpn", self, "anchor_ratios", "channels", "samples", "pre_nms", "post_nms", "box_weights"
        )
        _require(len(self.box_weights) == 4, f"rpn.box_weights has {len(self.box_weights)} values, not 4")
        for level in self.anchor_sizes:
            _require(
                len(level) == len(self.anchor_sizes[0]) > 0 and min(level) > 0,
                f"rpn.anchor_sizes {self.anchor_sizes}: each level needs the same number of positive sizes",
            )


@dataclass(frozen=True)
class RoIConfig:
    """RoI heads: the box and mask branches (He et al. 2017).

    Attributes:
      positive_iou: RoIs that overlap a ground truth by at least this are foreground.
      samples, positive_fraction: RoIs that enter the losses, per image.
      bins: RoIAlign's output side for the box branch (and for the mask branch of a C4 head).
      sampling: RoIAlign's samples per bin side; 0 is Detectron2's adaptive count.
      norm: of the C4 head's residual stage, apart from the backbone's.
      fc_channels: the FPN box head's fully connected layers.
      box_weights: scale of the four deltas.
      class_agnostic_boxes, class_agnostic_masks: one prediction for all classes.
      smooth_l1_beta: where the box loss turns from square to linear; 0 is plain L1.
      mask_bins: RoIAlign's output side for the FPN mask branch.
      mask_sampling: its samples per bin side there; None as many as `sampling`.
      mask_margin: by which share of a box's length the mask branch sees more at each of its sides, so that
        a box that is too tight does not cut the mask; only for the FPN mask branch.
      mask_convs: 3x3 convolutions of the mask branch: 0 for C4, 4 for FPN.
      mask_channels: of the mask branch.
      mask_deconvs: 2x2 stride-2 transposed convolutions, each doubling the mask's side.
    """

    positive_iou: float = 0.5
    samples: int = 512
    positive_fraction: float = 0.25
    bins: int = 14
    sampling: int = 2
    norm: Norm = "frozen_bn"
    fc_channels: tuple[int, ...] = (1024, 1024)
    box_weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0)
    class_agnostic_boxes: bool = False
    class_agnostic_masks: bool = False
    smooth_l1_beta: float = 1.0
    mask_bins: int = 14
    mask_sampling: int | None = None
    mask_margin: float = 0.0
    mask_convs: int = 0
    mask_channels: int = 256
    mask_deconvs: int = 1

    def __post_init__(self):
        _require_positive(
            "roi", self, "samples", "bins", "fc_channels", "box_weights", "mask_bins", "mask_channels"
        )
        _require(len(self.box_weights) == 4, f"roi.box_weights has {len(self.box_weights)} values, not 4")
        _require(
            0 <= self.mask_margin <= 1, f"roi.mask_margin is {self.mask_margin}, not a share from 0 to 1"
        )
        for name in ("sampling", "mask_sampling", "mask_convs", "mask_deconvs"):
            value = getattr(self, name)
            _require(value is None or value >= 0, f"roi.{name} is {value}, not at least 0")


@dataclass(frozen=True)
class DetectionConfig:
    """How scored boxes become detections.

    Attributes:
      score_threshold: detections must score more than this.
      nms_iou: per class, a box that overlaps a better one by more is dropped.
      max_detections: D, the most detections of an image.
    """

    score_threshold: float = 0.05
    nms_iou: float = 0.5
    max_detections: int = 500

    def __post_init__(self):
        _require_positive("detection", self, "max_detections")


@dataclass(frozen=True)
class MaskRCNNConfig:
    """A whole model. `fpn` None makes it a C4 model: features of one stage, the next one as RoI head.

    Attributes:
      num_classes: K, without the background.
      pixel_mean, pixel_std: of the input, 0..255, in `channel_order`.
      channel_order: the order in which the weights expect the channels; images are always given as RGB.
      dtype: of convolutions and matrix products; boxes, losses and NMS are float32 in any case.
      test_resize: before prediction, images are resized so that the shorter side has the first number
        of pixels, unless the longer one would pass the second (Detectron2's ResizeShortestEdge); None
        leaves them as they are.
      stretch_grey: before prediction, images without colour are stretched between two percentiles (see
        `images.intensity`), as the augmentation of that name does in training.
    """

    num_classes: int = 1
    pixel_mean: tuple[float, ...] = (103.53, 116.28, 123.675)
    pixel_std: tuple[float, ...] = (1.0, 1.0, 1.0)
    channel_order: Literal["RGB", "BGR"] = "BGR"
    dtype: Literal["float32", "bfloat16"] = "float32"
    test_resize: tuple[int, int] | None = None
    stretch_grey: bool = False
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    fpn: FPNConfig | None = None
    rpn: RPNConfig = field(default_factory=RPNConfig)
    roi: RoIConfig = field(default_factory=RoIConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)

    def __post_init__(self):
        levels = len(self.levels)
        _require(self.num_classes >= 1, "num_classes must be at least 1")
        _require(
            len(self.pixel_mean) == len(self.pixel_std) == 3 and 0 not in self.pixel_std,
            f"pixel_mean {self.pixel_mean} and pixel_std {self.pixel_std} need three values each, none of "
            "them 0 in pixel_std: images have three channels",
        )
        _require(
            self.test_resize is None or min(self.test_resize) >= 1,
            f"test_resize {self.test_resize} is no pair of sides in pixels",
        )
        _require(
            len(self.rpn.anchor_sizes) == levels,
            f"rpn.anchor_sizes has {len(self.rpn.anchor_sizes)} levels, the model {levels}",
        )
        _require(
            self.fpn is not None or self.roi.mask_margin == 0,
            f"roi.mask_margin is {self.roi.mask_margin}: a C4 head shares the box's features, it must be 0",
        )
        _require(
            self.fpn is not None or self.backbone.last_stage < 5,
            "a C4 model uses the stage after backbone.last_stage as its RoI head: last_stage must be below 5",
        )

    @classmethod
    def c4(cls, depth: int = 50, *, num_classes: int = 1, **changes: Any) -> MaskRCNNConfig:
        """The report's model: ResNet-C4 (res4 features at stride 16, res5 as RoI head)."""
        return cls(num_classes=num_classes, backbone=BackboneConfig(depth=depth), **changes)

    @classmethod
    def resnet_fpn(cls, depth: int = 50, *, num_classes: int = 1, **changes: Any) -> MaskRCNNConfig:
        """Detectron2's ResNet-FPN: levels P2 to P6, two-fc box head, four-conv mask head at 28 x 28."""
        parts = {
            "fpn": FPNConfig(),
            "backbone": BackboneConfig(depth=depth, last_stage=5),
            "rpn": RPNConfig(
                anchor_sizes=((32,), (64,), (128,), (256,), (512,)),
                pre_nms=(2000, 1000),
                post_nms=(1000, 1000),
            ),
            "roi": RoIConfig(bins=7, mask_bins=14, mask_convs=4),
        }
        return cls(num_classes=num_classes, **(parts | changes))

    @property
    def levels(self) -> tuple[int, ...]:
        """Stride of each feature map that the RPN reads, finest first."""
        if self.fpn is None:
            return (self.backbone.stride(self.backbone.last_stage),)
        stages = range(self.fpn.first_stage, self.backbone.last_stage + 1)
        strides = [self.backbone.stride(stage) for stage in stages]
        return (*strides, *(strides[-1] * 2 ** (i + 1) for i in range(self.fpn.extra_levels)))

    @property
    def divisibility(self) -> int:
        """Images are padded with zeros to a multiple of this before they enter the backbone."""
        return 1 if self.fpn is None else self.backbone.stride(self.backbone.last_stage)

    @property
    def mask_size(self) -> int:
        """M, the side of the predicted masks in cells."""
        if self.fpn is not None:
            return self.roi.mask_bins * 2**self.roi.mask_deconvs
        head_stride = self.backbone.stage_strides[self.backbone.last_stage - 1]
        return -(-self.roi.bins // head_stride) * 2**self.roi.mask_deconvs

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON or ml_collections."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MaskRCNNConfig:
        """The inverse of `to_dict`.

        Raises:
          ValueError: lists every field that is unknown (with its nearest neighbour) or of another type.
        """
        faults: list[str] = []
        config = build(cls, values, faults)
        if faults:
            raise ValueError("this is no model configuration:\n  " + "\n  ".join(faults))
        return config


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_positive(path: str, part: Any, *names: str) -> None:
    """Counts, sizes and weights of a part, one number or several; None stands for no number."""
    for name in names:
        value = getattr(part, name)
        numbers = value if isinstance(value, tuple) else (value,)
        _require(
            all(number is None or number > 0 for number in numbers), f"{path}.{name} is {value}, not positive"
        )
