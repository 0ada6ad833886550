"""What is on disk is what was in memory, sorted; and no more is in memory than a piece of it."""

import tracemalloc

import numpy as np
import pytest

from maskrcnn_jax.masks import result as result_module
from maskrcnn_jax.masks import stored
from maskrcnn_jax.masks.crops import crops_of_pixels
from maskrcnn_jax.masks.result import Result, concatenate
from maskrcnn_jax.masks.stored import sort_to_disk

SIZE = (500, 400)


def objects(rng, count):
    """Some without pixels."""
    pixels = [rng.random((rng.integers(1, 9), 7)) < rng.choice([0, 0.5]) for _ in range(count)]
    crops = crops_of_pixels(pixels, rng.integers(0, 390, (count, 2)))
    scores, classes = rng.random(count).astype(np.float32), rng.integers(0, 3, count, np.int32)
    return Result(rng.random((count, 4)).astype(np.float32), scores, classes, crops, SIZE)


def assert_equal(one, other):
    assert len(one) == len(other) and one.size == other.size
    for name in ("boxes", "scores", "classes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)
    np.testing.assert_array_equal(one.crops.rectangles, other.crops.rectangles, strict=True)
    assert one.masks == other.masks


@pytest.mark.parametrize("run", [1, 20, 1000])
@pytest.mark.parametrize("counts", [(), (0,), (1,), (50, 0, 7, 31)])
def test_parts_in_no_order_come_back_sorted(rng, tmp_path, monkeypatch, counts, run):
    monkeypatch.setattr(stored, "_RUN", run)
    monkeypatch.setattr(result_module, "_PART", 8)
    order = rng.permutation(np.uint64(1 << 40) - np.arange(sum(counts), dtype=np.uint64))
    parts = [objects(rng, count) for count in counts]
    everything = concatenate(parts, SIZE)
    orders = np.split(order, np.cumsum(counts[:-1])) if counts else []
    found = sort_to_disk(zip(parts, orders, strict=True), tmp_path / "objects", SIZE)
    assert_equal(found.load(), everything.take(np.argsort(order)))
    pieces = list(found.split())
    assert len(found) == sum(counts) and all(len(piece) <= 8 for piece in pieces)
    assert [path.name for path in tmp_path.iterdir()] == ["objects"]


def test_memory_is_that_of_pieces(rng, tmp_path, monkeypatch):
    """Eight times as many objects, hardly more memory: what sorting a run takes, and a piece of each."""
    monkeypatch.setattr(stored, "_RUN", 4000)
    monkeypatch.setattr(result_module, "_PART", 20)
    some, peaks = objects(rng, 100), []
    for count in (80, 80, 640):  # The first time, things are imported.
        parts = (
            (some, np.arange(100, dtype=np.uint64) * np.uint64(count) + np.uint64(n)) for n in range(count)
        )
        tracemalloc.start()
        found = sort_to_disk(parts, tmp_path / "objects", SIZE)
        assert sum(map(len, found.split())) == 100 * count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] * 1.2, peaks
