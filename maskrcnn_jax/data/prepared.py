"""Records that stay on disk: a sequence that reads a prepared data set's shards one record at a time."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from maskrcnn_jax.data.builder import checksum
from maskrcnn_jax.data.records import Record
from maskrcnn_jax.errors import DataError, Fault, UserError
from maskrcnn_jax.images.decoding import UNREADABLE, decode_image

# A TFRecord: length, checksum of the length, content, checksum of the content.
_HEADER, _FOOTER = 12, 4


class PreparedRecords(Sequence):
    """The records of one split, in the order of their reader; none is held in memory.

    Threads may read at the same time.
    """

    def __init__(self, folder: str | os.PathLike, split: str):
        """Opens the shards and notes where each record begins.

        Args:
          folder: with the shards themselves, as `builder.prepare` returns it.
          split: which part.

        Raises:
          UserError: there are no shards, or no such split.
          DataError: a shard is shorter than its last record.
        """
        info = _info(Path(folder))
        if split not in info.splits:
            raise UserError(f"{folder} has no split {split!r}, only {', '.join(info.splits)}")
        self.depth: int = info.metadata["depth"][split]
        self.categories = tuple(info.metadata["categories"])
        paths = [Path(path) for path in info.splits[split].filepaths]
        self._places = [(path, *place) for path in paths for place in _scan(path)]
        if len(self._places) != info.splits[split].num_examples:
            what = f"holds {len(self._places)} of {info.splits[split].num_examples} records"
            raise DataError([Fault(f"{folder} ({split})", what, "delete the folder and prepare it again")])

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Record:
        """Reads and decodes one record.

        Raises:
          DataError: its bytes are not those that were written.
        """
        path, offset, length = self._places[index]
        where = f"{path}, record {range(len(self))[index]}"
        try:
            with path.open("rb", buffering=0) as file:
                example = tf.train.Example.FromString(os.pread(file.fileno(), length, offset))
            return _record(example.features.feature)
        except UNREADABLE as error:
            remedy = "delete the folder and prepare it again"
            raise DataError([Fault(where, f"is damaged: {error}", remedy)]) from error


def _scan(path: Path) -> Iterator[tuple[int, int]]:
    """Offset and length of each record's content."""
    size = path.stat().st_size
    position = 0
    with path.open("rb", buffering=0) as file:
        while position < size:
            header = os.pread(file.fileno(), _HEADER, position)
            length = struct.unpack("<Q", header[:8])[0] if len(header) == _HEADER else size
            if position + _HEADER + length + _FOOTER > size:
                what = f"ends within the record that begins at byte {position}"
                remedy = "delete the folder and prepare it again"
                raise DataError([Fault(str(path), what, remedy)])
            yield position + _HEADER, length
            position += _HEADER + length + _FOOTER


def _info(folder: Path) -> tfds.core.DatasetInfo:
    if not (folder / "dataset_info.json").is_file():
        raise UserError(f"{folder} holds no prepared data set")
    return tfds.builder_from_directory(folder).info


def _record(fields) -> Record:
    image, layers = fields["image"].bytes_list.value[0], list(fields["layers"].bytes_list.value)
    if checksum(image, layers) != fields["checksum"].int64_list.value[0]:
        raise UserError("its checksum is another one")
    return Record(
        fields["image_id"].int64_list.value[0],
        fields["name"].bytes_list.value[0].decode(),
        decode_image(image),
        np.stack([np.asarray(Image.open(io.BytesIO(layer))) for layer in layers]),
        np.array(fields["classes"].int64_list.value, np.int32),
        np.array(fields["crowd"].int64_list.value, bool),
        np.array(fields["annotated"].int64_list.value, np.int64).view(np.float64).reshape(-1, 5),
    )
