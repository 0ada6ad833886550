"""What both sides of the comparison with torchvision start from: weights, an image, ground truths, by seed.

Only NumPy's raw random bits are used, whose stream never changes, so nothing of this has to be stored.
"""

import re
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

# Model: torchvision's constructor, by the name of its golden.
MODELS = {"v1": "maskrcnn_resnet50_fpn", "v2": "maskrcnn_resnet50_fpn_v2"}
CLASSES = 4  # without the background
# Smaller than torchvision's, so that every limit cuts: proposals before and after NMS, detections.
PRE_NMS, POST_NMS, DETECTIONS, SHORT_SIDE = 300, 64, 12, 128
ROIS = 32  # that enter the losses
# The shorter side becomes 128 pixels for prediction; a loss sees the image as it is.
HEIGHT, WIDTH = 96, 118

CLASS_BIAS = "roi_heads.box_predictor.cls_score.bias"
# Standard deviations of what is not a ReLU's input, so that scores spread and boxes move.
_OUTPUTS = {
    r"rpn\.head\.cls_logits\.weight": 0.015,
    r"rpn\.head\.bbox_pred\.weight": 0.0015,
    r".*cls_score\.weight": 0.012,
    r".*box_predictor\.bbox_pred\.weight": 0.006,
    r".*mask_fcn_logits\.weight": 0.025,
}


class Truths(NamedTuple):
    """Ground truths of the image: boxes XYXY in pixels, classes from 0, masks (G, H, W)."""

    boxes: np.ndarray
    classes: np.ndarray
    masks: np.ndarray


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 numbers from -1 to 1 that depend on the name alone."""
    size = int(np.prod(shape))
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(-(-size // 2)).view(np.uint32)[:size]
    return (bits.astype(np.float32) * np.float32(2**-31) - np.float32(1)).reshape(shape)


def weights(shapes: Mapping[str, tuple[int, ...]], class_bias: np.ndarray) -> dict[str, np.ndarray]:
    """A state dict of torchvision's names and shapes; activations keep their size from layer to layer.

    Args:
      class_bias: of the class logits, so that no class wins everywhere.
    """
    tensors = {name: _tensor(name, shape) for name, shape in shapes.items() if "num_batches" not in name}
    return tensors | {CLASS_BIAS: class_bias}


def _tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    draw = uniform(name, shape)
    if name.endswith("running_var"):
        return 1 + draw / 2
    if name.endswith("running_mean"):
        return draw / 10
    if len(shape) == 1:
        if not name.endswith("weight"):
            return draw / 5
        # A residual branch is added: it stays smaller than what it is added to.
        return (0.4 if ".bn3." in name else 1) * (1 + draw / 4)
    for pattern, deviation in _OUTPUTS.items():
        if re.fullmatch(pattern, name):
            # Without the mean, what all boxes have in common does not decide.
            return (draw - draw.mean(axis=1, keepdims=True)) * np.float32(deviation * 3**0.5)
    fan_in = shape[0] if "conv5_mask" in name else int(np.prod(shape[1:]))
    gain = 1 if "fpn" in name else 2
    return draw * np.float32((3 * gain / fan_in) ** 0.5)


def image() -> np.ndarray:
    """(HEIGHT, WIDTH, 3) RGB uint8: coloured noise of two scales."""
    coarse = uniform("coarse", (7, 8, 3)).repeat(16, axis=0).repeat(16, axis=1)[:HEIGHT, :WIDTH]
    fine = uniform("fine", (HEIGHT, WIDTH, 3))
    return np.clip(128 + 80 * coarse + 40 * fine, 0, 255).astype(np.uint8)


def truths() -> Truths:
    """Seven ellipses that may overlap, one of them small, and one at the border."""
    middle = (uniform("middle", (7, 2)) * 0.4 + 0.5) * np.array([HEIGHT, WIDTH], np.float32)
    radii = 12 + 8 * uniform("radii", (7, 2))
    radii[0], middle[1] = 3.5, (90, 110)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    offset = np.stack([y, x]) + 0.5 - middle[:, :, None, None]
    masks = np.square(offset / radii[:, :, None, None]).sum(axis=1) <= 1
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return Truths(np.array(boxes, np.float32), np.arange(7) % CLASSES, masks)


def probes(height: int, width: int) -> np.ndarray:
    """(12, 4) boxes in pixels for the RoI heads: of all sizes, some over the border, one of no area."""
    draw = (uniform("probes", (12, 3)) + 1) / 2
    side = 2.0 ** (1 + 7 * draw[:, :1])
    centre = draw[:, 1:] * np.array([width, height])
    ratio = np.linspace(0.5, 1.5, 12)[:, None]
    half = np.concatenate([side * ratio, side / ratio], axis=1) / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)
    boxes[-1] = (20, 30, 20, 30)
    return boxes
