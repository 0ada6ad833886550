"""The parts of a Mask R-CNN's config, each for itself: fields, their ranges, and what cannot go together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from maskrcnn_jax.plain_values import Checked
from maskrcnn_jax.ranges import Channels, Count, Length, PositiveWeight, Range, Share, Weight

Depth = Literal[18, 34, 50, 101, 152]
Norm = Literal["frozen_bn", "group"]
BoxLoss = Literal["smooth_l1", "giou"]
# What a few fields share. A stage, a stride, the side of a pooled feature map, layers of one kind.
Stage = Annotated[int, Range(2, 5)]
Stride = Annotated[int, Range(1, 4)]
Bins = Annotated[int, Range(1, 64)]
Layers = Annotated[int, Range(0, 32)]
Sampling = Annotated[int, Range(0, 16)]
AnchorSizes = Annotated[tuple[Annotated[float, Range(0, 10_000, above=True)], ...], Length(1, 32)]
FourWeights = tuple[PositiveWeight, PositiveWeight, PositiveWeight, PositiveWeight]
Offset = Annotated[float, Range(-1000, 1000)]

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


@dataclass(frozen=True)
class BackboneConfig(Checked):
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
      groups: of the 3x3 convolution of a bottleneck (ResNeXt, Xie et al. 2017).
      res5_dilation: cells between the taps of res5's 3x3 convolutions; 2 goes with a stride of 1 there (DC5).
      deformable: whether a bottleneck's 3x3 convolution is deformable (Dai et al. 2017), in res2 to res5.
      deform_weights: whether its taps are weighted, too (Zhu et al. 2019).
      norm: `frozen_bn`, an affine layer with fixed numbers, or `group`, to learn from scratch.
      norm_epsilon: what a frozen batch norm adds to its variance.
      freeze_at: stages up to this one get no gradient; 1 is the stem, 2 stem and res2, 0 none.
    """

    depth: Depth = 50
    last_stage: Stage = 4
    stem_channels: Channels = 64
    stem_pool: bool = True
    res2_channels: Channels = 256
    bottleneck_channels: Channels = 64
    stage_strides: tuple[Stride, Stride, Stride, Stride] = (1, 2, 2, 2)
    stride_in_1x1: bool = True
    groups: Annotated[int, Range(1, 1024)] = 1
    res5_dilation: Annotated[int, Range(1, 4)] = 1
    deformable: tuple[bool, bool, bool, bool] = (False, False, False, False)
    deform_weights: bool = False
    norm: Norm = "frozen_bn"
    norm_epsilon: Annotated[float, Range(0, 0.1)] = 1e-5
    freeze_at: Annotated[int, Range(0, 5)] = 2

    def conflicts(self) -> Iterator[str]:
        if self.freeze_at > self.last_stage:
            yield f"freeze_at is {self.freeze_at}: it must be at most last_stage, {self.last_stage}"
        if self.groups > 1 and self.depth < 50:
            yield f"groups is {self.groups}: it must be 1 for the basic blocks of depth {self.depth}"
        if any(self.deformable) and self.depth < 50:
            yield f"deformable is {self.deformable}: it must be off for basic blocks, of depth {self.depth}"
        if self.bottleneck_channels % self.groups:
            yield f"groups is {self.groups}: it must divide bottleneck_channels, {self.bottleneck_channels}"

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
class FPNConfig(Checked):
    """A feature pyramid (Lin et al. 2017) over res`first_stage` to the backbone's last stage.

    Attributes:
      channels: of every level.
      first_stage: the finest level is P`first_stage`.
      extra_levels: coarser levels by max pooling; the RPN reads them, the RoI heads do not.
      fuse: how the top-down path joins the lateral one: `sum` or `avg`.
      norm: after each convolution; None has biases in its place.
    """

    channels: Channels = 256
    first_stage: Stage = 2
    extra_levels: Annotated[int, Range(0, 4)] = 1
    fuse: Literal["sum", "avg"] = "sum"
    norm: Norm | None = None


@dataclass(frozen=True)
class RPNConfig(Checked):
    """Region proposal network (Ren et al. 2015).

    Attributes:
      anchor_sizes: square roots of the anchors' areas in pixels, one tuple for each level.
      anchor_ratios: heights over widths.
      anchor_offset: where in its cell an anchor is centred, in cells; 0 as in Detectron2.
      anchor_rounding: whether the corners around a cell's centre are whole pixels (torchvision).
      anchor_spacing: pixels from one cell's anchors to the next: the level's `stride`, or the `content`'s
        side over the level's cells, rounded down (torchvision): less where the coarsest level ends in half
        a cell.
      convs: 3x3 convolutions before the outputs.
      channels: of these convolutions; None as many as their input.
      positive_iou, negative_iou: labels of anchors; between the two they are ignored.
      samples, positive_fraction: anchors that enter the loss, per image.
      pre_nms, post_nms: (training, test) proposals before NMS, per level, and after it, in all.
      nms_iou: proposals that overlap a better one by more are dropped.
      min_size: proposals must be longer than this along both sides, in pixels.
      loss_count: what sums over anchors are divided by: `samples` an image, or those that were `drawn`.
      box_weights: scale of the four deltas.
      box_loss: `smooth_l1` of the deltas, or `giou` of the boxes (Rezatofighi et al. 2019).
      smooth_l1_beta: where the former turns from square to linear; 0 is plain L1.
      loss_weights: of the two losses, objectness and boxes.
    """

    anchor_sizes: Annotated[tuple[AnchorSizes, ...], Length(1, 8)] = ((8, 16, 32, 64, 128),)
    anchor_ratios: Annotated[tuple[Annotated[float, Range(0.01, 100)], ...], Length(1, 32)] = (0.5, 1.0, 2.0)
    anchor_offset: Share = 0.0
    anchor_rounding: bool = False
    anchor_spacing: Literal["stride", "content"] = "stride"
    convs: Annotated[int, Range(1, 32)] = 1
    channels: Channels | None = None
    positive_iou: Share = 0.7
    negative_iou: Share = 0.3
    samples: Count = 256
    positive_fraction: Share = 0.5
    pre_nms: tuple[Count, Count] = (12000, 6000)
    post_nms: tuple[Count, Count] = (2000, 1000)
    nms_iou: Share = 0.7
    min_size: Weight = 0.0
    loss_count: Literal["samples", "drawn"] = "samples"
    box_weights: FourWeights = (1.0, 1.0, 1.0, 1.0)
    box_loss: BoxLoss = "smooth_l1"
    smooth_l1_beta: Weight = 1.0
    loss_weights: tuple[Weight, Weight] = (1.0, 1.0)

    def conflicts(self) -> Iterator[str]:
        if len({len(level) for level in self.anchor_sizes}) > 1:
            yield f"anchor_sizes is {self.anchor_sizes}: each level must have the same number of sizes"
        if self.negative_iou > self.positive_iou:
            yield f"negative_iou is {self.negative_iou}: it must be at most positive_iou, {self.positive_iou}"


@dataclass(frozen=True)
class RoIConfig(Checked):
    """RoI heads: the box and mask branches (He et al. 2017).

    Attributes:
      residual: without a pyramid, the stage after the backbone's last is the head of both branches (C4);
        False gives each branch layers of its own there, as with a pyramid (DC5).
      positive_iou: RoIs that overlap a ground truth by at least this are foreground.
      cascade_ious: the same of further box heads, each of which starts from the boxes of the one before
        (Cascade R-CNN, Cai and Vasconcelos 2018); without any there is one box head.
      cascade_box_weights: scale of the four deltas of each of these.
      samples, positive_fraction: RoIs that enter the losses, per image.
      bins: RoIAlign's output side for the box branch (and for the mask branch of a C4 head).
      sampling: RoIAlign's samples per bin side; 0 is Detectron2's adaptive count.
      aligned: RoIAlign measures from the cells' centres; False as it was first written, half a cell off and
        with boxes of one cell at least (torchvision, Detectron2's `ROIAlign`).
      level_slack: a RoI belongs to level floor(4 + log2(its side / 224) + slack) of a pyramid.
      norm: of the C4 head's residual stage, apart from the backbone's.
      box_convs, box_conv_channels: 3x3 convolutions before the FPN box head's fully connected layers.
      box_norm: after each of them; None has biases in its place.
      fc_channels: the FPN box head's fully connected layers.
      box_weights: scale of the four deltas.
      class_agnostic_boxes, class_agnostic_masks: one prediction for all classes.
      box_loss: `smooth_l1` of the deltas, or `giou` of the boxes (Rezatofighi et al. 2019).
      smooth_l1_beta: where the former turns from square to linear; 0 is plain L1.
      box_loss_weight: of the box loss.
      mask_bins: RoIAlign's output side for the FPN mask branch.
      mask_sampling: its samples per bin side there; None as many as `sampling`.
      mask_margin: by which share of a box's length the mask branch sees more at each of its sides, so that
        a box that is too tight does not cut the mask; only for the FPN mask branch.
      mask_convs: 3x3 convolutions of the mask branch: 0 for C4, 4 for FPN.
      mask_channels: of the mask branch.
      mask_norm: after each of its 3x3 convolutions; None has biases in its place.
      mask_deconvs: 2x2 stride-2 transposed convolutions, each doubling the mask's side.
      mask_targets: `binary`, whether at least a half of a mask's cell is covered (Detectron2), or `soft`, the
        covered share, by RoIAlign that is not aligned (torchvision).
      mask_boxes: what the mask branch of separate layers learns on: the sampled `proposals`, or the boxes
        `predicted` from them (Detectron2's TRAIN_ON_PRED_BOXES).
    """

    residual: bool = True
    positive_iou: Share = 0.5
    cascade_ious: Annotated[tuple[Share, ...], Length(0, 8)] = ()
    cascade_box_weights: Annotated[tuple[FourWeights, ...], Length(0, 8)] = ()
    samples: Count = 512
    positive_fraction: Share = 0.25
    bins: Bins = 14
    sampling: Sampling = 2
    aligned: bool = True
    level_slack: Share = 0.0
    norm: Norm = "frozen_bn"
    box_convs: Layers = 0
    box_conv_channels: Channels = 256
    box_norm: Norm | None = None
    fc_channels: Annotated[tuple[Channels, ...], Length(0, 16)] = (1024, 1024)
    box_weights: FourWeights = (10.0, 10.0, 5.0, 5.0)
    class_agnostic_boxes: bool = False
    class_agnostic_masks: bool = False
    box_loss: BoxLoss = "smooth_l1"
    smooth_l1_beta: Weight = 1.0
    box_loss_weight: Weight = 1.0
    mask_bins: Bins = 14
    mask_sampling: Sampling | None = None
    mask_margin: Share = 0.0
    mask_convs: Layers = 0
    mask_channels: Channels = 256
    mask_norm: Norm | None = None
    mask_deconvs: Annotated[int, Range(0, 4)] = 1
    mask_targets: Literal["binary", "soft"] = "binary"
    mask_boxes: Literal["proposals", "predicted"] = "proposals"

    def conflicts(self) -> Iterator[str]:
        further = len(self.cascade_ious)
        if len(self.cascade_box_weights) != further:
            yield f"cascade_box_weights has {len(self.cascade_box_weights)} entries: it must have {further}"
        if further and not self.class_agnostic_boxes:
            yield "cascade_ious is set: class_agnostic_boxes must be, too, as boxes go on without a class"

    def stage(self, number: int) -> RoIConfig:
        """The settings of one box head of a cascade, 0 the first: its own IoU and box weights."""
        if number == 0:
            return self
        iou, weights = self.cascade_ious[number - 1], self.cascade_box_weights[number - 1]
        return dataclasses.replace(self, positive_iou=iou, box_weights=weights)


@dataclass(frozen=True)
class DetectionConfig(Checked):
    """How scored boxes become detections.

    Attributes:
      score_threshold: detections must score more than this.
      nms_iou: per class, a box that overlaps a better one by more is dropped.
      min_size: detections must be as long as this along both sides, in pixels that the model sees.
      max_detections: D, the most detections of an image.
      containment: a detection more than this share of whose mask lies inside a better one's of its class is
        dropped: parts of an object have little IoU with the whole, so NMS keeps them. 1 keeps all.
      mask_weight: scores are multiplied by this power of how sure the mask is, its mean probability over the
        pixels where it is above one half ("maskness" of SOLO, arXiv:2106.15947). 0 leaves them.
      mask_threshold: a pixel belongs to a mask from this probability on; mask logits are moved so that it
        becomes one half. More makes smaller masks.
      offset: (x, y) pixels of the image, whatever view of it the model sees, that boxes are moved by before
        their masks are pasted: answers for a data set whose labels lie beside what its images show.
      pasting: how masks get into the image: `exact`, sampled at each pixel's centre, or to boxes of
        `whole_pixels` (torchvision).
      min_score: what counts as found wherever a choice must be made: in files, pictures and metrics that
        know no scores, unless told otherwise. It does not change what the model finds.
    """

    score_threshold: Share = 0.05
    nms_iou: Share = 0.5
    min_size: Weight = 0.0
    max_detections: Count = 500
    containment: Annotated[float, Range(0, 1, above=True)] = 1.0
    mask_weight: Annotated[float, Range(0, 16)] = 0.0
    mask_threshold: Annotated[float, Range(0.01, 0.99)] = 0.5
    offset: tuple[Offset, Offset] = (0.0, 0.0)
    pasting: Literal["exact", "whole_pixels"] = "exact"
    min_score: Share = 0.5
