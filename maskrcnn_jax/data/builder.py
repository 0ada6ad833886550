"""Prepares any data set once into TFDS shards: images and layers as PNG, each record with a checksum."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from maskrcnn_jax.data.entries import Entry, Progress, readings
from maskrcnn_jax.data.records import Record
from maskrcnn_jax.errors import DataError, UserError
from maskrcnn_jax.images.choice import ALL, Choice

NAME = "instance_records"  # what `tfds.load` calls a prepared set


class InstanceRecords(tfds.core.GeneratorBasedBuilder):
    """Images with layered instance maps, in the order of their reader.

    Once prepared, `tfds.load("instance_records", data_dir=FOLDER)` reads it, with this module imported.
    """

    name = NAME
    VERSION = tfds.core.Version("1.1.0")

    def __init__(
        self,
        *,
        splits: Mapping[str, Sequence[Entry]] | None = None,
        categories: Sequence[str] = ("nucleus",),
        progress: Progress | None = None,
        choice: Choice = ALL,
        **options,
    ):
        self._choice = choice
        self._splits = dict(splits or {})
        self._categories = tuple(categories)
        self._progress = progress
        self._done = 0
        self._stdout = sys.stdout  # TFDS's own messages are kept off it, the progress is not
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image_id": np.int64,
                "name": tfds.features.Text(),
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "layers": tfds.features.Sequence(
                    tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png")
                ),
                "classes": tfds.features.Sequence(np.int64),
                "crowd": tfds.features.Sequence(np.bool_),
                # The bits of float64 numbers, which TFDS would round: five for each instance.
                "annotated": tfds.features.Sequence(np.int64),
                "checksum": np.int64,
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Images with instances, prepared by maskrcnn_jax.",
            features=features,
            disable_shuffling=True,  # record i is image i of the reader
            metadata=tfds.core.MetadataDict(
                categories=list(self._categories), depth={}, source=_fingerprint(self._splits, self._choice)
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        return {split: self._generate_examples(split) for split in self._splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        """Every record of a split; what is wrong with any of them is raised at the end, all at once."""
        faults = []
        depth = 1
        entries, total = self._splits[split], sum(map(len, self._splits.values()))
        # Past a gigabyte TFDS sorts in buckets by the key's place among 128-bit numbers, one bucket in memory
        # at a time. Keys 0, 1, 2 would all fall into the first.
        step = 2**128 // max(len(entries), 1)
        for number, reading in enumerate(readings(entries)):
            faults += reading.faults
            if reading.record is not None and not faults:
                depth = max(depth, len(reading.record.layers))
                yield number * step, _example(reading.record)
            self._done += 1
            if self._progress:
                with contextlib.redirect_stdout(self._stdout):
                    self._progress(self._done, total)
        if faults:
            raise DataError(faults)
        self.info.metadata["depth"][split] = depth


def prepare(
    folder: str | os.PathLike,
    splits: Mapping[str, Sequence[Entry]],
    *,
    categories: Sequence[str] = ("nucleus",),
    progress: Progress | None = None,
    choice: Choice = ALL,
) -> Path:
    """Writes shards into `folder`, unless it holds them already.

    All or nothing: shards appear under their name when the last one is complete. What a run that was
    killed has left is deleted by the next one, which starts over; of two at a time one waits for the other.

    Args:
      folder: TFDS's `data_dir`.
      splits: the images of each split.
      categories: name of each class.
      progress: called with the number of images done and of all.
      choice: what the entries read of images that hold several.

    Returns:
      The folder with the shards themselves.

    Raises:
      DataError: lists every fault of the data set; nothing is written then.
      UserError: the folder holds other images than these.
    """
    root = Path(folder).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _prepare(root, splits, categories, progress, choice)


def _prepare(root: Path, splits, categories, progress, choice) -> Path:
    builder = InstanceRecords(
        data_dir=root, splits=splits, categories=categories, progress=progress, choice=choice
    )
    target = Path(builder.data_dir)
    for leftover in target.parent.glob("incomplete.*"):
        shutil.rmtree(leftover)
    if not target.exists():
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    elif builder.info.metadata["source"] != _fingerprint(splits, choice):
        raise UserError(f"{target} holds other images than asked for: delete it, or choose another folder")
    return target


def _fingerprint(splits: Mapping[str, Sequence[Entry]], choice: Choice) -> dict[str, str]:
    """Which images in which order, and what of them; whether their files have changed is not looked at."""
    part = [] if choice == ALL else [choice]
    lists = {split: [*(entry[:3] for entry in entries), *part] for split, entries in splits.items()}
    return {split: hashlib.sha256(repr(rows).encode()).hexdigest() for split, rows in lists.items()}


def checksum(image: bytes, layers: Sequence[bytes]) -> int:
    """CRC-32 of a record's picture files."""
    value = zlib.crc32(image)
    for layer in layers:
        value = zlib.crc32(layer, value)
    return value


def _example(record: Record) -> dict:
    image, layers = _png(record.image), [_png(layer) for layer in record.layers]
    return {
        "image_id": record.image_id,
        "name": record.name,
        "image": io.BytesIO(image),
        "layers": [io.BytesIO(layer) for layer in layers],
        "classes": record.classes.astype(np.int64),
        "crowd": record.crowd,
        "annotated": record.annotated.view(np.int64).ravel(),
        "checksum": checksum(image, layers),
    }


def _png(pixels: UInt8[np.ndarray, "H W ..."]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", compress_level=3)
    return file.getvalue()
