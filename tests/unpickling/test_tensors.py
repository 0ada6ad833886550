"""Checkpoints are read right; damaged ones give one clear error."""

import contextlib
import os
import pickle
from collections import Counter, OrderedDict

import numpy as np
import pytest

from maskrcnn_jax.unpickling import UnpickleError, load_tensors

DTYPES = [np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64, np.uint8, np.bool_]


def wrapped(value, protocol=4):
    return pickle.dumps({"model": {"x": value}}, protocol=protocol)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_every_protocol_and_dtype(load, rng, protocol, dtype):
    arrays = {
        "matrix": rng.normal(size=(3, 4)).astype(dtype),
        "fortran": np.asfortranarray(rng.normal(size=(3, 4)).astype(dtype)),
        "big": rng.normal(size=5).astype(dtype).astype(np.dtype(dtype).newbyteorder(">")),
        "scalar": dtype(1),
        "zero axes": np.array(3).astype(dtype),
        "empty": np.zeros((0, 3), dtype),
    }
    loaded = load(pickle.dumps({"model": arrays, "__author__": "a test"}, protocol=protocol))
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype and loaded[name].shape == array.shape


@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: {"blobs": x}, lambda x: {"model": x, "iteration": 7}]
)
def test_the_dicts_that_files_have(load, wrap):
    state = OrderedDict(x=np.ones(2))
    state._metadata = OrderedDict(version=2)
    assert list(load(pickle.dumps(wrap(state)))) == ["x"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_scheduler_of_torch_keeps_its_milestones_in_a_counter(load, protocol):
    scheduler = {"milestones": Counter([60_000, 80_000]), "none": Counter(), "last_epoch": 7}
    assert list(load(pickle.dumps({"model": {"x": np.ones(2)}, "scheduler": scheduler}, protocol))) == ["x"]


@pytest.mark.parametrize("protocol", [0, 1])
def test_protocols_that_are_not_read_have_a_remedy(refuse, protocol):
    refuse(pickle.dumps({"model": {"x": np.ones(2)}}, protocol), "save it anew with protocol 2 or later")


def test_every_refusal_has_a_remedy(refuse):
    refuse(
        pickle.dumps({"model": {"x": np.ones(2)}, "other": 1j}), r"builtins\.complex.*save the tensors alone"
    )
    refuse(pickle.dumps({"model": {"x": np.ones(2)}})[:-9], "copy it again")
    refuse(b"\x80\x06N.", r"save it anew with the program.*protocol=4")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(UnpickleError, match=r"pipe\.pth cannot be read: it is a named pipe"):
        load_tensors(tmp_path / "pipe.pth")


def test_numpy_1_names(load):
    data = pickle.dumps({"model": {"x": np.arange(4.0)}}, protocol=2)
    assert b"numpy._core" in data
    np.testing.assert_array_equal(load(data.replace(b"numpy._core", b"numpy.core"))["x"], np.arange(4.0))


def test_python_2_text_is_bytes(load):
    """Caffe2's files: protocol 2, names and values as Python 2 strings."""
    values = np.float32([1.5, -2.0]).tobytes()

    def text(value):
        return b"U" + bytes([len(value)]) + value

    dtype = (
        b"cnumpy\ndtype\n"
        + text(b"f4")
        + b"K\x00K\x01\x87R(K\x03"
        + text(b"<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01K\x02\x85" + dtype + b"\x89" + text(values) + b"tb"
    loaded = load(b"\x80\x02}" + text(b"conv1_w") + array + b"s.")
    assert loaded["conv1_w"].tolist() == [1.5, -2.0]


def test_the_golden_checkpoints_agree_with_pickle(shared):
    for name in ("c4_model", "fpn_model"):
        with (shared / "goldens" / f"{name}.pkl").open("rb") as file:
            expected = pickle.load(file)["model"]
        for ending in ("pkl", "pth"):
            loaded = load_tensors(shared / "goldens" / f"{name}.{ending}")
            assert list(loaded) == list(expected)
            for key, array in expected.items():
                assert loaded[key].dtype == array.dtype and loaded[key].shape == array.shape
                assert loaded[key].tobytes() == array.tobytes()


def test_every_truncation_is_an_error(load):
    data = wrapped(np.ones(3))
    for length in range(len(data)):
        with pytest.raises(UnpickleError):
            load(data[:length])


def test_every_changed_byte_is_an_array_or_an_error(load, rng):
    """No other exception, whatever comes."""
    data = wrapped({"a": np.ones(3), "b": OrderedDict(c=1)}, 2) + wrapped(np.ones(3), 4)
    for start in (0, data.index(b"\x80\x04")):
        for position in range(start, len(data) - 1):
            changed = bytearray(data[start:])
            changed[position - start] = rng.integers(256)
            with contextlib.suppress(UnpickleError):
                load(bytes(changed))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither a pickle"),
        (b"\x89PNG\r\n", "neither a pickle"),
        (b"(dp0\n.", "neither a pickle"),
        (b"\x80\x06N.", "protocol 6"),
        (b"\x80\x02N.", "no dict of tensors"),
        (b"\x80\x02}.", "no dict of tensors"),
        (b"\x80\x02NN.", "left over"),
        (b"\x80\x02.", "operation on nothing"),
        (b"\x80\x02h\x07.", "memo 7"),
        (b"\x80\x02e.", "end of a group"),
        (b"\x80\x02}(K\x01u.", "key without a value"),
        (b"\x80\x02}((K\x01K\x01u.", "key without a value|no such operation"),
        (b"\x80\x02X\xff\xff\xff\x7fabc", "damaged or cut short"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc", "damaged or cut short"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc", "damaged or cut short"),
    ],
)
def test_files_that_are_none(refuse, data, message):
    refuse(data, message)


def test_an_absent_file(tmp_path):
    with pytest.raises(UnpickleError, match=r"absent\.pth cannot be read: No such file"):
        load_tensors(tmp_path / "absent.pth")


def test_everything_that_is_no_array_is_named(refuse):
    refuse(
        pickle.dumps({"model": {"a": 1, "b": np.ones(1), "c": "text", 4: np.ones(1)}}), r"(?s)'a' .*'c' .*4 "
    )
