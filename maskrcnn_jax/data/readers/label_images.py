"""Label images, as StarDist and Cellpose have them: a file beside each image holds each pixel's instance."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from maskrcnn_jax.data.entries import Entry, Listing, Reading
from maskrcnn_jax.data.records import MAX_INSTANCES, Record
from maskrcnn_jax.errors import DataError, Fault
from maskrcnn_jax.images.choice import ALL, Choice
from maskrcnn_jax.images.decoding import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    image_files,
    read_image,
    read_labels,
    unexpected_files,
)
from maskrcnn_jax.unpickling import UnpickleError, load_mapping

_FOLDERS = ("masks", "labels")  # beside images/
# Of a file beside or among the images; Cellpose writes `X_cp_masks`.
LABEL_ENDINGS = ("_cp_masks", "_masks", "_mask", "_labels", "_label")
_SIDE_ENDINGS = ("_flows", "_dP", "_cp_output", "_outlines", "_cp_outlines", "_rois")  # what Cellpose adds
_SEG = "_seg"  # `X_seg.npy` of Cellpose's window: a mapping with `masks`
IMAGE_ENDINGS = ("_img", "_image")  # `000_img.png` belongs to `000_masks.png` and `000_img_cp_masks.png`


def matches(path: Path) -> bool:
    """Whether `path` looks like a data set of this kind."""
    if not path.is_dir():
        return False
    if (path / "images").is_dir():
        return any((path / name).is_dir() for name in _FOLDERS)
    files = image_files(path, LABEL_SUFFIXES)
    return any(_is_label(f) or (f.suffix == ".npy" and _stem(f).endswith(_SEG)) for f in files)


def list_entries(path: Path, choice: Choice = ALL) -> Listing:
    """Pairs of images and label images, by name, with image ids from 1 in that order; all are of one class.

    Either `images/X.*` and `masks/X.*` (or `labels/`), or `X.*` and `X_masks.*` in one folder; `X_img.*`
    and `X_cp_masks.*`, as Cellpose has them, belong together, too. A label image is a PNG, TIFF or NPY of
    whole numbers: 0 is background, each other number an instance.

    Raises:
      DataError: there is no such folder, or it holds no such pairs.
    """
    if not path.is_dir():
        raise DataError([Fault(str(path), "is no folder", "give the folder with images and label images")])
    if not matches(path):
        what = "holds neither images/ and masks/ (or labels/) nor pairs X.tif and X_masks.tif"
        raise DataError([Fault(str(path), what, "give the folder with images and label images")])
    faults = []
    images, labels = (_by_stem(files, faults) for files in _files(path))
    for name in sorted(images.keys() - labels.keys()):
        faults.append(Fault(str(images[name]), "has no label image", f"add {name}_masks.tif or delete it"))
    for name in sorted(labels.keys() - images.keys()):
        faults.append(Fault(str(labels[name]), "has no image", "add the image or delete the labels"))
    if not faults and not images:
        faults.append(Fault(str(path), "holds no images", "put images and label images right into it"))
    entries = [
        Entry(
            i,
            name,
            str(images[name]),
            functools.partial(_read_pair, i, name, images[name], labels[name], choice),
        )
        for i, name in enumerate(sorted(images.keys() & labels.keys()), start=1)
    ]
    return Listing(entries, faults, _unexpected(path))


def _files(path: Path) -> tuple[list[Path], list[Path]]:
    """Image files and label files."""
    if (path / "images").is_dir():
        folders = [path / name for name in _FOLDERS if (path / name).is_dir()]
        return image_files(path / "images"), [f for p in folders for f in image_files(p, LABEL_SUFFIXES)]
    images = [file for file in image_files(path) if not _is_label(file) and not _is_side_file(file)]
    labels = [file for file in image_files(path, LABEL_SUFFIXES) if _is_label(file)]
    saved = {_shared_name(file) for file in labels}
    segs = [file for file in image_files(path, (".npy",)) if _stem(file).endswith(_SEG)]
    return images, labels + [file for file in segs if _shared_name(file) not in saved]


def _is_label(path: Path) -> bool:
    return _stem(path).endswith(LABEL_ENDINGS)


def _is_side_file(path: Path) -> bool:
    return _stem(path).endswith(_SIDE_ENDINGS)


def _shared_name(path: Path) -> str:
    """What an image and its labels have in common."""
    name = _stem(path)
    for endings in ((*LABEL_ENDINGS, _SEG), (".ome",), IMAGE_ENDINGS):
        name = name.removesuffix(next((e for e in endings if name.endswith(e)), ""))
    return name


def _labels_of(path: Path) -> np.ndarray:
    if path.suffix == ".npy" and _stem(path).endswith(_SEG):
        try:
            return load_mapping(path)["masks"]
        except (UnpickleError, KeyError) as error:
            what = "holds no masks" if isinstance(error, KeyError) else str(error).replace(f"{path}: ", "")
            raise DataError([Fault(str(path), what, "save the masks as PNG or TIFF")]) from error
    return read_labels(path)


def _stem(path: Path) -> str:
    """The file's name without its type, which may be `.ome.tif`."""
    return path.stem.removesuffix(".ome")


def _unexpected(path: Path) -> list[Fault]:
    """Files of a type that is not read where they lie; JPEG, for one, would change labels."""
    if not (path / "images").is_dir():
        found = unexpected_files(path, (*IMAGE_SUFFIXES, ".npy"))
        return [fault for fault in found if not _is_side_file(Path(fault.where))]
    folders = [path / name for name in _FOLDERS if (path / name).is_dir()]
    others = [fault for folder in folders for fault in unexpected_files(folder, LABEL_SUFFIXES)]
    return unexpected_files(path / "images", IMAGE_SUFFIXES) + others


def _by_stem(files: list[Path], faults: list[Fault]) -> dict[str, Path]:
    """Files by the name that an image shares with its labels."""
    found: dict[str, Path] = {}
    for file in files:
        name = _shared_name(file)
        twin = found.setdefault(name, file)
        if twin is not file:
            faults.append(Fault(str(file), f"has the same name as {twin.name}", "leave one of the two"))
    return found


def _read_pair(image_id: int, name: str, image_path: Path, labels_path: Path, choice: Choice) -> Reading:
    image = labels = None
    faults: list[Fault] = []
    try:
        image = read_image(image_path, choice)
    except DataError as error:
        faults += error.faults
    try:
        labels = _labels_of(labels_path)
    except DataError as error:
        faults += error.faults
    if image is None or labels is None:
        return Reading(None, faults, [], [])
    if labels.shape != image.shape[:2]:
        sizes = " x ".join(map(str, labels.shape)), " x ".join(map(str, image.shape[:2]))
        what = f"has {sizes[0]} pixels (height x width), its image {sizes[1]}"
        return Reading(None, [Fault(str(labels_path), what, "give the labels the image's size")], [], [])
    values, numbered = np.unique(labels, return_inverse=True)
    numbered = numbered.reshape(labels.shape)
    if values[0] != 0:
        values, numbered = np.concatenate([[0], values]), numbered + 1
    if len(values) - 1 > MAX_INSTANCES:
        what = f"holds {len(values) - 1} labels, at most {MAX_INSTANCES} fit"
        return Reading(None, [Fault(str(labels_path), what, "cut the image into tiles")], [], [])
    layers = numbered.astype(np.uint16)[None]
    record = Record(image_id, name, image, layers, np.zeros(len(values) - 1, np.int32))
    return Reading(record, [], [], [f"{labels_path}: label {value}" for value in values[1:]])
