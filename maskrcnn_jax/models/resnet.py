"""ResNet (He et al. 2016): a stem and stages res2 to res5, of which any run can be used alone."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from maskrcnn_jax.config import BLOCKS, BackboneConfig, Norm
from maskrcnn_jax.models.layers import Conv, inside, relu, shrink


class Stem(nn.Module):
    """conv1: 7x7 of stride 2, then a 3x3 max pool of stride 2 where the config has one."""

    config: BackboneConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"], extent: Int[Array, "B 2"]) -> Float[Array, "B h w C"]:
        norm, epsilon = self.config.norm, self.config.norm_epsilon
        conv = Conv(self.config.stem_channels, 7, 2, norm, self.dtype, epsilon=epsilon, name="conv1")
        x = nn.relu(conv(x, extent))
        if not self.config.stem_pool:
            return x
        # After the ReLU, zeros in the padding are as neutral to the maximum as minus infinity.
        x = jnp.where(inside(shrink(extent, 2), *x.shape[1:3]), x, jnp.zeros((), x.dtype))
        return nn.max_pool(x, (3, 3), (2, 2), [(1, 1)] * 2)


class Block(nn.Module):
    """A residual block: basic (two 3x3) in ResNet-18 and 34, else a bottleneck (1x1, 3x3, 1x1)."""

    config: BackboneConfig
    stage: int
    stride: int
    norm: Norm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], extent: Int[Array, "B 2"] | None = None
    ) -> Float[Array, "B h w c"]:
        channels, stride = self.config.channels(self.stage), self.stride

        spread = {"dilation": self.config.res5_dilation if self.stage == 5 else 1}

        def conv(name, outputs, kernel=1, stride=1, **options):
            options |= {"epsilon": self.config.norm_epsilon, "name": name}
            return Conv(outputs, kernel, stride, self.norm, self.dtype, **options)

        # The gradient of a group norm reads what went in anyway.
        activate = nn.relu if self.norm == "group" else relu
        after = shrink(extent, stride)
        if self.config.depth < 50:
            y = activate(conv("conv1", channels, 3, stride, **spread)(x, extent))
            y = conv("conv2", channels, 3, **spread)(y, after)
        else:
            width = self.config.bottleneck_channels * 2 ** (self.stage - 2)
            first, second = (stride, 1) if self.config.stride_in_1x1 else (1, stride)
            y = activate(conv("conv1", width, 1, first)(x, extent))
            spread["groups"] = self.config.groups
            if self.config.deformable[self.stage - 2]:
                spread |= {"deformable": True, "deform_weights": self.config.deform_weights}
            y = activate(conv("conv2", width, 3, second, **spread)(y, shrink(extent, first)))
            y = conv("conv3", channels)(y, after)
        if stride != 1 or x.shape[-1] != channels:
            x = conv("shortcut", channels, 1, stride)(x, extent)
        return relu(x + y)


class Stage(nn.Module):
    """One of res2 to res5. `stride` overrides the config's, for a RoI head that was pooled at its stride.

    With `remat`, the gradient computes the inside of each block again.
    """

    config: BackboneConfig
    stage: int
    norm: Norm
    dtype: jnp.dtype = jnp.float32
    stride: int | None = None
    remat: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], extent: Int[Array, "B 2"] | None = None
    ) -> Float[Array, "B h w c"]:
        stride = self.config.stage_strides[self.stage - 2] if self.stride is None else self.stride
        kind = nn.remat(Block) if self.remat else Block
        for i in range(BLOCKS[self.config.depth][self.stage - 2]):
            step = stride if i == 0 else 1
            block = kind(self.config, self.stage, step, self.norm, self.dtype, name=f"block{i}")
            x = block(x, extent)
            extent = shrink(extent, step)
        return x


class ResNet(nn.Module):
    """Stem and stages up to `last_stage`; nothing up to `freeze_at` gets a gradient."""

    config: BackboneConfig
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W 3"], sizes: Int[Array, "B 2"]
    ) -> dict[int, Float[Array, "B h w C"]]:
        """Features of every stage by its number.

        Args:
          x: normalised images, zero outside their content.
          sizes: the valid extent of each image in pixels; the padding beyond does not change the result.
        """
        x = Stem(self.config, self.dtype, name="stem")(x, sizes)
        if self.config.freeze_at >= 1:
            x = jax.lax.stop_gradient(x)
        extent = shrink(sizes, 4 if self.config.stem_pool else 2)
        features = {}
        for stage in range(2, self.config.last_stage + 1):
            kind = {"norm": self.config.norm, "dtype": self.dtype, "remat": self.remat}
            x = Stage(self.config, stage, **kind, name=f"res{stage}")(x, extent)
            if self.config.freeze_at >= stage:
                x = jax.lax.stop_gradient(x)
            extent = shrink(extent, self.config.stage_strides[stage - 2])
            features[stage] = x
        return features
