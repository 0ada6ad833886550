"""The parameters of a model: their shapes, and fresh ones."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jaxtyping import PRNGKeyArray

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.models.layers import Fill
from maskrcnn_jax.models.mask_rcnn import MaskRCNN


def param_shapes(config: MaskRCNNConfig) -> dict:
    """The parameter tree, a `jax.ShapeDtypeStruct` for each leaf; the model is traced, not computed."""
    return _trace(config)[0]


def init_params(config: MaskRCNNConfig, key: PRNGKeyArray) -> dict:
    """Fresh parameters, nested dicts of float32 arrays.

    All kernels of one kind of distribution come from one long draw: a compilation for each kernel, as
    under `jax.jit(model.init)`, would take minutes for a deep backbone.
    """
    tree, fills = _trace(config)
    leaves = traverse_util.flatten_dict(tree)
    values = {
        path: np.full(leaf.shape, path[-1] in ("scale", "var"), leaf.dtype) for path, leaf in leaves.items()
    }
    for kind, kind_key in zip(("normal", "uniform"), jax.random.split(key), strict=True):
        paths = [path for path in leaves if path in fills and fills[path].kind == kind]
        if not paths:
            continue
        ends = np.cumsum([leaves[path].size for path in paths])
        draws = fills[paths[0]].draw(kind_key, (int(ends[-1]),))
        if not isinstance(draws, jax.core.Tracer):
            draws = jax.device_get(draws)  # To slice a JAX array is to compile each slice.
        for path, end in zip(paths, ends, strict=True):
            shape = leaves[path].shape
            part = draws[end - leaves[path].size : end].reshape(shape)
            values[path] = part * np.float32(fills[path].scale(shape))
    return jax.device_put(traverse_util.unflatten_dict(values))


def _trace(config: MaskRCNNConfig) -> tuple[dict, dict[tuple[str, ...], Fill]]:
    """Shapes of all parameters, and the distribution of each kernel by its path."""
    side = 2 * config.levels[-1]
    fills = {}

    def note(call, args, kwargs, context):
        if hasattr(context.module, "kernel_init"):
            fills[(*context.module.path, "kernel")] = context.module.kernel_init
        return call(*args, **kwargs)

    def fresh():
        images, sizes = jnp.zeros((1, side, side, 3), jnp.uint8), jnp.full((1, 2), side, jnp.int32)
        return MaskRCNN(config).init(jax.random.key(0), images, sizes)

    with nn.intercept_methods(note):
        variables = jax.eval_shape(fresh)
    return variables["params"], fills
