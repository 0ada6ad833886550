"""Pickles that try more than arrays are refused by name: no code runs, no file appears."""

import os
import pickle
import pickletools
from collections import OrderedDict

import numpy as np
import pytest

from maskrcnn_jax.unpickling import UnpickleError


class Call:
    """Pickles as a call of a global, whatever it is."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def wrapped(value, protocol=4):
    return pickle.dumps({"model": {"x": value}}, protocol=protocol)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Call(os.system, "touch pwned"), "posix.system"),
        (Call(eval, "open('pwned', 'w')"), "builtins.eval"),
        (Call(exec, "open('pwned', 'w')"), "builtins.exec"),
        (Call(open, "pwned", "w"), "io.open"),
        (Call(getattr, np.ndarray, "tofile"), "builtins.getattr"),
        (Call(np.memmap, "pwned", "f4", "w+", 0, (3,)), "numpy.memmap"),
        (Call(np.save, "pwned", 1), "numpy.save"),
        (Call(np.loadtxt, "weights.pkl"), "numpy.loadtxt"),
        (Call(pickle.loads, b"."), "pickle.loads"),
        (Call(OrderedDict.fromkeys, ["a"]), "builtins.getattr"),
    ],
)
def test_foreign_calls_are_refused_by_name(refuse, call, name, protocol):
    data = wrapped(call, protocol)
    if protocol == 2:
        name = name.replace("builtins", "__builtin__")
    refuse(data, name.replace(".", r"\."))


@pytest.mark.parametrize(
    "name",
    [
        "numpy.core.multiarray.set_string_function",
        "numpy._core.multiarray._reconstruct.__globals__",
        "numpy.testing._private.utils.runstring",
        "numpy.ndarray.tofile",
        "torch.load",
        "torch._utils._rebuild_tensor_v3",
        "torch.storage._load_from_bytes",
        "collections.OrderedDict.__reduce__",
        "collections.namedtuple",
        "_codecs.decode",
    ],
)
@pytest.mark.parametrize("split", [1, 2])
def test_the_allowlist_holds_names_and_no_prefixes(refuse, name, split):
    """`module attribute` with one or two dots of the name taken for the attribute."""
    module, attribute = ".".join(name.split(".")[:-split]), ".".join(name.split(".")[-split:])
    for field in (module, attribute):
        assert len(field) < 256
    text = b"".join(b"\x8c" + bytes([len(field)]) + field.encode() for field in (module, attribute))
    refuse(b"\x80\x04" + text + b"\x93.", "nothing was run")
    refuse(b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b".", "nothing was run")


def test_a_prefix_of_the_package_name_is_no_way_in(refuse):
    refuse(b"\x80\x02cnumpy.core.multiarray.evil\n_reconstruct\n.", "evil")
    refuse(b"\x80\x02cnumpy.core.multiarray \n_reconstruct\n.", "nothing was run")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ is refused"),
        (b"\x80\x04ccollections\nOrderedDict\n)}\x92.", "NEWOBJ_EX is refused"),
        (b"\x80\x02(icollections\nOrderedDict\n.", "INST is refused"),
        (b"\x80\x02(ccollections\nOrderedDict\no.", "OBJ is refused"),
        (b"\x80\x02\x82\x01.", "EXT1 is refused"),
        (b"\x80\x02Pid\n.", "PERSID is refused"),
        (b"\x80\x02K\x01Q.", "persistent id"),
        (b"\x80\x05\x97.", "NEXT_BUFFER is refused"),
        (b"\x80\x02I1\n.", "INT is refused"),
        (b"\x80\x02ccollections\nOrderedDict\n}b.", "no such operation"),
        (b"\x80\x02}}b.", "no such operation"),
        (b"\x80\x02]}b.", "no such operation"),
        (b"\x80\x02ccollections\nOrderedDict\n)R]b.", "state that is no dict"),
        (b"\x80\x02ccollections\nOrderedDict\n]\x85R.", "OrderedDict with arguments"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "may only be mentioned"),
        (b"\x80\x02})R.", "call of something that is no global"),
        (b"\x80\x02ccollections\nOrderedDict\n]R.", "without a tuple"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.", "another codec"),
        (b"\x80\x02c__builtin__\nbytes\nK\x09\x85R.", "bytes with arguments"),
    ],
)
def test_opcodes_and_arguments_that_do_more_are_refused(refuse, data, message):
    refuse(data, message)


def test_a_state_that_sets_methods_has_no_effect(load):
    """BUILD writes into an object's __dict__; here it must not reach one."""
    inner = pickle.dumps(np.ones(2), protocol=2)[2:-1]
    state = b"}X\x05\x00\x00\x00itemsK\x01s}X\x09\x00\x00\x00__class__K\x01s\x86"
    ordered = b"ccollections\nOrderedDict\n)RX\x01\x00\x00\x00x" + inner + b"s"
    with pytest.raises(UnpickleError, match="state that is no dict"):
        load(b"\x80\x02" + ordered + state + b"b.")
    assert list(load(b"\x80\x02" + ordered + b"}X\x05\x00\x00\x00itemsK\x01sb.")) == ["x"]


def reconstruct(*arguments, state=None):
    return wrapped(Call(np._core.multiarray._reconstruct, *arguments, state=state), 2)


@pytest.mark.parametrize("kind", [dict, list, object])
def test_reconstruct_of_other_types_is_refused(refuse, kind):
    refuse(reconstruct(kind, (0,), b"b"), "nothing was run")


def test_reconstruct_with_odd_arguments_is_refused(refuse):
    refuse(reconstruct(np.ndarray, (2**40,), b"b"), "_reconstruct of something else")
    refuse(reconstruct(np.ndarray, (0,)), "_reconstruct of something else")
    refuse(reconstruct(OrderedDict, (0,), b"b"), "_reconstruct of something else")
    refuse(reconstruct(np.ndarray, (0,), b"b"), "'x' is no array")


F4 = np.dtype("f4")
BAD_STATES = [
    ((1, (2,), F4, False, b"1234"), "in 4 bytes"),
    ((1, (1,), F4, False, b"12345678"), "in 8 bytes"),
    ((1, (-1,), F4, False, b"1234"), "numbers from 0"),
    ((1, (2**62, 4), F4, False, b""), "numbers from 0"),
    ((1, (2**200,), F4, False, b""), "numbers from 0"),
    ((1, (1.0,), F4, False, b"1234"), "numbers from 0"),
    ((1, (True,), F4, False, b"1234"), "numbers from 0"),
    ((1, (1,) * 40, F4, False, b"1234"), "numbers from 0"),
    ((1, 1, F4, False, b"1234"), "numbers from 0"),
    ((1, (1,), "f4", False, b"1234"), "state is not"),
    ((1, (1,), F4, False, [1.0]), "values are no bytes"),
    ((1, (1,), F4, False, "\u20ac234"), "not latin-1"),
    ((1, (1,), F4), "state is not"),
    ({"shape": (1,)}, "state is not"),
]


@pytest.mark.parametrize(("state", "message"), BAD_STATES)
def test_array_states_are_checked(refuse, state, message):
    refuse(reconstruct(np.ndarray, (0,), b"b", state=state), message)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "array",
    [
        np.array([{}, "x"], dtype=object),
        np.zeros(2, "f4,O"),
        np.array(["text"]),
        np.array([b"raw"]),
        np.zeros(2, "M8[s]"),
        np.zeros(2, "V8"),
        np.zeros(2, np.complex64),
        np.zeros(2, np.longdouble),
    ],
    ids=str,
)
def test_other_dtypes_are_refused(refuse, array, protocol):
    refuse(wrapped(array, protocol), "dtype")


@pytest.mark.parametrize("name", ["O", "|O8", "O8", "f4,O", "float32", "", "f4\n", 4])
def test_dtype_strings_are_exact(refuse, name):
    refuse(wrapped(Call(np.dtype, name, False, True), 2), "arrays of dtype")


@pytest.mark.parametrize(
    "state",
    [
        (3, "<", None, ("a",), {"a": 1}, 8, 1, 16),
        (3, "<", ("f4", (2,)), None, None, -1, -1, 0),
        (3, "x", None, None, None, -1, -1, 0),
        (4, "<", None, None, None, -1, -1, 0, {"meta": 1}),
        None,
    ],
)
def test_dtype_states_are_exact(refuse, state):
    data = b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R" + pickle.dumps(state, 2)[2:-1] + b"b."
    refuse(data, "with fields, shape or metadata")


def test_a_huge_memo_index_costs_nothing(load):
    data = (
        b"\x80\x02}r\xff\xff\xff\xff" + pickle.dumps("x", 2)[2:-1] + pickle.dumps(np.ones(1), 2)[2:-1] + b"s."
    )
    assert list(load(data)) == ["x"]


def test_nested_tuples_are_no_keys(refuse):
    """Their hash takes 2^n steps, or the stack."""
    bomb = b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s."
    assert pickletools.code2op["2"].name == "DUP"
    refuse(bomb, "DUP is refused")
    refuse(b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.", "dict key of type tuple")


def test_one_array_under_a_thousand_names_is_refused(refuse):
    array = np.zeros(10_000)
    refuse(pickle.dumps({"model": {str(i): array for i in range(1000)}}), "4 times the bytes")


def test_one_text_encoded_a_thousand_times_is_refused(refuse):
    encode = b"c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R"
    data = b"\x80\x02X" + (100_000).to_bytes(4, "little") + b"a" * 100_000 + b"q\x01(" + encode * 1000 + b"t."
    refuse(data, "4 times the bytes")


def test_tuples_doubled_by_the_memo_are_no_keys(refuse):
    """With Python's unpickler and an allowlist these 200 bytes take 2^40 steps, and the next the stack."""
    twice = b"".join(b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(40))
    refuse(b"\x80\x02})q\x00" + twice + b"K\x01s.", "dict key of type tuple")
    refuse(b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s.", "dict key of type tuple")


@pytest.mark.parametrize("arguments", [([1],), ({"a": "x"},), ("abc",), (1, 2)])
def test_a_counter_is_made_of_numbers(refuse, arguments):
    inner = pickle.dumps(arguments, 2)[2:-1]
    refuse(b"\x80\x02ccollections\nCounter\n" + inner + b"R.", "Counter with other arguments")
