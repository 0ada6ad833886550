"""How often a host must look whether NMS goes on: at each turn over blocks, and at rounds within a block.

    python benchmarks/nms_turns.py

Boxes are drawn around 600 objects, as proposals of dense nuclei lie. The loops are the package's own, run one
turn at a time by Python, which counts.
"""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from maskrcnn_jax.ops import nms

# (what, boxes, kept, side of the image, IoU), each as in the config of that name.
CASES = (
    ("C4, training", 12000, 2000, 800, 0.7),
    ("nuclei_r50_fpn, proposals", 18000, 4000, 1000, 0.7),
    ("nuclei_r50_fpn, detections", 4000, 2000, 1000, 0.5),
)


def draw(count: int, side: int) -> np.ndarray:
    """Boxes around objects of 10 to 60 pixels, some near, some far."""
    rng = np.random.default_rng(0)
    centres, sides = rng.uniform(0, side, (600, 2)), rng.uniform(10, 60, (600, 2))
    which, spread = rng.integers(0, 600, count), rng.choice([0.05, 0.1, 0.3, 1.0], (count, 1))
    centre = centres[which] + rng.normal(size=(count, 2)) * sides[which] * spread
    half = sides[which] * np.exp(rng.normal(size=(count, 2)) * spread / 2) / 2
    return np.concatenate([centre - half, centre + half], axis=1).clip(0, side).astype(np.float32)


def count_turns(boxes: np.ndarray, iou: float, kept: int, form: dict[str, int]) -> tuple[int, int]:
    """Turns of the outer loop, and of all inner ones."""
    turns, depth = [0, 0], 0

    def loop(more, turn, state):
        nonlocal depth
        depth += 1
        while more(state):
            state = turn(state)
            turns[depth - 1] += 1
        depth -= 1
        return state

    inputs = jnp.asarray(boxes), jnp.ones(len(boxes), bool), jnp.zeros(len(boxes), jnp.int32)
    with mock.patch.object(jax.lax, "while_loop", loop):
        nms._suppress(*inputs, iou_threshold=iou, max_kept=kept, **form)
    return turns[0], turns[1]


def main() -> None:
    print("| boxes | CPU: turns, looks | others: turns, looks |\n|---|---|---|")
    for what, count, kept, side, iou in CASES:
        boxes = draw(count, side)
        found = [count_turns(boxes, iou, kept, form) for form in (nms._CPU, nms._OTHERS)]
        cells = " | ".join(f"{turns}, {looks}" for turns, looks in found)
        print(f"| {what}: {count} to {kept} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
