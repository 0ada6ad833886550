"""Detectron2's models and what they computed, read by the package's own readers; and how to compare."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.optimize import linear_sum_assignment

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.interop import detectron2
from maskrcnn_jax.prediction.resize import resize_shortest_edge

# Stages of which the README's table has no line, and the one whose line they borrow.
_BORROWED = {
    "probe_mask_pooled": "probe_pooled",
    "probe_vectors": "roi_vectors",
    "probe_class_logits": "class_logits",
    "probe_box_deltas": "box_deltas",
}


class Row(NamedTuple):
    """One line of the table: what was compared, how far it is off, and how far it may be."""

    model: str
    what: str
    difference: float
    allowed: float

    @property
    def ok(self) -> bool:
        """False for NaN too."""
        return bool(self.difference <= self.allowed)


@dataclasses.dataclass(frozen=True)
class Golden:
    """One of Detectron2's models, and what it computed.

    Attributes:
      allowed: the largest difference of each stage, by the name of its output.
      image: RGB, as the network sees it: resized if the golden was.
    """

    name: str
    config: MaskRCNNConfig
    params: dict[str, Any]
    allowed: Mapping[str, float]
    image: np.ndarray
    test: Mapping[str, np.ndarray]
    masks: Mapping[str, list[dict[str, Any]]]
    train: Mapping[str, np.ndarray]
    gradients: Mapping[str, np.ndarray]


def find_models(folder: Path) -> list[str]:
    """Names of the models whose goldens a folder holds."""
    return sorted(path.name.removesuffix("_config.yaml") for path in folder.glob("*_config.yaml"))


def load(folder: Path, name: str, suffix: str = "pkl") -> Golden:
    """Reads a model, and its goldens.

    Args:
      folder: that holds `NAME_config.yaml`, `NAME_model.pkl` and `.pth`, `NAME_test.npz`,
        `NAME_test_masks.json`, `NAME_train.npz`, `NAME_grads.npz`, and the README.md that says how far
        Detectron2's float32 is from float64.
    """
    config, params = detectron2.load(folder / f"{name}_config.yaml", folder / f"{name}_model.{suffix}")
    test, train, gradients = (
        dict(np.load(folder / f"{name}_{part}.npz")) for part in ("test", "train", "grads")
    )
    image = np.ascontiguousarray(test["image_bgr"][..., ::-1])
    if _padded(config, image.shape[:2]) == test["preprocessed"].shape[1:]:
        config = dataclasses.replace(config, test_resize=None)  # Its YAML may say 800; it was not resized.
    else:
        image = resize_shortest_edge(image, *config.test_resize)
    return Golden(
        name=name,
        config=config,
        params=params,
        allowed=_allowances((folder / "README.md").read_text(), name),
        image=image,
        test=test,
        masks=json.loads((folder / f"{name}_test_masks.json").read_text()),
        train=train,
        gradients=gradients,
    )


def _allowances(readme: str, name: str) -> dict[str, float]:
    """Ten times the difference to float64 that the README states for each stage."""
    lines = re.findall(rf"^\| {re.escape(name)} \| .* -> (\w+) \| ([\d.e+-]+) \|", readme, re.MULTILINE)
    allowed = {output: 10 * float(difference) for output, difference in lines}
    return {stage: allowed[like] for stage, like in _BORROWED.items() if like in allowed} | allowed


def level_names(config: MaskRCNNConfig) -> list[str]:
    """The golden arrays that hold the feature levels, finest first."""
    if config.fpn is None:
        return [f"res{config.backbone.last_stage}"]
    return [f"feat_p{config.fpn.first_stage + i}" for i in range(len(config.levels))]


def extents(config: MaskRCNNConfig, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width of each feature level of an image, in cells."""
    return [tuple(-(-side // stride) for side in _padded(config, size)) for stride in config.levels]


def _padded(config: MaskRCNNConfig, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the network's input."""
    step = config.divisibility
    return tuple(-(-side // step) * step for side in size)


def as_batch(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images and sizes of a batch of one."""
    return image[None], np.array([image.shape[:2]], np.int32)


def largest(found: jax.Array | np.ndarray, golden: np.ndarray) -> float:
    """The largest absolute difference; infinite where shapes differ."""
    found = np.asarray(found)
    if found.shape != golden.shape:
        return float("inf")
    return float(np.abs(found.astype(np.float64) - golden).max(initial=0.0))


def pair(
    boxes: np.ndarray,
    golden: np.ndarray,
    kinds: np.ndarray | None = None,
    golden_kinds: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Matches two sets of boxes one to one, at the least distance: equal scores may come in any order.

    Args:
      kinds, golden_kinds: boxes of different kinds (classes) are far from each other.

    Returns:
      Indices into both; as many as the smaller set has.
    """
    distance = np.abs(boxes[:, None].astype(np.float64) - golden[None]).max(axis=-1)
    if kinds is not None:
        distance = distance + 1e6 * (kinds[:, None] != golden_kinds[None])
    return linear_sum_assignment(distance)
