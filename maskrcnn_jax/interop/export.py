"""A function of images, with its parameters, as one file that other runtimes run.

What is exported is any `function(params, images)` that returns arrays by name, as
`prediction.whole.whole_prediction` gives it. Who reads the file needs neither this package nor the config.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jax import export
from jaxtyping import Array, UInt8

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.files import atomic, atomic_folder
from maskrcnn_jax.interop.rewriting import rewritten, top_k_by_sort
from maskrcnn_jax.interop.trees import Tree

PLATFORMS = ("cpu", "cuda")
Kind = Literal["stablehlo", "savedmodel"]
Function = Callable[[Tree, UInt8[Array, "B H W 3"]], Mapping[str, Array]]
Shape = tuple[int | None, int, int, int]


def save(
    path: str | os.PathLike, function: Function, params: Tree, shape: Shape, *, kind: Kind
) -> dict[str, tuple[np.dtype, tuple[int | None, ...]]]:
    """Writes a function of uint8 images; the file is there whole or not at all.

    Args:
      path: of the file, or of the folder of a SavedModel; what is there is replaced.
      function: pure; it is traced, not run.
      params: its first argument.
      shape: of its second one; None as the number of images is any.
      kind: `stablehlo`, for `jax.export.deserialize`, or `savedmodel`, for TensorFlow. Both are lowered for
        CPUs and for NVIDIA's GPUs.

    Returns:
      Type and shape of each result by its name; None is any number.

    Raises:
      UserError: a SavedModel would replace what is none.
    """
    write = {"stablehlo": _save_stablehlo, "savedmodel": _save_savedmodel}[kind]
    return write(Path(path), function, params, shape)


def _save_stablehlo(path: Path, function: Function, params: Tree, shape: Shape):
    batch = export.symbolic_shape("N")[0] if shape[0] is None else shape[0]
    images = jax.ShapeDtypeStruct((batch, *shape[1:]), np.uint8)
    exported = export.export(jax.jit(lambda images: function(params, images)), platforms=PLATFORMS)(images)
    with atomic(path) as temporary:
        temporary.write_bytes(exported.serialize())
    results = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {
        name: (np.dtype(x.dtype), tuple(None if export.is_symbolic_dim(side) else side for side in x.shape))
        for name, x in results.items()
    }


def _save_savedmodel(path: Path, function: Function, params: Tree, shape: Shape):
    import tensorflow as tf
    from jax.experimental import jax2tf

    if path.exists() and not (path / "saved_model.pb").is_file():
        raise UserError(f"{path} exists and is no SavedModel: choose another folder or remove it first")
    converted = jax2tf.convert(
        rewritten(function, {"top_k": top_k_by_sort}),
        polymorphic_shapes=[None, None if shape[0] else "N, ..."],
        native_serialization_platforms=PLATFORMS,
        with_gradient=False,
    )
    module = tf.Module()
    module.params = jax.tree.map(tf.Variable, params)  # Constants would count against a graph's 2 GB.
    images = tf.TensorSpec(shape, tf.uint8, name="images")
    module.predict = tf.function(
        lambda images: dict(converted(module.params, images)), input_signature=[images], autograph=False
    )
    with atomic_folder(path) as new:
        tf.saved_model.save(module, os.fspath(new), signatures={"serving_default": module.predict})
    results = module.predict.get_concrete_function().structured_outputs
    return {name: (np.dtype(x.dtype.as_numpy_dtype), tuple(x.shape)) for name, x in results.items()}
