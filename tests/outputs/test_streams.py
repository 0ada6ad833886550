"""What is written of many objects is the same, and as large in memory, however many there are at once."""

import json
import tracemalloc

import numpy as np
import pytest

from maskrcnn_jax.images.sources import open_source
from maskrcnn_jax.masks import result as result_module
from maskrcnn_jax.masks.crops import crops_of_pixels
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.stored import sort_to_disk
from maskrcnn_jax.outputs.folder import Outputs
from maskrcnn_jax.prediction.journal import Job, Journal


@pytest.fixture
def source():
    return open_source(np.arange(100 * 100 * 3, dtype=np.uint8).reshape(100, 100, 3))


def discs(rng, count):
    """Of 21 pixels, wherever; every fifth has none."""
    disc = np.hypot(*(np.mgrid[:21, :21] - 10)) < 10
    pixels = [disc & (n % 5 > 0) for n in range(count)]
    crops = crops_of_pixels(pixels, rng.integers(0, 79, (count, 2)))
    boxes = crops.rectangles[:, [1, 0, 3, 2]].astype(np.float32)
    return Result(boxes, np.linspace(1, 0, count), np.arange(count) % 2, crops, (100, 100))


def write(out, source, result, formats):
    outputs, journal = Outputs(out, formats, {1: "one", 2: "other"}), Journal(out / "unfinished", {})
    (out / "image").write_bytes(b"")
    outputs.write("a", source, result)
    journal.save(Job(out / "image", "a", 7, "a"), result.size, len(result), outputs.rows(7, result))
    return outputs


def test_files_do_not_depend_on_the_parts(rng, tmp_path, source, monkeypatch):
    result, contents = discs(rng, 13), []
    for name in ("usual", "small"):
        (tmp_path / name).mkdir()
        outputs = write(tmp_path / name, source, result, ("coco", "geojson", "csv"))
        files = [*outputs.files("a").values(), tmp_path / name / "unfinished" / "a.done"]
        contents.append([file.read_text(encoding="utf-8").replace(name, "") for file in files])
        monkeypatch.setattr(result_module, "_PART", 3)
    first, *rows = map(json.loads, contents[0][-1].splitlines())
    assert first["objects"] == 13 and [row["object_id"] for row in rows] == list(range(1, 14))
    assert [line.split(",")[0] for line in contents[0][1].splitlines()[1:]] == [str(n) for n in range(1, 14)]
    for one, other in zip(contents[0], contents[1], strict=True):
        first, _, rest = one.partition("\n")
        assert rest == other.partition("\n")[2]
        assert first[:20] == other[:20], "the journal's holds the time of its image"


@pytest.mark.parametrize("format", ["geojson", "coco"])
def test_memory_does_not_grow_with_the_objects(rng, tmp_path, source, monkeypatch, format):
    """Four times as many, the same peak."""
    monkeypatch.setattr(result_module, "_PART", 50)
    peaks = []
    for count in (200, 200, 800):  # The first time, things are imported.
        result = discs(rng, count)
        tracemalloc.start()
        write(tmp_path, source, result, (format,))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 2**16 < 2**20


def test_files_of_what_is_on_disk_are_the_same(rng, tmp_path, source):
    """Whatever the format; the objects came in parts, in no order."""
    formats, result, contents = ("coco", "geojson", "csv", "labels", "overlay"), discs(rng, 13), []
    (tmp_path / "stored").mkdir()
    order = np.arange(13, dtype=np.uint64)
    parts = [(result.take(rows), order[rows]) for rows in np.split(rng.permutation(13), [4, 4, 9])]
    stored = sort_to_disk(parts, tmp_path / "objects", result.size)
    for name, found in (("memory", result), ("stored", stored)):
        (tmp_path / name).mkdir(exist_ok=True)
        outputs = write(tmp_path / name, source, found, formats)
        note = (tmp_path / name / "unfinished" / "a.done").read_bytes().partition(b"\n")[2]
        contents.append([note, *(file.read_bytes() for file in outputs.files("a").values())])
    assert contents[0] == contents[1] and len(contents[0]) == 5
