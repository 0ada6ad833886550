"""Feature pyramid (Lin et al. 2017): lateral 1x1, top-down nearest upsampling, output 3x3, extra levels."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from maskrcnn_jax.config import FPNConfig
from maskrcnn_jax.models.layers import Conv, xavier_fill
from maskrcnn_jax.ops.boxes import area


class FPN(nn.Module):
    """Turns the backbone's stages into levels of equal width, finest first."""

    config: FPNConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, stages: dict[int, Float[Array, "B h w c"]], extents: list[Int[Array, "B 2"]]
    ) -> list[Float[Array, "B h w C"]]:
        """The levels, finest first.

        Args:
          stages: features by stage number; sides must halve exactly from one to the next.
          extents: the valid extent of each level in its own cells.
        """
        first, last = self.config.first_stage, max(stages)

        def conv(name, kernel):
            options = {"norm": self.config.norm, "dtype": self.dtype, "kernel_init": xavier_fill}
            return Conv(self.config.channels, kernel, **options, name=name)

        levels, above = [], None
        for stage in range(last, first - 1, -1):
            merged = conv(f"lateral{stage}", 1)(stages[stage], extents[stage - first])
            if above is not None:
                merged = merged + above.repeat(2, axis=1).repeat(2, axis=2)
                if self.config.fuse == "avg":
                    merged = merged / 2
            levels.insert(0, conv(f"output{stage}", 3)(merged, extents[stage - first]))
            above = merged
        for _ in range(self.config.extra_levels):
            levels.append(levels[-1][:, ::2, ::2])
        return levels


def assign_levels(
    boxes: Float[Array, "*R 4"], strides: Sequence[int], slack: float = 0.0
) -> Int[Array, "*R"]:
    """The level that each RoI is pooled from, by its size (Lin et al. 2017, eq. 1).

    A box of 224² pixels belongs to the level of stride 16, one of half that side a level below.

    Args:
      boxes: XYXY corners in pixels; empty ones get the finest level.
      strides: of the levels, finest first, each twice the one before.
      slack: in levels; by so much a box may be smaller (torchvision has 1e-6).
    """
    size = area(boxes)
    above = [(size >= _smallest_area(stride, slack)).astype(jnp.int32) for stride in strides[1:]]
    return sum(above, jnp.zeros(size.shape, jnp.int32))


def _smallest_area(stride: int, slack: float) -> np.float32:
    """The smallest area that belongs to a level, in square pixels.

    Detectron2 takes the floor of 4 + log2(sqrt(area) / 224 + 1e-8) in float32, where areas a few units in
    the last place below the boundary round up to it. Found here, so that no compiler's logarithm decides.
    """

    def reaches(area: np.float32) -> bool:
        return 4 + np.log2(np.sqrt(area) / 224 + 1e-8) + slack >= math.log2(stride)

    found = np.float32((224 * stride / 16) ** 2 * 4 ** min(0, 1e-5 - slack))
    while reaches(below := np.nextafter(found, np.float32(0))):
        found = below
    return found
