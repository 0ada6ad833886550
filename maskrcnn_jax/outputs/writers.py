"""Files that people use. Each is written under a temporary name and renamed, so none is ever half there."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

PathLike = str | os.PathLike[str]


Rows = Iterable[Mapping[str, Any]]


def write_coco_results(path: PathLike, rows: Rows) -> None:
    """COCO result rows as the JSON list that pycocotools and contest servers load, one row a line."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = "[\n"
        for row in rows:
            file.write(separator + _json(row))
            separator = ",\n"
        file.write("[]\n" if separator == "[\n" else "\n]\n")


def write_metrics(path: PathLike, metrics: Mapping[str, Any]) -> None:
    """Metrics as a JSON object in the order of their names; what is not a number becomes null."""
    write_json(path, dict(sorted(metrics.items())))


def write_json(path: PathLike, value: Any) -> None:
    """Nested mappings, sequences, numbers and NumPy values as indented JSON.

    JSON knows neither NaN nor infinity: both become null.

    Raises:
      TypeError: a value has no form in JSON; nothing is written.
    """
    _write_text(path, _json(value, indent=2) + "\n")


def write_image(path: PathLike, image: UInt8[np.ndarray, "H W 3"]) -> None:
    """An RGB or grey uint8 picture, in the format that the name's ending tells."""
    path = Path(path)
    with atomic(path) as temporary:
        form = Image.registered_extensions()[path.suffix.lower()]
        # Of PNG: by default twice as slow, for hardly a byte.
        Image.fromarray(image).save(temporary, format=form, compress_level=4)


@contextlib.contextmanager
def atomic(path: PathLike) -> Iterator[Path]:
    """A temporary name in the folder of `path`, which is made; renamed to `path` on leaving.

    If the block raises, the temporary file goes and `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp's files are for their owner's eyes only.
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_text(path: PathLike, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(_plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """`value` as JSON has it."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, bytes):  # the counts of pycocotools' run-length encodings
        return value.decode("ascii")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
