"""Makes the goldens of torchvision's Mask R-CNN that the tests compare with.

    python benchmarks/torchvision_goldens.py --out tests/parity/torchvision

needs torch and torchvision, and nothing of this package. Weights and image come from `torchvision_case.py`;
what is stored is the names and shapes of the state dict, what torchvision computed in float32, and how far
that is from float64 (`noise/NAME`). Large outputs are stored in part: every n-th channel.
"""

import argparse
import platform
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn
from torchvision.models import detection
from torchvision.models.detection._utils import overwrite_eps
from torchvision.ops.misc import FrozenBatchNorm2d
from torchvision_case import (
    CLASS_BIAS,
    CLASSES,
    DETECTIONS,
    MODELS,
    POST_NMS,
    PRE_NMS,
    ROIS,
    SHORT_SIDE,
    image,
    probes,
    truths,
    weights,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for kind in MODELS:
        model = build(kind)
        golden = {"about": np.array(_about()), **_state(model), "class_bias": _balance(model)}
        golden |= predict(model)
        golden |= train(model)
        golden |= {f"noise/{name}": noise for name, noise in _noise(model, golden).items()}
        np.savez_compressed(out / f"{kind}.npz", **golden)
        print(out / f"{kind}.npz", f"{(out / f'{kind}.npz').stat().st_size:,} bytes")


def build(kind: str) -> nn.Module:
    """torchvision's model with our weights, as it is after loading COCO_V1: its batch norms fixed."""
    limits = {
        "rpn_pre_nms_top_n_test": PRE_NMS,
        "rpn_post_nms_top_n_test": POST_NMS,
        "rpn_pre_nms_top_n_train": PRE_NMS,
        "rpn_post_nms_top_n_train": POST_NMS,
        "box_detections_per_img": DETECTIONS,
        "box_batch_size_per_image": ROIS,
        "min_size": SHORT_SIDE,
    }
    model = getattr(detection, MODELS[kind])(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, **limits
    )
    if kind == "v1":
        freeze(model)
        overwrite_eps(model, 0.0)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    state = weights(shapes, np.zeros(CLASSES + 1, np.float32))
    state = {name: torch.from_numpy(array) for name, array in state.items()}
    print(kind, model.load_state_dict(state, strict=False))
    # What torchvision trains by default when it starts from trained weights.
    for name, parameter in model.backbone.body.named_parameters():
        parameter.requires_grad_(any(f"layer{n}" in name for n in (2, 3, 4)))
    return model.eval()


@torch.no_grad()
def _balance(model: nn.Module) -> np.ndarray:
    """Sets the class logits' bias so that they are 0 on average over the probes, and gives it back."""
    logits = stages(model, torch.float32)["class_logits"]
    bias = -logits.mean(dim=0).numpy().round(2)
    model.get_parameter(CLASS_BIAS).copy_(torch.from_numpy(bias))
    return bias


def freeze(module: nn.Module) -> None:
    """Batch norms become torchvision's frozen ones, which they are where weights are given."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features))
        else:
            freeze(child)


def stages(model: nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What each part gives, from the image on, on fixed boxes where it takes boxes."""
    model = model.to(dtype)
    pixels = torch.from_numpy(image()).permute(2, 0, 1).to(dtype) / 255
    inputs = model.transform([pixels])[0]
    levels = model.backbone(inputs.tensors)
    values = {
        "image_size": torch.tensor(inputs.image_sizes[0]),
        "preprocessed": inputs.tensors[0, :, ::4, ::4],
    }
    for n, level in enumerate(levels.values(), 2):
        values[f"p{n}"] = level[0, ::16]
    logits, deltas = model.rpn.head(list(levels.values()))
    values["rpn_logits"] = torch.cat([x[0].permute(1, 2, 0).reshape(-1) for x in logits])
    values["rpn_deltas"] = torch.cat([_by_anchor(x) for x in deltas])
    values["anchors"] = model.rpn.anchor_generator(inputs, list(levels.values()))[0]
    boxes = [torch.from_numpy(probes(*inputs.image_sizes[0])).to(dtype)]
    heads = model.roi_heads
    pooled = heads.box_roi_pool(levels, boxes, inputs.image_sizes)
    values["pooled"] = pooled[:, ::64]
    classes, regression = heads.box_predictor(heads.box_head(pooled))
    values |= {"class_logits": classes, "box_deltas": regression}
    pooled = heads.mask_roi_pool(levels, boxes, inputs.image_sizes)
    values["mask_logits"] = heads.mask_predictor(heads.mask_head(pooled))[:, 1:, ::3, ::3]
    return values


def _by_anchor(deltas: torch.Tensor) -> torch.Tensor:
    _, channels, height, width = deltas.shape
    return deltas[0].reshape(channels // 4, 4, height, width).permute(2, 3, 0, 1).reshape(-1, 4)


@torch.no_grad()
def predict(model: nn.Module) -> dict[str, np.ndarray]:
    """The stages, then proposals and detections at the image's own size."""
    golden = _arrays(stages(model, torch.float32))
    pixels = torch.from_numpy(image()).permute(2, 0, 1).float() / 255
    inputs = model.transform([pixels])[0]
    proposals = model.rpn(inputs, model.backbone(inputs.tensors))[0][0]
    found = model([pixels])[0]
    masks = found.pop("masks")[:, 0] >= 0.5
    print(
        "  proposals", len(proposals), "detections", {k: v.tolist() for k, v in found.items() if k != "boxes"}
    )
    print("  mask pixels", masks.sum(dim=(1, 2)).tolist())
    golden["proposals"] = proposals.numpy()
    golden |= {f"found_{name}": value.numpy() for name, value in found.items()}
    golden["found_masks"] = np.packbits(masks.numpy().reshape(len(masks), -1), axis=1)
    return golden


def train(model: nn.Module) -> dict[str, np.ndarray]:
    """Losses and gradients with the first candidates of each kind in place of random ones."""
    case, drawn = truths(), []
    samplers = model.rpn.fg_bg_sampler, model.roi_heads.fg_bg_sampler
    before = [type(sampler).__call__ for sampler in samplers]

    def first(sampler, labels):
        most = int(sampler.batch_size_per_image * sampler.positive_fraction)
        positive = torch.where(labels[0] >= 1)[0][:most]
        negative = torch.where(labels[0] == 0)[0][: sampler.batch_size_per_image - len(positive)]
        drawn.append((positive, negative))
        masks = torch.zeros(2, len(labels[0]), dtype=torch.bool)
        masks[0, positive], masks[1, negative] = True, True
        return [masks[0]], [masks[1]]

    handed, original = [], model.roi_heads.forward

    def heads(features, proposals, *rest):
        handed.append(proposals[0].detach())
        return original(features, proposals, *rest)

    target = {
        "boxes": torch.from_numpy(case.boxes),
        "labels": torch.from_numpy(case.classes) + 1,
        "masks": torch.from_numpy(case.masks).to(torch.uint8),
    }
    try:
        type(samplers[0]).__call__ = first
        model.roi_heads.forward = heads
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        model.transform.min_size = (min(image().shape[:2]),)
        losses = model([torch.from_numpy(image()).permute(2, 0, 1).float() / 255], [target])
    finally:
        type(samplers[0]).__call__ = before[0]
        del model.roi_heads.forward
        model.transform.min_size = (SHORT_SIDE,)
    model.zero_grad()
    sum(losses.values()).backward()
    golden = {f"loss/{name}": value.detach().numpy() for name, value in losses.items()}
    for name, (positive, negative) in zip(("anchors", "rois"), drawn, strict=True):
        golden |= {f"{name}_positive": positive.numpy(), f"{name}_negative": negative.numpy()}
        print(f"  {name}: {len(positive)} positive, {len(negative)} negative drawn")
    golden["train_proposals"] = handed[0].numpy()
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    golden["gradient_names"] = np.array(list(norms))
    golden["gradient_norms"] = np.array(list(norms.values()))
    small = [name for name, p in model.named_parameters() if p.grad is not None and p.numel() <= 1100]
    golden |= {f"gradient/{name}": model.get_parameter(name).grad.numpy() for name in small}
    print("  losses", {name: round(value.item(), 4) for name, value in losses.items()})
    model.eval()
    return golden


@torch.no_grad()
def _noise(model: nn.Module, golden: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest difference of each stage between float32 and float64."""
    double = _arrays(stages(model, torch.float64), dtype=None)
    model.to(torch.float32)
    return {
        name: float(np.abs(golden[name].astype(np.float64) - value).max())
        for name, value in double.items()
        if name != "image_size"
    }


def _state(model: nn.Module) -> dict[str, np.ndarray]:
    state = model.state_dict()
    shapes = [" ".join(map(str, tensor.shape)) for tensor in state.values()]
    return {"names": np.array(list(state)), "shapes": np.array(shapes)}


def _arrays(tensors: dict[str, torch.Tensor], dtype: type | None = np.float32) -> dict[str, np.ndarray]:
    return {
        name: value.numpy().astype(dtype) if dtype and value.is_floating_point() else value.numpy()
        for name, value in tensors.items()
    }


def _about() -> str:
    return (
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, numpy {np.__version__}, "
        f"Python {platform.python_version()}, on CPU"
    )


if __name__ == "__main__":
    main()
