"""Mask folders, as in the 2018 Data Science Bowl: NAME/images/ has one image, NAME/masks/ one file each."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageChops

from maskrcnn_jax.data.entries import TWIN, Entry, Listing, Reading
from maskrcnn_jax.data.records import Record, encode_layers
from maskrcnn_jax.errors import DataError, Fault
from maskrcnn_jax.images.choice import ALL, Choice
from maskrcnn_jax.images.decoding import (
    IMAGE_SUFFIXES,
    UNREADABLE,
    image_files,
    read_image,
    require_one_page,
    unexpected_files,
    unreadable,
)
from maskrcnn_jax.masks.crops import Crop


def matches(path: Path) -> bool:
    """Whether `path` looks like a data set of this kind: beside `masks/` lies one image, not all of them."""
    return path.is_dir() and any(
        (folder / "masks").is_dir()
        and (not (folder / "images").is_dir() or len(image_files(folder / "images")) < 2)
        for folder in _folders(path)
    )


def list_entries(path: Path, choice: Choice = ALL) -> Listing:
    """The image folders in `path` by name, with image ids from 1 in that order; all are of one class.

    Hidden files and folders are ignored. Masks may overlap. Their pixels are 0 and one other value;
    those other than 0 are the instance. An image or a mask that cannot be used is left out.

    Raises:
      DataError: there is no such folder, or it holds no folders.
    """
    if not path.is_dir():
        raise DataError([Fault(str(path), "is no folder", "give the folder that holds one folder per image")])
    folders = _folders(path)
    if not folders:
        what = "holds no folders"
        raise DataError([Fault(str(path), what, "expected NAME/images/ and NAME/masks/ in it")])
    entries = [
        Entry(i, folder.name, str(folder / "images"), functools.partial(_read_folder, i, folder, choice))
        for i, folder in enumerate(folders, start=1)
    ]
    return Listing(entries, [], [])


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _read_folder(image_id: int, folder: Path, choice: Choice) -> Reading:
    image, faults = _read_only_image(folder / "images", choice)
    masks = folder / "masks"
    if not masks.is_dir():
        return Reading(
            None, [*faults, Fault(str(masks), "is no folder", "put one PNG for each instance there")], [], []
        )
    found, mask_faults = _read_masks(masks, None if image is None else image.shape[:2])
    faults += mask_faults
    doubts = [
        fault
        for place in (folder / "images", masks)
        if place.is_dir()
        for fault in unexpected_files(place, IMAGE_SUFFIXES)
    ]
    if image is None:
        return Reading(None, faults, doubts, [])
    layers = encode_layers(list(found.values()), image.shape[:2])
    record = Record(image_id, folder.name, image, layers, np.zeros(len(found), np.int32))
    return Reading(record, faults, doubts, [str(path) for path in found])


def _read_only_image(folder: Path, choice: Choice) -> tuple[UInt8[np.ndarray, "H W 3"] | None, list[Fault]]:
    if not folder.is_dir():
        return None, [Fault(str(folder), "is no folder", "put the image there")]
    files = image_files(folder)
    if len(files) != 1:
        listed = ", ".join(file.name for file in files) or "none"
        remedy = f"leave exactly one of {', '.join(IMAGE_SUFFIXES)}"
        return None, [Fault(str(folder), f"holds {len(files)} images ({listed})", remedy)]
    try:
        return read_image(files[0], choice), []
    except DataError as error:
        return None, error.faults


def _read_masks(folder: Path, size: tuple[int, int] | None) -> tuple[dict[Path, Crop], list[Fault]]:
    """The sound masks in order of their file names; without a size, none is compared with it."""
    first_file: dict[tuple, str] = {}
    crops, faults = {}, []
    for path in image_files(folder):
        crop = _read_mask(path, size)
        if isinstance(crop, Fault):
            faults.append(crop)
            continue
        twin = first_file.setdefault(crop.content, path.name)
        if twin == path.name:
            crops[path] = crop
        else:
            faults.append(Fault(str(path), f"{TWIN} {twin}", "delete one of the two"))
    return crops, faults


def _brightest_channel(image: Image.Image) -> Image.Image:
    """A coloured mask as grey: its luminance would round the darkest colours to 0."""
    if image.mode.startswith(("I", "F")):
        return image.convert("L")
    return functools.reduce(ImageChops.lighter, image.convert("RGB").split())


def _read_mask(path: Path, size: tuple[int, int] | None) -> Crop | Fault:
    """A mask without its empty surroundings, which are nearly all of it."""
    try:
        with Image.open(path) as image:
            require_one_page(image)
            image.load()
    except UNREADABLE as error:
        return unreadable(path, error)
    found = (image.height, image.width)
    if size is not None and found != size:
        what = f"has {found[0]} x {found[1]} pixels (height x width), its image {size[0]} x {size[1]}"
        return Fault(str(path), what, "give the mask the image's size")
    if image.mode not in ("L", "1"):
        image = _brightest_channel(image)
    window = image.getbbox()
    if window is None:
        return Fault(str(path), "is empty: every pixel is 0", "delete it or draw the instance")
    pixels = np.asarray(image.crop(window))
    values = np.unique(pixels[pixels > 0])
    if len(values) > 1:
        what = f"has {len(values)} values besides 0 ({values[0]} to {values[-1]}), as after interpolation"
        return Fault(
            str(path), what, "save one instance as 0 and 255, and enlarge masks by nearest neighbour"
        )
    return Crop(window[1], window[0], pixels > 0)
