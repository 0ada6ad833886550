"""Where the images of a COCO file lie, what to call them, and names that are none."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePath
from typing import NamedTuple

from maskrcnn_jax.data.readers.coco_file import Row, repeated, shown
from maskrcnn_jax.errors import DataError, Fault


class ImageFile(NamedTuple):
    """An image of a COCO file: what results and messages call it, and where it lies or should."""

    name: str
    path: Path


def find_images(path: Path, rows: list[Row], root: Path | None) -> list[ImageFile]:
    r"""The file of each image.

    A file name is tried as it stands, with its backslashes as slashes, and by its last part, where no other
    image has the same: annotation tools write names of their own disks, such as `..\media\tile.png`.

    Args:
      path: the JSON file.
      rows: its images.
      root: the folder that file names start from. Not given, it is sought where people keep it: beside
        the JSON file, in its `images/` or `NAME/`, or as COCO has it, `annotations/instances_NAME.json`
        and `NAME/`.

    Raises:
      DataError: no folder holds any of them.
    """
    spellings = _spellings([row["file_name"] for row in rows])
    root = root or _find_root(path, spellings)
    names = _names(rows)
    return [ImageFile(name, _place(root, ways)) for name, ways in zip(names, spellings, strict=True)]


def name_fault(where: str, row: Row, path: Path) -> Fault | None:
    """What is wrong with a `file_name` that no file can have."""
    what, remedy = f"has the file_name {shown(row['file_name'])}", "write the name of its file"
    if not _parts(row["file_name"]):
        return Fault(where, what, remedy)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None  # a possible name, whose file is missing or cannot be opened
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text of a file system"
        return Fault(where, f"{what}: {reason}", remedy)
    return None


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]


def _spellings(file_names: list[str]) -> list[list[str]]:
    """For each file name, what its file may be called, as it stands first."""
    last = [parts[-1] if (parts := _parts(name)) else "" for name in file_names]
    count = Counter(last)
    return [
        list(dict.fromkeys([name, name.replace("\\", "/"), *([end] if end and count[end] == 1 else [])]))
        for name, end in zip(file_names, last, strict=True)
    ]


def _place(root: Path, spellings: list[str]) -> Path:
    """The first that is there; nothing is looked for where there is no choice."""
    places = [root / spelling for spelling in spellings]
    found = (place for place in places if _is_file(place)) if len(places) > 1 else ()
    return next(iter(found), places[0])


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the system allows
        return False


def _find_root(path: Path, spellings: list[list[str]]) -> Path:
    name = path.stem.removeprefix("instances_")
    bases = (path.parent, path.parent.parent)
    candidates = [base / place for base in bases for place in ("", "images", name, f"images/{name}")]
    for way in range(max(map(len, spellings))):
        for ways in spellings:
            for candidate in candidates:
                if way < len(ways) and _is_file(candidate / ways[way]):
                    return candidate
    what = f"its images ({shown(spellings[0][0])}, ...) are in none of {', '.join(map(str, candidates))}"
    raise DataError([Fault(str(path), what, "say where the images are (`images`)")])


def _names(rows: list[Row]) -> list[str]:
    """What messages and result files call the images; each must be the name of a file of its own."""
    names = []
    for row in rows:
        *folders, last = _parts(row["file_name"]) or ["image"]
        names.append("_".join([*folders, PurePath(last).stem]))
    shared = set(repeated(names))
    return [f"{name}_{row['id']}" if name in shared else name for name, row in zip(names, rows, strict=True)]
