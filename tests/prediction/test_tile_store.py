"""Tiles come back as they were kept; half-written, damaged and foreign files do no harm."""

import numpy as np
import pytest

from maskrcnn_jax.masks.crops import crops_of
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.rle import rle_of_crop
from maskrcnn_jax.prediction.tile_store import TileStore

IDENTITY = {"tile": 64, "size": (300, 200), "model": "a" * 64}


def result(rng, count):
    masks = [rle_of_crop(rng.random((9, 7)) < 0.5, 5 * n, n, (300, 200)) for n in range(count)]
    boxes, scores = rng.random((count, 4)).astype(np.float32), rng.random(count).astype(np.float32)
    return Result(boxes, scores, np.arange(count, dtype=np.int32), crops_of(masks), (300, 200))


def test_round_trip(tmp_path, rng):
    kept = {0: result(rng, 5), 3: result(rng, 0), 12: None, 1_000_000: result(rng, 1)}
    store = TileStore(tmp_path / "tiles", IDENTITY)
    assert store.load() == {}
    for number, part in kept.items():
        store.save(number, part)
    found = TileStore(tmp_path / "tiles", IDENTITY).load()
    assert found.keys() == kept.keys() and found[12] is None
    for number in (0, 3, 1_000_000):
        for name in ("boxes", "scores", "classes"):
            one, other = getattr(found[number], name), getattr(kept[number], name)
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype and one.shape == other.shape
        assert found[number].masks == kept[number].masks and found[number].size == (300, 200)


def test_damaged_tiles_are_done_again(tmp_path, rng):
    store = TileStore(tmp_path, IDENTITY)
    for number in range(4):
        store.save(number, result(rng, 3))
    files = sorted(tmp_path.glob("tile_*.npz"))
    files[0].write_bytes(b"")
    files[1].write_bytes(files[1].read_bytes()[:300])
    files[2].write_bytes(b"\0" * 500)
    (tmp_path / ".tile_000007.npz.half").write_bytes(b"half")
    (tmp_path / "tile_other.npz").write_bytes(files[3].read_bytes())
    assert store.load().keys() == {3}


def test_pickled_arrays_are_not_read(tmp_path):
    store = TileStore(tmp_path, IDENTITY)
    np.savez(tmp_path / "tile_000001.npz", boxes=np.array([{}], object))
    assert store.load() == {}


def test_another_predictions_folder_is_refused(tmp_path):
    TileStore(tmp_path, IDENTITY)
    with pytest.raises(ValueError, match=r"another prediction.*\n  tile: 64 there, 32 now$"):
        TileStore(tmp_path, IDENTITY | {"tile": 32})
    with pytest.raises(ValueError, match=r"another prediction.*\n  colour: None there, red now$"):
        TileStore(tmp_path, IDENTITY | {"colour": "red"})


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files than tiles: name an empty or a new folder"):
        TileStore(tmp_path, IDENTITY)
    (tmp_path / "notes.txt").unlink()
    TileStore(tmp_path, IDENTITY)
    (tmp_path / "tiles.json").write_text("[]")
    with pytest.raises(ValueError, match="another prediction"):
        TileStore(tmp_path, IDENTITY)
