"""Compares single layers with what torch's and torchvision's operators gave.

    python benchmarks/layer_parity.py --goldens tests/parity/torchvision/layers.npz [--out docs/parity.md]

`layer_goldens.py` made what is compared with, from the inputs of `layer_case.py`.
"""

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import layer_case as case
import numpy as np
from parity_document import here, replace_section, table
from parity_goldens import Row, largest

from maskrcnn_jax.models.convolution import convolve
from maskrcnn_jax.models.layers import Conv
from maskrcnn_jax.ops.deformable import deformable_conv
from maskrcnn_jax.ops.losses import generalized_iou_loss
from maskrcnn_jax.ops.roi_align import roi_align


def measure(path: Path) -> list[Row]:
    """One row for each layer, within ten times what the operator's float32 is from float64."""
    golden = dict(np.load(path))
    return [
        Row("layer", name, largest(value, golden[name]), 10 * float(golden[f"noise/{name}"]))
        for name, value in layers().items()
    ]


def layers() -> dict[str, np.ndarray]:
    """What ours give, in torch's layout, by the golden arrays' names."""
    x = jnp.asarray(case.features().transpose(0, 2, 3, 1))
    plain, grouped = (jnp.asarray(case.kernel(g).transpose(2, 3, 1, 0)) for g in (1, case.GROUPS))
    offsets, weights = (a.transpose(0, 2, 3, 1) for a in (case.offsets(), case.tap_weights()))
    strided = {"stride": case.STRIDE, "dilation": case.DILATION}

    def deform(kernel, weights, groups):
        one = lambda *a: deformable_conv(*a, **strided, groups=groups)  # noqa: E731
        return jax.vmap(one, (0, None, 0, 0))(x, kernel, offsets, weights)

    found = {
        "grouped": convolve(x, grouped, groups=case.GROUPS),
        "dilated": convolve(x, plain, **strided),
        "frozen norm": _normed("frozen_bn", x, plain),
        "group norm": _normed("group", x, plain),
        "deformable": deform(grouped, None, case.GROUPS),
        "deformable, weighted": deform(plain, weights, 1),
    }
    rois, stride = case.boxes("rois"), int(1 / case.ROI_SCALE)
    for samples in (0, 2):
        name = f"unaligned RoIAlign, {samples or 'adaptive'} samples"
        options = {"strides": [stride], "bins": case.ROI_BINS, "samples": samples, "aligned": False}
        found[name] = roi_align([x[0, ..., :8]], rois, **options)
    found = {name: np.asarray(value).transpose(0, 3, 1, 2) for name, value in found.items()}
    boxes, targets = case.boxes("boxes"), case.boxes("targets")
    found["GIoU loss"] = generalized_iou_loss(boxes, targets)
    found["GIoU gradient"] = jax.grad(lambda b: generalized_iou_loss(b, targets).sum())(boxes)
    return found


def _normed(norm, x, kernel):
    scale, bias, mean, var = map(case.channels, ("weight", "bias", "running_mean", "running_var"))
    params = {"scale": scale, "bias": bias} | ({"mean": mean, "var": var} if norm == "frozen_bn" else {})
    layer = Conv(64, 3, norm=norm, epsilon=1e-3)
    return layer.apply({"params": {"kernel": kernel, "norm": params}}, x)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--goldens", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="a Markdown file for the section")
    arguments = parser.parse_args()
    rows = measure(arguments.goldens)
    text = f"""What the zoo's other models are made of, against the operators of torch and torchvision that
Detectron2 calls, within ten times what those operators' float32 differs from float64.

    python benchmarks/layer_goldens.py --out tests/parity/torchvision/layers.npz
    python benchmarks/layer_parity.py --goldens tests/parity/torchvision/layers.npz --out docs/parity.md

{here()}

{table(rows)}
"""
    if arguments.out is not None:
        replace_section(arguments.out, "Layers of Detectron2's zoo", text)
    print(text)
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
