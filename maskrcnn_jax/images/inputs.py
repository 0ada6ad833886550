"""Which images a person means by files, folders and patterns, and what to call their results."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from maskrcnn_jax.documents import DATA_SET, DocumentError, read_json
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.images.decoding import IMAGE_SUFFIXES, image_files
from maskrcnn_jax.images.ome_zarr import is_ome_zarr
from maskrcnn_jax.images.sources import SLIDE_SUFFIXES

SUFFIXES = (*IMAGE_SUFFIXES, ".btf", *SLIDE_SUFFIXES)


def find_images(paths: Iterable[str]) -> tuple[list[Path], list[str]]:
    """The images that are meant, each once, in the order of the arguments, sorted within each.

    Args:
      paths: files of any name; folders, of which all images are taken, without those in deeper folders; and
        patterns of shells, of which only images are taken, `**` standing for folders of any depth.

    Returns:
      The images, and what is wrong with the paths that led to none.
    """
    found: dict[Path, Path] = {}
    faults = []
    for given in paths:
        images, fault = _images_of(given)
        faults += [fault] if fault else []
        for image in images:
            found.setdefault(image.resolve(), image)
    return list(found.values()), faults


def _images_of(given: str) -> tuple[list[Path], str | None]:
    path = Path(given)
    if is_ome_zarr(path):
        return [path], None
    if path.is_dir():
        images = sorted([*image_files(path, SUFFIXES), *filter(is_ome_zarr, path.iterdir())])
        deeper = (
            " itself; those in its folders are PATH/'**/*'" if any(map(Path.is_dir, path.iterdir())) else ""
        )
        return images, None if images else f"{given}: there is no image in this folder{deeper}"
    if path.exists():
        return [path], None
    if not glob.has_magic(given):
        return [], f"{given}: there is no such file or folder"
    matches = map(Path, sorted(glob.glob(given, recursive=True)))  # noqa: PTH207 - Path's needs a folder
    images = [
        match
        for match in matches
        if is_ome_zarr(match) or (match.is_file() and match.suffix.lower() in SUFFIXES)
    ]
    return images, None if images else f"{given}: no image has such a name"


def unique_names(images: Sequence[Path]) -> list[str]:
    """A short name for each image's files: its own without the type, or as much more as tells it from others.

    Those of one name in different folders get as many of their folders as differ, joined by `__`; those that
    differ in their type alone keep it. Case does not count, as some file systems know none.

    Raises:
      UserError: two images cannot be told apart that way.
    """
    groups = defaultdict(list)
    for image in images:
        groups[image.stem.casefold()].append(image)
    names: dict[Path, str] = {}
    for group in groups.values():
        names |= next(filter(_all_differ, _ways_to_name(group)))
    if not _all_differ(names):
        lines = sorted(f"{name}: {image}" for image, name in names.items())
        raise UserError("these images' results would have the same names:\n  " + "\n  ".join(lines))
    return [names[image] for image in images]


def _ways_to_name(group: Sequence[Path]) -> Iterable[dict[Path, str]]:
    yield {image: image.stem for image in group}
    yield {image: image.name for image in group}
    whole = {image: image.resolve() for image in group}
    root = os.path.commonpath([image.parent for image in whole.values()])
    inner = {image: path.relative_to(root) for image, path in whole.items()}
    yield {image: "__".join(path.with_suffix("").parts) for image, path in inner.items()}
    yield {image: "__".join(path.parts) for image, path in inner.items()}
    yield {image: f"{number}__{image.name}" for number, image in enumerate(group, 1)}


def _all_differ(names: dict[Path, str]) -> bool:
    return len({name.casefold() for name in names.values()}) == len(names)


class Ids(NamedTuple):
    """What a data set calls its images and categories.

    Attributes:
      images: the id of each file name, without folders.
      categories: the name of each category id; None if the file has none.
    """

    images: dict[str, int]
    categories: dict[int, str] | None


def read_ids(path: Path) -> Ids:
    """From a COCO data set, or the JSON list of its images.

    Raises:
      UserError: the file is neither; or two images of one file name have different ids.
    """
    try:
        content = read_json(path, most_bytes=DATA_SET)
        entries = content["images"] if isinstance(content, dict) else content
        pairs = [(Path(entry["file_name"]).name, int(entry["id"])) for entry in entries]
        rows = content.get("categories") if isinstance(content, dict) else None
        categories = {int(row["id"]): str(row["name"]) for row in rows} if rows else None
        categories = categories and dict(sorted(categories.items()))
    except DocumentError:
        raise
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        wanted = "neither a COCO data set nor a JSON list of images with `id` and `file_name`"
        raise UserError(f"{path} is {wanted} ({error!r})") from error
    images = dict(pairs)
    twice = sorted({name for name, number in pairs if images[name] != number})
    if twice:
        raise UserError(f"{path} has several images called {', '.join(twice)}: their names must differ")
    return Ids(images, categories)
