"""Files of torch.save, written here by hand: read right, or refused where they lie."""

import contextlib
import io
import pickle
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.unpickling import UnpickleError


def op(value):
    """A plain value as opcodes."""
    return pickle.dumps(value, 2)[2:-1]


def storage(kind="FloatStorage", key="0", count=6):
    return (
        b"(" + op("storage") + b"ctorch\n" + kind.encode() + b"\n" + op(key) + op("cpu") + op(count) + b"tQ"
    )


def tensor(store, offset=0, size=(2, 3), stride=(3, 1), function="_rebuild_tensor_v2"):
    end = b"\x89ccollections\nOrderedDict\n)R" if function.endswith("v2") else b""
    parts = store + op(offset) + op(size) + op(stride) + end
    return b"ctorch._utils\n" + function.encode() + b"\n(" + parts + b"tR"


def torch_file(value, entries=None, root="archive", **extra):
    """A file as `torch.save({"model": {"x": value}})` writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{root}/data.pkl", b"\x80\x02}" + op("model") + b"}" + op("x") + value + b"ss.")
        for key, data in (
            {"data/0": np.arange(6, dtype=np.float32).tobytes()} if entries is None else entries
        ).items():
            archive.writestr(f"{root}/{key}", data)
        for key, data in extra.items():
            archive.writestr(key, data)
    return buffer.getvalue()


KINDS = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


@pytest.mark.parametrize(("kind", "dtype"), KINDS.items())
def test_torch_storages_of_every_dtype(load, kind, dtype):
    values = np.arange(6).astype(dtype)
    data = torch_file(tensor(storage(kind)), {"data/0": values.tobytes(), "byteorder": b"little"})
    np.testing.assert_array_equal(load(data, "model.pth")["x"], values.reshape(2, 3))


def test_torch_views(load):
    """Transposed, offset, big-endian, empty, without axes, a parameter, and of torch's first format."""
    values = np.arange(6, dtype=np.float32)

    def read(value, **options):
        return load(torch_file(value, **options), "model.pth")["x"].tolist()

    assert read(tensor(storage(), size=(3, 2), stride=(1, 3))) == values.reshape(2, 3).T.tolist()
    assert read(tensor(storage(), offset=2, size=(2,), stride=(3,))) == [2, 5]
    assert read(tensor(storage(), size=(1, 6), stride=(2**40, 1))) == [values.tolist()]
    assert read(tensor(storage(), size=(0, 3))) == []
    assert read(tensor(storage(), offset=6, size=(0,), stride=(1,))) == []
    assert read(tensor(storage(), offset=5, size=(), stride=())) == 5
    assert read(tensor(storage(), function="_rebuild_tensor")) == values.reshape(2, 3).tolist()
    big = {"data/0": values.astype(">f4").tobytes(), "byteorder": b"big"}
    assert read(tensor(storage()), entries=big) == values.reshape(2, 3).tolist()
    parameter = (
        b"ctorch._utils\n_rebuild_parameter\n(" + tensor(storage()) + b"\x88ccollections\nOrderedDict\n)RtR"
    )
    assert read(parameter) == values.reshape(2, 3).tolist()


@pytest.mark.parametrize(
    "view",
    [
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**70},
        {"offset": True},
        {"offset": "0"},
        {"size": (2, 4)},
        {"size": (-2, 3)},
        {"size": (2**62, 2**62)},
        {"size": (0, 2**62)},
        {"size": [2, 3]},
        {"size": (2, 3, 1)},
        {"size": (2.0, 3)},
        {"stride": (4, 1)},
        {"stride": (-3, 1)},
        {"stride": (2**62, 1)},
        {"stride": (0, 0), "size": (2**20, 2**20)},
        {"stride": (0, 0), "size": (3, 3)},
        {"stride": (1,)},
        {"stride": None},
    ],
    ids=str,
)
def test_torch_views_that_leave_their_storage(refuse, view):
    refuse(torch_file(tensor(storage(), **view)), "a tensor", "model.pth")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor(storage(count=7)), "of 7 float32 in 24 bytes"),
        (tensor(storage(count=-1)), "of -1 float32"),
        (tensor(storage(kind="DoubleStorage")), "of 6 float64 in 24 bytes"),
        (tensor(storage(key="1")), "'1' is not in the zip file"),
        (tensor(storage(key="../data.pkl")), "not in the zip file"),
        (tensor(storage(key="/etc/passwd")), "not in the zip file"),
        (tensor(storage(kind="ComplexFloatStorage")), "ComplexFloatStorage"),
        (op(("storage", "FloatStorage", "0", "cpu", 6)) + b"Q", "no storage of numbers"),
        (op("0") + b"Q", "no storage of numbers"),
        (b")Q", "no storage of numbers"),
        (b"(ctorch\nFloatStorage\ntQ", "no storage of numbers"),
        (b"ctorch\nFloatStorage\n)R", "may only be mentioned"),
        (tensor(op([1.0] * 6)), "other arguments"),
        (b"ctorch._utils\n_rebuild_parameter\n(" + op(1) + b"\x88tR", "no tensor"),
        (b"ctorch\nload\n" + op("model.pth") + b"\x85R", r"torch\.load"),
        (storage(), "'x' is no array but _Storage"),
    ],
)
def test_torch_pickles_that_ask_for_more(refuse, value, message):
    refuse(torch_file(value), message, "model.pth")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"../evil.py": b"1"}, "outside its folder"),
        ({"archive/../../evil.py": b"1"}, "outside its folder"),
        ({"/etc/cron.d/evil": b"1"}, "outside its folder"),
        ({"other/data.pkl": b"1"}, r"not exactly one data\.pkl"),
    ],
)
def test_zip_names_that_lead_elsewhere(refuse, extra, message):
    refuse(torch_file(tensor(storage()), **extra), message, "model.pth")


def test_zip_files_that_torch_does_not_write(refuse, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 10_000_000)
    refuse(buffer.getvalue(), "compressed entries", "model.pth")
    refuse(torch_file(tensor(storage()), {"data/0": b"", "byteorder": b"middle"}), "byte order", "model.pth")
    empty = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 0)
    refuse(empty, "not exactly one", "model.pth")


def test_entries_that_share_bytes(refuse):
    """Two names in the directory for one stretch of the file."""
    data = torch_file(tensor(storage()), {"data/0": bytes(20_000)})
    end = data.rindex(b"PK\x05\x06")
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    entry = data[data.rindex(b"PK\x01\x02") : end]
    again = entry.replace(b"data/0", b"data/1")
    size = (len(again) + end - start).to_bytes(4, "little")
    tail = data[end : end + 8] + b"\x03\x00\x03\x00" + size + data[end + 16 :]
    refuse(data[:end] + again + tail, "overlapping entries", "model.pth")


def test_truncated_zip_files(load):
    data = torch_file(tensor(storage()))
    for length in range(0, len(data), 7):
        with pytest.raises(UnpickleError, match=r"cut short|damaged|neither|torch\.save did not write"):
            load(data[:length], "model.pth")


def test_a_changed_byte_in_a_zip_is_found_by_its_checksum(refuse):
    data = torch_file(tensor(storage()))
    values = np.arange(6, dtype=np.float32).tobytes()
    refuse(data.replace(values, values[:-1] + b"\x01"), "damaged", "model.pth")


def test_changed_bytes_in_a_zip_are_tensors_or_an_error(load, rng):
    data = torch_file(tensor(storage()))
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << rng.integers(8)
        with contextlib.suppress(UnpickleError):
            load(bytes(changed), "model.pth")


def test_torch_before_1_6_is_named(refuse):
    magic = 0x1950A86A20F9469CFC6C
    data = pickle.dumps(magic, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    refuse(data, r"before 1\.6.*torch\.save", "model.pth")
