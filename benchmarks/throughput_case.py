"""What is measured: the same work for every contender, and drawn input for it. NumPy alone is needed.

A contender is a process that reads lines of JSON and answers each with one; see `serve`.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

ROIS = 512
DETECTIONS = 500
# Of what a residual block adds, since random layers under frozen norms would grow without end.
RESIDUAL_SCALE = 0.1
NMS_IOU = 0.7  # of detections: proposals have been through the same, so that 500 masks remain


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
      model: `c4` (Detectron2's R50-C4) or `fpn` (torchvision's maskrcnn_resnet50_fpn).
      task: `train` is a step with its update; `detect` stops at probabilities on the device; `predict`
        goes on to masks of the image's size on the host.
      side: of the square images, in pixels.
      batch: images a step or call.
      ground_truths: instances an image.
      dtype: of convolutions and matrix products; bfloat16 is autocast for torch.
      rois: sampled in training; prediction has 1,000 proposals.
      channels_last: torch's layout of images and kernels on a CPU; on a GPU it always is.
    """

    model: str
    task: str
    side: int
    batch: int = 1
    ground_truths: int = 150
    dtype: str = "float32"
    rois: int = ROIS
    channels_last: bool = False

    @property
    def pre_nms(self) -> tuple[int, int]:
        """(training, test) proposals of a level before NMS."""
        return (12000, 6000) if self.model == "c4" else (2000, 1000)

    @property
    def post_nms(self) -> tuple[int, int]:
        """(training, test) proposals after NMS."""
        return (2000, 1000) if self.model == "c4" else (1000, 1000)

    @property
    def anchor_sizes(self) -> tuple[tuple[float, ...], ...]:
        """By level."""
        return ((32, 64, 128, 256, 512),) if self.model == "c4" else ((32,), (64,), (128,), (256,), (512,))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def draw(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (B, S, S, 3) uint8, boxes (B, G, 4) and label maps (B, S, S) of squares on a grid."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (case.batch, case.side, case.side, 3), np.uint8)
    across = int(np.ceil(np.sqrt(case.ground_truths)))
    cell = case.side // across
    if cell < 8:
        raise ValueError(f"{case.ground_truths} instances do not fit into {case.side} pixels")
    boxes = np.zeros((case.batch, case.ground_truths, 4), np.float32)
    labels = np.zeros((case.batch, case.side, case.side), np.uint16)
    for b in range(case.batch):
        for g in range(case.ground_truths):
            side = rng.integers(cell // 2, cell)
            y, x = (cell * (g // across), cell * (g % across))
            boxes[b, g] = (x, y, x + side, y + side)
            labels[b, y : y + side, x : x + side] = g + 1
    return images, boxes, labels


class Contender(Protocol):
    """One implementation, ready to run one case."""

    def run(self) -> int:
        """Does the work once and waits for it; gives how many instances came out, or 0 in training."""

    def facts(self) -> dict[str, float]:
        """What is known after a warm-up: `compile_s`, `gflop`, `matmul_gflops`, as far as they apply."""

    def peak_gib(self) -> float:
        """The most memory so far: of the accelerator, else of the process."""


def serve(make: Callable[[Case], Contender]) -> None:
    """Answers the parent's lines: a case, then any number of `"run"`, then `"end"`."""
    import time

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What libraries print must not get between the answers.
    contender = None
    for line in sys.stdin:
        message = json.loads(line)
        if message == "run":
            start = time.perf_counter()
            count = contender.run()
            answer = {"seconds": time.perf_counter() - start, "count": count}
        elif message == "end":
            answer = {"peak_gib": contender.peak_gib()}
        else:
            contender = make(Case(**message))
            answer = contender.facts()
        answers.write(json.dumps(answer) + "\n")


def process_peak_gib() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
