"""What every reader gives: entries, each of which reads one image and says what is wrong with it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from maskrcnn_jax.data.records import Record
from maskrcnn_jax.errors import DataError, Fault

Progress = Callable[[int, int], None]
T, R = TypeVar("T"), TypeVar("R")

TWIN = "has the same pixels as"  # how the fault of two equal masks or images begins


class Reading(NamedTuple):
    """What came out of one image's files.

    Attributes:
      record: None where the image cannot be used; instances that cannot be used are left out of it.
      faults: what must be put right before the set can be read.
      doubts: what is odd, but does not stop the reading; only `check` speaks of it.
      origins: the file or annotation that each instance of the record comes from.
    """

    record: Record | None
    faults: list[Fault]
    doubts: list[Fault]
    origins: list[str]


class Entry(NamedTuple):
    """One image of a data set that has been listed but not read.

    Attributes:
      image_id, name: those of the record.
      image: the image file, or the folder where it is expected.
      read: opens the files. What is wrong is in the `Reading`, or in a DataError where nothing is right.
    """

    image_id: int
    name: str
    image: str
    read: Callable[[], Reading]


class Listing(NamedTuple):
    """A data set's entries, and what is wrong with the set as a whole.

    Attributes:
      entries: in the order that image numbers refer to.
      faults, doubts: as in `Reading`.
      categories: the name of each class.
      category_ids: what the data set's own files, and so its results, call each class.
    """

    entries: list[Entry]
    faults: list[Fault]
    doubts: list[Fault]
    categories: tuple[str, ...] = ("nucleus",)
    category_ids: tuple[int, ...] = (1,)


def in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """As `map`, several at a time, never holding more than a few results that are not yet taken."""
    workers = os.cpu_count() or 1
    waiting: deque = deque()
    with ThreadPoolExecutor(workers) as threads:  # decoding releases the GIL
        try:
            for item in items:
                waiting.append(threads.submit(function, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


def readings(entries: Iterable[Entry]) -> Iterator[Reading]:
    """Reads entries in order, several at a time."""
    return in_order(read_entry, entries)


def read_entry(entry: Entry) -> Reading:
    """Reads one entry; raises no DataError."""
    try:
        return entry.read()
    except DataError as error:
        return Reading(None, error.faults, [], [])


def read_records(entries: Sequence[Entry], *, progress: Progress | None = None) -> list[Record]:
    """The records of all entries.

    Args:
      entries: what to read.
      progress: is called with how many images are done and how many there are, from this thread.

    Raises:
      DataError: lists every fault of these entries.
    """
    records, faults = [], []
    for done, reading in enumerate(readings(entries), start=1):
        faults += reading.faults
        if reading.record is not None:
            records.append(reading.record)
        if progress:
            progress(done, len(entries))
    if faults:
        raise DataError(faults)
    return records
