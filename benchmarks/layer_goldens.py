"""Makes the goldens of single layers: what torch's and torchvision's operators give for `layer_case.py`.

    python benchmarks/layer_goldens.py --out tests/parity/torchvision/layers.npz

needs torch and torchvision, and nothing of this package. Detectron2 calls the same operators for its ResNeXt,
dilated, deformable and normed layers, its unaligned RoIAlign, and the formula of its GIoU loss.
"""

import argparse
from pathlib import Path

import layer_case as case
import numpy as np
import torch
from torch.nn import functional
from torchvision import ops
from torchvision.ops.misc import FrozenBatchNorm2d


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    single, double = layers(torch.float32), layers(torch.float64)
    golden = dict(single)
    for name, value in double.items():
        golden[f"noise/{name}"] = np.abs(single[name].astype(np.float64) - value).max()
    np.savez_compressed(parser.parse_args().out, **golden)
    print({name: float(value) for name, value in golden.items() if name.startswith("noise/")})


def layers(dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Each operator's result; gradients where they are more than a transposed product."""

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(dtype)

    x, plain, grouped = tensor(case.features()), tensor(case.kernel(1)), tensor(case.kernel(case.GROUPS))
    strided = {"stride": case.STRIDE, "padding": case.DILATION, "dilation": case.DILATION}
    norm = FrozenBatchNorm2d(64, eps=1e-3)
    norm.load_state_dict(
        {n: tensor(case.channels(n)) for n in ("weight", "bias", "running_mean", "running_var")}
    )
    offsets, weights = tensor(case.offsets()), tensor(case.tap_weights())
    found = {
        "grouped": functional.conv2d(x, grouped, padding=1, groups=case.GROUPS),
        "dilated": functional.conv2d(x, plain, **strided),
        "frozen norm": norm.to(dtype)(functional.conv2d(x, plain, padding=1)),
        "group norm": functional.group_norm(
            functional.conv2d(x, plain, padding=1),
            32,
            tensor(case.channels("weight")),
            tensor(case.channels("bias")),
        ),
        "deformable": ops.deform_conv2d(x, offsets, grouped, **strided),
        "deformable, weighted": ops.deform_conv2d(x, offsets, plain, mask=weights, **strided),
    }
    rois = torch.cat([torch.zeros(40, 1, dtype=dtype), tensor(case.boxes("rois"))], dim=1)
    for samples in (0, 2):
        name = f"unaligned RoIAlign, {samples or 'adaptive'} samples"
        found[name] = ops.roi_align(x[:1, :8], rois, case.ROI_BINS, case.ROI_SCALE, samples or -1, False)
    boxes, targets = tensor(case.boxes("boxes")).requires_grad_(), tensor(case.boxes("targets"))
    found["GIoU loss"] = ops.generalized_box_iou_loss(boxes, targets)
    found["GIoU gradient"] = torch.autograd.grad(found["GIoU loss"].sum(), boxes)[0]
    return {name: value.detach().numpy() for name, value in found.items()}


if __name__ == "__main__":
    main()
