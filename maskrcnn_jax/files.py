"""Files are written under a temporary name and renamed: none is ever half there. Only regular ones are read.

Pipes and devices may never answer or never end.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

PathLike = str | os.PathLike[str]

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


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


@contextlib.contextmanager
def atomic_folder(path: PathLike) -> Iterator[Path]:
    """A new folder beside `path`; renamed to `path` on leaving, in place of the folder that may be there.

    If the block raises, the new folder goes and `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        new = Path(scratch, "new")
        new.mkdir()
        yield new
        if path.exists():  # folders cannot be renamed over full ones
            path.rename(Path(scratch, "old"))
        new.rename(path)


def write_json(path: PathLike, value: Any) -> None:
    """Nested mappings, sequences, numbers and NumPy values as indented JSON.

    JSON knows neither NaN nor infinity: both become null.

    Raises:
      TypeError: a value has no form in JSON; nothing is written.
    """
    text = to_json(value, indent=2) + "\n"
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_lines(path: PathLike, values: Iterable[Any]) -> None:
    """Each value as JSON on a line of its own."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(to_json(value) + "\n" for value in values)


def require_regular(path: str | os.PathLike) -> None:
    """To be called before a path that somebody else chose is opened; links are followed.

    Raises:
      OSError: there is no such file, or it is a folder, a named pipe, a device or a socket.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116 - a path that is none, with a NUL say, raises here, too
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "of an unknown kind")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", os.fspath(path))


def to_json(value: Any, indent: int | None = None) -> str:
    """The text of `write_json`, on one line where no indent is given."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def as_json(value: Any) -> Any:
    """`value` as it comes back from a file of `write_json`: tuples are lists, keys are text."""
    return json.loads(to_json(value))


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
