"""Reads the tensors of a Detectron2 checkpoint, `.pkl` or `.pth`: no torch needed, nothing in it is run."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_jax.files import require_regular
from maskrcnn_jax.unpickling import torch_zip
from maskrcnn_jax.unpickling.faults import COPY_AGAIN, PickleFault, faults_of
from maskrcnn_jax.unpickling.machine import run
from maskrcnn_jax.unpickling.numpy_values import CALLS, Tensor

# torch.save before 1.6 wrote several pickles one after another; this number is the first.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# Tensors may share bytes; a file that multiplies its size on the way in is an attack.
_MOST_GROWTH = 4
_REMEDY = "save the tensors alone: torch.save({'model': model.state_dict()}, new_path)"


def load_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the model's tensors from a checkpoint.

    Args:
      path: a pickle (protocol 2 to 5, NumPy 1 or 2) or a file of `torch.save` (zip format). The tensors
        are those of its entry `model`, or `blobs` as Caffe2 calls it, or of the whole file.

    Returns:
      Arrays by name, in the dtypes of the file. They are read-only and may share bytes.

    Raises:
      UnpickleError: no such file, damage, or content other than arrays, tensors and containers.
    """
    path = Path(path)
    with faults_of(path, _REMEDY):
        require_regular(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = torch_zip.read(archive)
        else:
            content = _read_pickle(path.read_bytes())
        return _tensors(content, path.stat().st_size)


def _read_pickle(data: bytes) -> Any:
    if data.startswith(b"PK"):
        raise PickleFault("the zip file is cut short", COPY_AGAIN)
    if not data.startswith(b"\x80"):
        remedy = (
            "if it is a pickle of protocol 0 or 1, save it anew with protocol 2 or later: "
            "pickle.dump(content, file, protocol=4)"
        )
        raise PickleFault("neither a pickle of protocol 2 to 5 nor a zip file of torch.save", remedy)
    content = run(data, CALLS)
    if content == _LEGACY_MAGIC:
        remedy = "write it again with torch.save(torch.load(path, map_location='cpu'), new_path)"
        raise PickleFault("torch's format from before 1.6, which is not read", remedy)
    return content


def _tensors(content: Any, file_size: int) -> dict[str, np.ndarray]:
    for wrapper in ("model", "blobs"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise PickleFault("no dict of tensors by name is in it")
    faults = [
        f"{name!r} is no array but {type(value).__name__}"
        for name, value in content.items()
        if not (isinstance(name, str) and isinstance(value, Tensor) and value.array is not None)
    ]
    if faults:
        raise PickleFault("\n  ".join(["its dict of tensors holds something else:", *faults]))
    arrays = {name: tensor.array for name, tensor in content.items()}
    if sum(array.nbytes for array in arrays.values()) > _MOST_GROWTH * file_size:
        raise PickleFault(f"its tensors claim more than {_MOST_GROWTH} times the bytes of the file")
    return arrays
