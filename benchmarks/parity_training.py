"""Training: the five losses and the gradient of every parameter, with Detectron2's proposals and samples."""

import functools

import jax
import numpy as np
from parity_goldens import Golden, Row
from parity_targets import batch_of, samples_of

from maskrcnn_jax.interop import names
from maskrcnn_jax.interop.trees import flatten
from maskrcnn_jax.models.mask_rcnn import LOSSES, MaskRCNN
from maskrcnn_jax.structures import Proposals

_LOSS, _NORM, _GRADIENT = 1e-5, 1e-2, 3e-2


def measure_training(golden: Golden) -> list[Row]:
    """Losses, norms of all gradients, and every stored gradient."""
    train, config = golden.train, golden.config
    proposals = Proposals(
        train["proposal_boxes"], train["proposal_logits"], np.ones(len(train["proposal_boxes"]), bool)
    )
    fixed = jax.tree.map(lambda x: x[None], (samples_of(golden), proposals))
    losses, gradients = jax.device_get(_losses_and_gradients(config, golden.params, batch_of(golden), *fixed))
    rows = [
        Row(golden.name, f"training: {name}, relative", _relative(losses[name], train[name]), _LOSS)
        for name in LOSSES
    ]
    return rows + gradient_rows(golden, gradients)


@functools.partial(jax.jit, static_argnums=0)
def _losses_and_gradients(config, params, batch, samples, proposals):
    anchor_sample, roi_sample = samples

    def total(params):
        losses = MaskRCNN(config).apply(
            {"params": params},
            batch,
            jax.random.key(0),
            anchor_sample=anchor_sample,
            proposals=proposals,
            roi_sample=roi_sample,
            method="losses",
        )
        return sum(losses.values()), losses

    gradients, losses = jax.grad(total, has_aux=True)(params)
    return losses, gradients


def gradient_rows(golden: Golden, gradients: dict) -> list[Row]:
    """Norms of all gradients, elements of those that are stored, and zeros where parameters are frozen."""
    config, stored = golden.config, golden.gradients
    there = {
        names.detectron2_name(path, config): names.to_there(path, gradient, config).astype(np.float64)
        for path, gradient in flatten(gradients).items()
    }
    norms = {name: float(np.linalg.norm(gradient)) for name, gradient in there.items()}
    # Where a ReLU's input is near 0, Detectron2's own float32 gradient is as far from float64.
    trainable = zip(*(stored[field].tolist() for field in ("names", "norms", "norms_f32")), strict=True)
    trainable = {name: both for name, *both in trainable}
    worst = max(
        min(_relative(norms.get(name, np.nan), norm) for norm in both) for name, both in trainable.items()
    )
    whole = {name.removeprefix("grad/"): stored[name] for name in stored if name.startswith("grad/")}
    apart = [
        np.linalg.norm(there[name] - gradient) / max(trainable[name][1], 1e-12)  # 0 behind a dead ReLU.
        for name, gradient in whole.items()
    ]
    frozen = [norm for name, norm in norms.items() if name not in trainable]

    def row(what, difference, allowed):
        return Row(golden.name, f"training: {what}", float(difference), allowed)

    return [
        row(f"gradient norms of {len(trainable)} parameters, largest relative difference", worst, _NORM),
        row(f"{len(whole)} whole gradients, largest relative difference", max(apart, default=0), _GRADIENT),
        row(f"gradients of {len(frozen)} frozen parameters", max(frozen, default=0), 0),
    ]


def _relative(found: float, golden: float) -> float:
    return abs(float(found) - float(golden)) / max(abs(float(golden)), 1e-12)
