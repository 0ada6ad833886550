"""Cellpose's `X_seg.npy`: its arrays are read as NumPy reads them, and nothing in such a file is run."""

import contextlib
import io
import pathlib
import pickle

import numpy as np
import pytest

from maskrcnn_jax.unpickling import UnpickleError, load_mapping


def saved(mapping, protocol=4):
    """As np.save writes it, in any protocol."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    return header.getvalue() + pickle.dumps(np.asanyarray(mapping), protocol)


def segmentation(rng):
    """What Cellpose 2 to 4 write."""
    masks = rng.integers(0, 5, (6, 7)).astype(np.uint16)
    return {
        "outlines": masks * (masks > 3),
        "colors": rng.integers(0, 255, (4, 3), dtype=np.uint8),
        "masks": masks,
        "chan_choose": [0, 0],
        "ismanual": np.zeros(4, bool),
        "filename": pathlib.PurePosixPath("a/b.tif").as_posix(),
        "file": pathlib.Path("a/b.tif"),
        "flows": [rng.normal(size=(1, 6, 7)), None, [rng.normal(size=(3, 6, 7)).astype(np.float32)]],
        "manual_changes": [["01/02/2024, 10:00:00", "added mask", [(1, 2), (3, 4)]]],
        "normalize_params": {"lowhigh": None, "percentile": [1.0, 99.0], "tile_norm_blocksize": 0},
        "zdraw": np.array([None, "x"], dtype=object),
        "diameter": np.float64(17.5),
        "model_path": 0,
        "ratio": 1.0,
    }


@pytest.fixture
def load(tmp_path):
    def read(data):
        (tmp_path / "x_seg.npy").write_bytes(data)
        return load_mapping(tmp_path / "x_seg.npy")

    return read


def test_the_file_that_numpy_saves(tmp_path, rng):
    content = segmentation(rng)
    del content["zdraw"]
    np.save(tmp_path / "x_seg.npy", content)
    found = load_mapping(tmp_path / "x_seg.npy")
    assert set(found) == {"outlines", "colors", "masks", "ismanual", "diameter"}
    for name, array in found.items():
        np.testing.assert_array_equal(array, content[name])
        assert array.dtype == np.asarray(content[name]).dtype


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(load, rng, protocol):
    content = segmentation(rng)
    found = load(saved({k: v for k, v in content.items() if k != "zdraw"}, protocol))
    np.testing.assert_array_equal(found["masks"], content["masks"])


class Call:
    def __reduce__(self):
        return (eval, ("open('pwned', 'w')",))


def bare(content):
    """A pickle that is no array behind the header of one."""
    return saved(0)[:128] + pickle.dumps(content)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no file of np.save"),
        (b"\x93NUMPY\x01", "no file of np.save"),
        (saved({"masks": Call()}), r"builtins\.eval.*nothing was run"),
        (saved([Call()]), r"builtins\.eval.*nothing was run"),
        (bare({"masks": np.ones(2)}), "no mapping by names"),
        (saved({1: np.ones(2)}), "no mapping by names"),
        (saved([1, 2]), "no mapping by names"),
        (saved({"masks": np.array(["text"])}), "dtype"),
    ],
)
def test_other_files_are_refused(load, tmp_path, monkeypatch, data, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnpickleError, match=rf"x_seg\.npy: .*{message}"):
        load(data)
    assert [path.name for path in tmp_path.iterdir()] == ["x_seg.npy"]


def test_a_plain_array_is_no_mapping(tmp_path):
    np.save(tmp_path / "x_seg.npy", np.ones(3))
    with pytest.raises(UnpickleError, match="plain array"):
        load_mapping(tmp_path / "x_seg.npy")


def test_lists_that_hold_themselves_end(load):
    data = b"\x80\x02]q\x01(" + b"h\x01" * 50 + b"e."
    with pytest.raises(UnpickleError, match="no mapping"):
        load(saved(0)[:128] + data)


def test_changed_and_missing_bytes_are_arrays_or_an_error(load, rng):
    data = saved({"masks": np.ones((2, 3), np.uint16), "flows": [np.ones(2)], "file": pathlib.Path("x")}, 2)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] = rng.integers(256)
        for damaged in (bytes(changed), data[:position]):
            with contextlib.suppress(UnpickleError):
                load(damaged)
