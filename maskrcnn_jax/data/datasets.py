"""From the `data` section of a config to records: which data set, and which part of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from maskrcnn_jax.data.entries import Entry, Listing, Reading, read_records
from maskrcnn_jax.data.readers.formats import list_entries
from maskrcnn_jax.data.records import Record, encode_layers
from maskrcnn_jax.data.synthetic import draw_records
from maskrcnn_jax.documents import DocumentError, read_json
from maskrcnn_jax.errors import DataError, UserError
from maskrcnn_jax.experiment import DataConfig
from maskrcnn_jax.images.choice import Choice
from maskrcnn_jax.images.decoding import read_image

Progress = Callable[[int, int], None]


def load_split(data: DataConfig, split: str, *, progress: Progress | None = None) -> Sequence[Record]:
    """The records of one split.

    Args:
      data: `format` says how to read. `synthetic` draws `train_images` and `validation_images` from
        disjoint random streams. `mask_folder`, `coco` and `labels` read `path` (and, for COCO, the folder
        `images`, if it is not in a usual place, and `crowds_are_instances`); validation is all of
        `validation_path` if that is given, else the last `validation_images` of `path`, which may be empty
        where only `validation_path` is wanted. With `prepared`, a folder, these formats are written there as
        shards once, and training reads record by record instead of holding all.
        `test_images` and `test_ids` name a folder of images without ground truth and the JSON list of
        their `file_name` and `id`.
      split: `train`, `validation` or `test`.
      progress: called with the number of images done and of all.

    Raises:
      UserError: an unknown format or split, or a split that this config does not have.
      DataError: lists every fault of the data set.
    """
    if split not in ("train", "validation", "test"):
        raise UserError(f"unknown split {split!r}: choose train, validation or test")
    if split == "test":
        return _test_records(data, progress)
    if data.format == "synthetic":
        count, stream = (data.train_images, 0) if split == "train" else (data.validation_images, 1)
        return draw_records(count, seed=2 * data.seed + stream, size=data.size, name=split)
    if data.prepared:
        return _prepared_records(data, split, progress)
    return read_records(split_entries(data, split), progress=progress)


def class_names(data: DataConfig, num_classes: int) -> tuple[str, ...]:
    """The name of each class of the data set.

    Raises:
      UserError: a model of `num_classes` classes does not suit it, or the validation set has other classes;
        or as `load_split`.
    """
    names = ("nucleus",) if data.format == "synthetic" else _common_categories(data)
    if len(names) != num_classes:
        raise UserError(
            f"model.num_classes is {num_classes}, but the data has {len(names)} ({', '.join(names[:5])}"
            f"{', ...' * (len(names) > 5)}): set model.num_classes to {len(names)}"
        )
    return names


def categories(data: DataConfig, split: str, num_classes: int) -> dict[int, str]:
    """The name of each class by the id that results for this split call it; raises as `class_names`."""
    names = class_names(data, num_classes)
    ids = (1,) if data.format == "synthetic" else _split_listing(data, split).category_ids
    return dict(zip(ids, names, strict=True))


def split_entries(data: DataConfig, split: str) -> list[Entry]:
    """The images of the `train` or `validation` split, listed but not read; raises as `load_split`."""
    return _split_listing(data, split).entries


def _common_categories(data: DataConfig) -> tuple[str, ...]:
    """The names of the classes, which are those of the validation set, too."""
    paths = [path for path in (data.path, data.validation_path) if path] or [data.path]
    names, *others = [_listing(data, path).categories for path in paths]
    if others and others[0] != names:
        raise UserError(
            f"data.validation_path has the categories {', '.join(others[0])}, "
            f"data.path {', '.join(names)}: list the same in both files, in one order of their ids"
        )
    return names


def _split_listing(data: DataConfig, split: str) -> Listing:
    apart = data.validation_path
    path = apart if apart and split == "validation" else data.path
    listing = _listing(data, path)
    if apart:
        return listing
    held_out, count = data.validation_images, len(listing.entries)
    if not 0 <= held_out < count:
        raise UserError(f"data.validation_images is {held_out}, but {path} has {count} images")
    cut = slice(count - held_out) if split == "train" else slice(count - held_out, None)
    return listing._replace(entries=listing.entries[cut])


def _listing(data: DataConfig, path: str) -> Listing:
    if not path or not Path(path).exists():
        raise UserError(f"the data folder {path} does not exist: set data.path to where the data set is")
    listing = list_entries(
        data.format,
        path,
        images=data.images or None,
        crowds_are_instances=data.crowds_are_instances,
        choice=data.choice(),
    )
    if listing.faults:
        raise DataError(listing.faults)
    return listing


def _prepared_records(data: DataConfig, split: str, progress: Progress | None) -> Sequence[Record]:
    from maskrcnn_jax.data.builder import prepare  # late: TFDS takes a while to import
    from maskrcnn_jax.data.prepared import PreparedRecords

    names = ("train", "validation") if data.path else ("validation",)
    listings = {name: _split_listing(data, name) for name in names}
    splits = {name: listing.entries for name, listing in listings.items() if listing.entries}
    if split not in splits:
        return []
    categories = listings["validation"].categories
    options = {"categories": categories, "progress": progress, "choice": data.choice()}
    return PreparedRecords(prepare(data.prepared, splits, **options), split)


def _test_records(data: DataConfig, progress: Progress | None) -> list[Record]:
    """Images without ground truth, with the ids that their results must carry."""
    if not data.test_images:
        raise UserError("this config has no test split: set data.test_images and data.test_ids")
    folder, ids = Path(data.test_images), Path(data.test_ids)
    for field, path in (("test_images", folder), ("test_ids", ids)):
        if not path.exists():
            raise UserError(f"data.{field}: {path} does not exist")
    try:
        names = [(int(entry["id"]), str(entry["file_name"])) for entry in read_json(ids)]
    except DocumentError as error:
        raise UserError(f"data.test_ids: {error}") from error
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        wanted = "a JSON list of objects with `id`, a number, and `file_name`"
        raise UserError(f"data.test_ids: {ids} is not {wanted} ({error!r})") from error
    twice = sorted(number for number, count in Counter(number for number, _ in names).items() if count > 1)
    if twice:
        raise UserError(f"data.test_ids: {ids} gives {twice} to several images: each needs its own id")
    entries = [
        Entry(
            number,
            Path(name).stem,
            str(folder / name),
            partial(_read_unlabelled, number, folder / name, data.choice()),
        )
        for number, name in names
    ]
    return read_records(entries, progress=progress)


def _read_unlabelled(image_id: int, path: Path, choice: Choice) -> Reading:
    image = read_image(path, choice)
    record = Record(image_id, path.stem, image, encode_layers([], image.shape[:2]), np.zeros(0, np.int32))
    return Reading(record, [], [], [])
