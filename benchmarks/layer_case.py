"""Inputs of single layers, by seed: for ours, and for the operators of torch and torchvision."""

import numpy as np
from torchvision_case import uniform

STRIDE, DILATION, GROUPS = 2, 2, 4
ROI_SCALE, ROI_BINS = 0.25, 5


def features() -> np.ndarray:
    """(2, 64, 11, 9): images, channels, rows, columns."""
    return 2 * uniform("layers/features", (2, 64, 11, 9))


def kernel(groups: int) -> np.ndarray:
    """(64, 64 / groups, 3, 3): outputs, inputs, rows, columns."""
    return uniform("layers/kernel", (64, 64 // groups, 3, 3)) / 8


def channels(name: str) -> np.ndarray:
    """(64,) around 1: scales, shifts and statistics of norms."""
    return 1 + uniform(f"layers/{name}", (64,)) / 2


def offsets() -> np.ndarray:
    """(2, 18, 6, 5): where nine taps of a convolution of stride 2 are moved, down and across."""
    return 3 * uniform("layers/offsets", (2, 18, 6, 5))


def tap_weights() -> np.ndarray:
    """(2, 9, 6, 5) in 0..1."""
    return (uniform("layers/weights", (2, 9, 6, 5)) + 1) / 2


def boxes(name: str) -> np.ndarray:
    """(40, 4) XYXY in pixels of a map of 44 x 36, some over its border, one of a pixel."""
    draw = (uniform(f"layers/{name}", (40, 4)) + 1) / 2
    low = draw[:, :2] * (36, 44) - 6
    found = np.concatenate([low, low + draw[:, 2:] * 30], axis=1).astype(np.float32)
    found[0, 2:] = found[0, :2] + 1
    return found
