"""The box loss that RPN and RoI heads have in common: of deltas, or of the boxes that they give."""

from jaxtyping import Array, Float

from maskrcnn_jax.config import RoIConfig, RPNConfig
from maskrcnn_jax.ops.boxes import decode, encode
from maskrcnn_jax.ops.losses import generalized_iou_loss, smooth_l1


def box_distance(
    config: RPNConfig | RoIConfig,
    deltas: Float[Array, "N 4"],
    starts: Float[Array, "N 4"],
    targets: Float[Array, "N 4"],
) -> Float[Array, "N"]:
    """The box loss of each prediction: how far `deltas` from the boxes `starts` are from their `targets`."""
    if config.box_loss == "giou":
        return generalized_iou_loss(decode(deltas, starts, config.box_weights), targets)
    difference = deltas - encode(targets, starts, config.box_weights)
    return smooth_l1(difference, config.smooth_l1_beta).sum(axis=1)
