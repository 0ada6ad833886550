"""Reads a mapping that `np.save` has pickled, as Cellpose does with `X_seg.npy`; nothing in it is run."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_jax.files import require_regular
from maskrcnn_jax.unpickling.faults import COPY_AGAIN, PickleFault, faults_of
from maskrcnn_jax.unpickling.machine import Buildable, run
from maskrcnn_jax.unpickling.numpy_values import CALLS, DType, Tensor

_MAGIC = b"\x93NUMPY"
_OBJECT = re.compile(rb"'descr': '\|O'.*'shape': \(\)")
_REMEDY = "save what is needed of it as plain arrays, masks as PNG or TIFF"


class _DType(DType):
    """NumPy's dtype, `object` among them."""

    def __init__(self, arguments: tuple):
        match arguments:
            case ("O8" | "O", bool() | 0 | 1, bool() | 0 | 1):
                self.dtype = np.dtype(object)
            case _:
                super().__init__(arguments)

    def build(self, state: Any) -> None:
        match state:
            case (int(), "|", None, None, None, -1, -1, int()) if self.dtype.hasobject:
                pass  # It has no byte order.
            case _:
                super().build(state)


class _Box(Buildable):
    """An array, or one value in an array of type `object` without axes."""

    def __init__(self, arguments: tuple):
        self.tensor: Tensor = CALLS["numpy._core.multiarray _reconstruct"](arguments)
        self.values: list | None = None

    def build(self, state: Any) -> None:
        match state:
            case (int(), tuple(), _DType(dtype=dtype), bool() | 0 | 1, list() as values) if dtype.hasobject:
                self.values = values
            case _:
                self.tensor.build(state)


def _path(arguments: tuple) -> str:
    if not all(isinstance(part, str) for part in arguments):
        raise PickleFault("a path whose parts are no text")
    return "/".join(arguments)


_CALLS = CALLS | {
    "numpy dtype": _DType,
    "numpy.core.multiarray _reconstruct": _Box,
    "numpy._core.multiarray _reconstruct": _Box,
    "pathlib PosixPath": _path,
    "pathlib WindowsPath": _path,
    "pathlib._local PosixPath": _path,
    "pathlib._local WindowsPath": _path,
}


def load_mapping(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the arrays of a mapping in a file that `np.save(path, mapping)` wrote.

    Returns:
      The arrays of numbers by name, read-only; values of other kinds are left out.

    Raises:
      UnpickleError: no such file, damage, or content other than a mapping of arrays and containers.
    """
    path = Path(path)
    with faults_of(path, _REMEDY):
        require_regular(path)
        content = run(_pickle_of(path.read_bytes()), _CALLS)
        match content:
            case _Box(values=[dict() as mapping]) if all(isinstance(name, str) for name in mapping):
                arrays = {name: _array_of(value) for name, value in mapping.items()}
                return {name: array for name, array in arrays.items() if array is not None}
        raise PickleFault("no mapping by names is in it")


def _pickle_of(data: bytes) -> bytes:
    """What follows the header of an array of one object."""
    if not data.startswith(_MAGIC) or len(data) < 12:
        raise PickleFault("no file of np.save", COPY_AGAIN)
    size, start = (2, 10) if data[6] == 1 else (4, 12)
    end = start + int.from_bytes(data[start - size : start], "little")
    if not _OBJECT.search(data[start:end]):
        raise PickleFault("it holds a plain array and no mapping")
    return data[end:]


def _array_of(value: Any) -> np.ndarray | None:
    tensor = value.tensor if isinstance(value, _Box) else value
    return tensor.array if isinstance(tensor, Tensor) else None
