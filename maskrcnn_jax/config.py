"""What a Mask R-CNN is made of: frozen, validated, and written to JSON beside every checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from maskrcnn_jax.config_parts import (
    BLOCKS,
    BackboneConfig,
    Depth,
    DetectionConfig,
    FPNConfig,
    Norm,
    RoIConfig,
    RPNConfig,
)
from maskrcnn_jax.plain_values import Checked
from maskrcnn_jax.ranges import Pixels, Range

__all__ = [
    "BLOCKS",
    "BackboneConfig",
    "Depth",
    "DetectionConfig",
    "FPNConfig",
    "MaskRCNNConfig",
    "Norm",
    "RPNConfig",
    "RoIConfig",
]

Colour = Annotated[float, Range(-1000, 1000)]
Spread = Annotated[float, Range(0.001, 1000)]
# Beyond these, one image would not fit into memory.
LARGEST_STRIDE, LARGEST_MASK = 256, 512


@dataclass(frozen=True)
class MaskRCNNConfig(Checked):
    """A whole model. `fpn` None makes it a C4 model: features of one stage, the next one as RoI head.

    Attributes:
      num_classes: K, without the background.
      pixel_mean, pixel_std: of the input, 0..255, in `channel_order`.
      channel_order: the order in which the weights expect the channels; images are always given as RGB.
      dtype: of convolutions and matrix products; boxes, losses and NMS are float32 in any case.
      remat: whether training keeps only what goes into each residual block and computes its inside again for
        the gradient: less memory for more arithmetic, and the same model.
      test_resize: before prediction, images are resized so that the shorter side has the first number
        of pixels, unless the longer one would pass the second (Detectron2's ResizeShortestEdge); None
        leaves them as they are.
      test_resize_method: `antialias` filters as Pillow does, in 8 bits; `bilinear` interpolates between four
        pixels, unrounded, and rounds sides down (torchvision).
      test_zoom: prediction enlarges images by this, on top of `test_resize`.
      mpp: how many µm a pixel was long in the images that it was trained on. Images that say their own are
        predicted at this scale. None if there were several, or it is not known.
      stretch_grey: before prediction, images without colour are stretched between two percentiles (see
        `images.intensity`), as the augmentation of that name does in training.
    """

    num_classes: Annotated[int, Range(1, 10_000)] = 1
    pixel_mean: tuple[Colour, Colour, Colour] = (103.53, 116.28, 123.675)
    pixel_std: tuple[Spread, Spread, Spread] = (1.0, 1.0, 1.0)
    channel_order: Literal["RGB", "BGR"] = "BGR"
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    test_resize: tuple[Pixels, Pixels] | None = None
    test_resize_method: Literal["antialias", "bilinear"] = "antialias"
    test_zoom: Annotated[float, Range(0.01, 100)] = 1.0
    mpp: Annotated[float, Range(0.01, 30)] | None = None
    stretch_grey: bool = False
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    fpn: FPNConfig | None = None
    rpn: RPNConfig = field(default_factory=RPNConfig)
    roi: RoIConfig = field(default_factory=RoIConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)

    def conflicts(self) -> Iterator[str]:
        if self.fpn is not None:
            yield from self._pyramid_conflicts(self.fpn)
        elif self.has_residual_head:
            yield from self._c4_conflicts()
        else:
            yield from self._size_conflicts()

    def _c4_conflicts(self) -> Iterator[str]:
        margin, last = self.roi.mask_margin, self.backbone.last_stage
        if last < 5 and self.backbone.deformable[last - 1]:
            yield f"backbone.deformable: it must be off for res{last + 1}, which is the head of a C4 model"
        if self.roi.cascade_ious:
            yield "roi.cascade_ious is set: it must be empty for a C4 model, which has one box head"
        if margin:
            yield f"roi.mask_margin is {margin}: it must be 0 for a C4 model, which shares the box's features"
        if last == 5:
            yield "backbone.last_stage is 5: it must be at most 4 for a C4 model: its RoI head is the next"
        else:
            yield from self._size_conflicts()

    def _pyramid_conflicts(self, fpn: FPNConfig) -> Iterator[str]:
        strides, first, last = self.backbone.stage_strides, fpn.first_stage, self.backbone.last_stage
        if first > last:
            yield f"fpn.first_stage is {first}: it must be at most backbone.last_stage, {last}"
        elif any(stride != 2 for stride in strides[first - 1 : last - 1]):
            yield f"backbone.stage_strides is {strides}: each after res{first} must be 2 for a pyramid"
        else:
            yield from self._size_conflicts()

    def _size_conflicts(self) -> Iterator[str]:
        strides, sizes, deconvs = self.backbone.stage_strides, self.rpn.anchor_sizes, self.roi.mask_deconvs
        if len(sizes) != len(self.levels):
            yield f"rpn.anchor_sizes has {len(sizes)} levels: it must have the model's, {len(self.levels)}"
        if (stride := max(self.levels)) > LARGEST_STRIDE:
            yield f"backbone.stage_strides is {strides}: {stride} px a cell must be {LARGEST_STRIDE} at most"
        if self.mask_size > LARGEST_MASK:
            yield f"roi.mask_deconvs is {deconvs}: a mask of {self.mask_size} must be {LARGEST_MASK} at most"

    @classmethod
    def c4(cls, depth: Depth = 50, *, num_classes: int = 1, **changes: Any) -> MaskRCNNConfig:
        """The report's model: ResNet-C4 (res4 features at stride 16, res5 as RoI head)."""
        return cls(num_classes=num_classes, backbone=BackboneConfig(depth=depth), **changes)

    @classmethod
    def resnet_fpn(cls, depth: Depth = 50, *, num_classes: int = 1, **changes: Any) -> MaskRCNNConfig:
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
    def has_residual_head(self) -> bool:
        """Whether a residual stage is the head of both branches, as in C4 models."""
        return self.fpn is None and self.roi.residual

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
        if not self.has_residual_head:
            return self.roi.mask_bins * 2**self.roi.mask_deconvs
        head_stride = self.backbone.stage_strides[self.backbone.last_stage - 1]
        return -(-self.roi.bins // head_stride) * 2**self.roi.mask_deconvs
