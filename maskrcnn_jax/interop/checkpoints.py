"""Reads the tensors of other projects' files as finite float32, and writes files that torch loads."""

import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import load_file

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.files import atomic, require_regular
from maskrcnn_jax.interop.trees import Flat, non_finite
from maskrcnn_jax.unpickling import load_tensors


def read_tensors(
    path: str | os.PathLike, ignored: Callable[[str], bool], error: type[UserError] = UserError
) -> Flat:
    """The tensors of a `.safetensors`, a pickle or a file of `torch.save`, by name, as finite float32.

    Args:
      ignored: names of tensors that are left out, whatever they hold.
      error: what is raised for tensors that are no finite floating-point numbers; each is named.

    Raises:
      UserError: the file is missing or damaged, or holds more than tensors.
    """
    tensors = _read_safetensors(Path(path)) if Path(path).suffix == ".safetensors" else load_tensors(path)
    if all(name.startswith("module.") for name in tensors):  # torch's DistributedDataParallel
        tensors = {name.removeprefix("module."): array for name, array in tensors.items()}
    tensors = {name: array for name, array in tensors.items() if not ignored(name)}
    return as_float32(tensors, str(path), error)


def as_float32(tensors: Mapping[str, np.ndarray], source: str, error: type[UserError] = UserError) -> Flat:
    """Tensors as finite float32; `error` names those that are not, and their `source`."""
    other = [
        f"{name}: {array.dtype}, no floating-point numbers"
        for name, array in tensors.items()
        if not jnp.issubdtype(array.dtype, jnp.floating)
    ]
    if not other:
        with np.errstate(over="ignore"):  # Float64 beyond float32 becomes infinite, and is named below.
            tensors = {name: array.astype(np.float32) for name, array in tensors.items()}
        other = non_finite(tensors)
    if other:
        raise error("\n  ".join([f"{source} cannot be used:", *other]))
    return dict(tensors)


def _read_safetensors(path: Path) -> Flat:
    try:
        require_regular(path)
        return load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: check the path") from error
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is no readable .safetensors file ({error}): copy it again") from error


def write_torch(path: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes float32 tensors as `torch.save` a state dict; `torch.load(weights_only=True)` reads it."""
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", _state_dict_pickle(tensors))
        archive.writestr("archive/byteorder", "little")
        for key, array in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{key}", np.ascontiguousarray(array, "<f4").tobytes())
        archive.writestr("archive/version", "3\n")


def _state_dict_pickle(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A dict of tensors over the storages "0", "1", ... in pickle's protocol 2.

    Written by hand, opcode by opcode (pickletools names them), as torch's classes are not here to be pickled.
    """
    parts = [b"\x80\x02}("]
    for key, (name, array) in enumerate(tensors.items()):
        strides = np.cumprod([1, *array.shape[:0:-1]])[::-1].tolist() if array.ndim else []
        storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text(str(key)) + _text("cpu")
        parts += [
            _text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + _number(array.size) + b"tQ",
            _number(0) + _numbers(array.shape) + _numbers(strides),
            b"\x89ccollections\nOrderedDict\n)RtR",
        ]
    return b"".join([*parts, b"u."])


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _number(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def _numbers(numbers) -> bytes:
    return b"(" + b"".join(map(_number, numbers)) + b"t"
