"""Files of `torch.save` (zip format, torch 1.6 and later): a pickle of tensors over raw storages."""

import math
import re
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from maskrcnn_jax.unpickling.faults import PickleFault
from maskrcnn_jax.unpickling.machine import Global, run
from maskrcnn_jax.unpickling.numpy_values import CALLS, Tensor, sizes

_DTYPES = {
    "torch FloatStorage": np.dtype(np.float32),
    "torch DoubleStorage": np.dtype(np.float64),
    "torch HalfStorage": np.dtype(np.float16),
    "torch BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch LongStorage": np.dtype(np.int64),
    "torch IntStorage": np.dtype(np.int32),
    "torch ShortStorage": np.dtype(np.int16),
    "torch CharStorage": np.dtype(np.int8),
    "torch ByteStorage": np.dtype(np.uint8),
    "torch BoolStorage": np.dtype(np.bool_),
}


class _Storage:
    """A flat array that tensors are views of."""

    def __init__(self, values: np.ndarray):
        self.values = values


def read(archive: zipfile.ZipFile) -> Any:
    """Evaluates the archive's pickle; its storages are read from the archive, nothing is extracted.

    Raises:
      PickleFault: the archive is not laid out as torch does, or its pickle is refused.
    """
    root = _root(archive)
    storages = _Storages(archive, root)
    return run(archive.read(f"{root}/data.pkl"), _TORCH_CALLS, storages.load)


def _root(archive: zipfile.ZipFile) -> str:
    """The one folder in a torch file."""
    names = archive.namelist()
    roots = [match[1] for name in names if (match := re.fullmatch(r"([^/\\]+)/data\.pkl", name))]
    faults = []
    if len(roots) != 1:
        faults.append("not exactly one data.pkl")
    elif any(not name.startswith(f"{roots[0]}/") or ".." in name for name in names):
        faults.append("entries outside its folder")
    if len(set(names)) < len(names):
        faults.append("repeated entries")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        faults.append("compressed entries")
    if sum(entry.file_size for entry in archive.infolist()) > Path(archive.filename).stat().st_size:
        faults.append("overlapping entries")
    if faults:
        raise PickleFault(f"a zip file that torch.save did not write: {', '.join(faults)}")
    return roots[0]


class _Storages:
    """The raw bytes beside the pickle, read when it asks for them."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        self._archive, self._root = archive, root
        self._entries = {entry.filename: entry for entry in archive.infolist()}
        self._bytes: dict[str, bytes] = {}
        byteorder = b"little"
        if f"{root}/byteorder" in self._entries:
            byteorder = archive.read(f"{root}/byteorder")
        if byteorder not in (b"little", b"big"):
            raise PickleFault(f"a byte order {byteorder[:20]!r} that is neither little nor big")
        self._order = "<" if byteorder == b"little" else ">"

    def load(self, identifier: Any) -> _Storage:
        """The storage of a persistent id: ("storage", kind, key, device, count)."""
        match identifier:
            case ("storage", Global(name=kind), str(key), str(), int(count)) if kind in _DTYPES:
                dtype = _DTYPES[kind]
            case _:
                raise PickleFault("a persistent id that is no storage of numbers")
        entry = self._entries.get(f"{self._root}/data/{key}")
        if entry is None:
            raise PickleFault(f"the storage {key!r} is not in the zip file")
        if entry.file_size != count * dtype.itemsize:
            raise PickleFault(f"the storage {key!r} of {count} {dtype} in {entry.file_size} bytes")
        if key not in self._bytes:
            self._bytes[key] = self._archive.read(entry)
        return _Storage(np.frombuffer(self._bytes[key], dtype.newbyteorder(self._order)))


def _rebuild_tensor(arguments: tuple) -> Tensor:
    """A view of a storage: inside it, and with no more values than it has."""
    match arguments:
        case (_Storage(values=values), offset, size, stride, *_):
            (offset,), size = sizes((offset,), "offset"), sizes(size, "size")
            stride = sizes(stride, "stride")
        case _:
            raise PickleFault("a tensor with other arguments than (storage, offset, size, stride)")
    count, pairs = math.prod(size), list(zip(size, stride, strict=False))
    end = offset + sum((n - 1) * step for n, step in pairs) + 1 if count else offset
    if len(size) != len(stride) or end > len(values) or count > len(values):
        raise PickleFault(
            f"a tensor of size {size}, stride {stride}, offset {offset} in a storage of {len(values)} values"
        )
    steps = [step * values.itemsize for step in stride]
    return Tensor(np.lib.stride_tricks.as_strided(values[offset:], size, steps, writeable=False))


def _rebuild_parameter(arguments: tuple) -> Tensor:
    match arguments:
        case (Tensor() as tensor, bool(), *_):
            return tensor
    raise PickleFault("a parameter that is no tensor")


_TORCH_CALLS = CALLS | {
    "torch._utils _rebuild_tensor": _rebuild_tensor,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_parameter": _rebuild_parameter,
    **dict.fromkeys(_DTYPES),
}
