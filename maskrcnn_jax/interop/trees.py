"""Parameter trees as flat tables: names joined by "/", so that files and error lists can name a tensor."""

import functools
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.models.parameters import param_shapes

Tree = dict[str, Any]
Flat = dict[str, np.ndarray]


def flatten(tree: Mapping[str, Any]) -> Flat:
    """NumPy arrays by path, `rpn/conv/kernel`, in the tree's order."""
    return {path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(tree, sep="/").items()}


def nest(flat: Mapping[str, Any]) -> Tree:
    """The inverse of `flatten`."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")


def shapes(flat: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor."""
    return {path: array.shape for path, array in flat.items()}


def non_finite(flat: Flat) -> list[str]:
    """One line for each tensor that holds NaN or infinity, with how many."""
    counts = {path: int(np.count_nonzero(~np.isfinite(array))) for path, array in flat.items()}
    return [
        f"{path}: {count} of {flat[path].size} values are not finite"
        for path, count in counts.items()
        if count
    ]


@functools.cache
def expected_shapes(config: MaskRCNNConfig) -> Mapping[str, tuple[int, ...]]:
    """Shape of each parameter of the config's model, by path; the model is traced, not computed."""
    return types.MappingProxyType(shapes(traverse_util.flatten_dict(param_shapes(config), sep="/")))


def mismatches(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> list[str]:
    """One line for each tensor that is missing, unexpected or of another shape."""
    both = [path for path in expected if path in found]
    return [
        *(f"{path}: missing, shape {expected[path]}" for path in expected if path not in found),
        *(f"{path}: unexpected, shape {found[path]}" for path in found if path not in expected),
        *(
            f"{path}: shape {found[path]} where the config asks for {expected[path]}"
            for path in both
            if found[path] != expected[path]
        ),
    ]
