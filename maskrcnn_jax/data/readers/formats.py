"""The data set formats by name, and what to say when the wrong one was chosen."""

from __future__ import annotations

import os
from pathlib import Path

from maskrcnn_jax.data.entries import Listing
from maskrcnn_jax.data.readers import coco_json, label_images, mask_folder
from maskrcnn_jax.errors import DataError, Fault, UserError
from maskrcnn_jax.images.choice import ALL, Choice
from maskrcnn_jax.plain_values import nearest

FORMATS = {"mask_folder": mask_folder, "coco": coco_json, "labels": label_images}


def list_entries(
    format: str,
    path: str | os.PathLike,
    *,
    images: str | os.PathLike | None = None,
    crowds_are_instances: bool = False,
    choice: Choice = ALL,
) -> Listing:
    """What a data set holds, without reading any image.

    Args:
      format: one of `FORMATS`; each module says what it expects.
      path: the folder, or the JSON file of a COCO data set.
      images: where a COCO file's file names start from; None looks in the usual places.
      crowds_are_instances: a COCO file's `iscrowd` means nothing.
      choice: what to read of images with several series, planes or channels.

    Raises:
      UserError: the format is unknown, or an option is given where it means nothing.
      DataError: there is nothing of this format; if it looks like another one, or lies one folder deeper,
        the error says so.
    """
    if format not in FORMATS:
        raise UserError(
            f"the data format {format!r} is unknown{nearest(format, FORMATS)}: choose {', '.join(FORMATS)}"
        )
    if images is not None and format != "coco":
        raise UserError(f"`images` is for COCO files only, the format is {format}")
    if crowds_are_instances and format != "coco":
        raise UserError(f"`crowds_are_instances` is for COCO files only, the format is {format}")
    path = Path(path)
    if not FORMATS[format].matches(path) and (fault := _misplaced(format, path)):
        raise DataError([fault])
    if format == "coco":
        folder = None if images is None else Path(images)
        return coco_json.list_entries(path, folder, choice, crowds_are_instances=crowds_are_instances)
    return FORMATS[format].list_entries(path, choice)


def _misplaced(format: str, path: Path) -> Fault | None:
    """What `path` is instead, or where below it this format is; None where neither can be told."""
    what = f"is no {format} data set, but "
    for name, module in FORMATS.items():
        if name != format and module.matches(path):
            return Fault(str(path), f"{what}looks like {name}", f"set the format to {name}")
    places = sorted(path.glob("*")) + sorted(path.glob("annotations/*"))
    below = [str(place) for place in places if FORMATS[format].matches(place)]
    if below:
        return Fault(str(path), f"{what}holds what looks like one", f"give the path {' or '.join(below[:3])}")
    return None
