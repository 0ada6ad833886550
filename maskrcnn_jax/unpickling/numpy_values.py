"""What NumPy puts into a pickle, rebuilt from checked parts: arrays, dtypes, scalars and bytes.

Both module names are known: `numpy.core` of NumPy 1 and `numpy._core` of NumPy 2.
"""

import math
from typing import Any

import numpy as np

from maskrcnn_jax.unpickling.faults import PickleFault
from maskrcnn_jax.unpickling.machine import Buildable, Call, Global, Ordered

_DTYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
_MOST_AXES = 8
_MOST_VALUES = 2**48


class Tensor(Buildable):
    """An array; NumPy's pickles first make it and later fill it."""

    def __init__(self, array: np.ndarray | None = None):
        self.array = array

    def build(self, state: Any) -> None:
        match state:
            case (int(), shape, DType(dtype=dtype), bool() | 0 | 1 as fortran, data):
                self.array = _array(data, dtype, shape, "F" if fortran else "C")
            case _:
                raise PickleFault("an array whose state is not (version, shape, dtype, order, bytes)")


class DType(Buildable):
    """NumPy's dtype; the byte order comes with the state."""

    def __init__(self, arguments: tuple):
        match arguments:
            case (str() as name, bool() | 0 | 1, bool() | 0 | 1) if name in _DTYPES:
                self.dtype = np.dtype(name)
            case _:
                name = arguments[0] if arguments and isinstance(arguments[0], str) else "unknown"
                raise PickleFault(f"arrays of dtype {name!r}; numbers and bool are read")

    def build(self, state: Any) -> None:
        match state:
            case (int(), "<" | ">" | "|" | "=" as order, None, None, None, -1, -1, int()):
                self.dtype = self.dtype.newbyteorder(order)
            case _:
                raise PickleFault(f"dtype {self.dtype} with fields, shape or metadata")


def sizes(values: Any, what: str) -> tuple[int, ...]:
    """`values` if they are a plausible shape.

    Raises:
      PickleFault: no tuple of whole numbers from 0, or more of them or a larger product than any weight has.
    """
    plain = type(values) is tuple and all(type(v) is int and v >= 0 for v in values)
    if not plain or len(values) > _MOST_AXES or math.prod(max(v, 1) for v in values) > _MOST_VALUES:
        raise PickleFault(f"a tensor whose {what} is no tuple of at most {_MOST_AXES} numbers from 0")
    return values


def _array(data: Any, dtype: np.dtype, shape: Any, order: str) -> np.ndarray:
    if isinstance(data, str):  # Python 2 wrote bytes as text.
        data = _latin1(data)
    if not isinstance(data, bytes | bytearray):
        raise PickleFault(f"an array whose values are no bytes but {type(data).__name__}")
    shape = sizes(shape, "shape")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise PickleFault(f"an array of shape {shape} and dtype {dtype} in {len(data)} bytes")
    return np.frombuffer(bytes(data), dtype).reshape(shape, order=order)


def _reconstruct(arguments: tuple) -> Tensor:
    match arguments:
        case (Global(name="numpy ndarray"), (0,), b"b" | "b"):
            return Tensor()
    raise PickleFault("_reconstruct of something else than a NumPy array")


def _from_buffer(arguments: tuple) -> Tensor:
    match arguments:
        case (data, DType(dtype=dtype), shape, "C" | "F" as order):
            return Tensor(_array(data, dtype, shape, order))
    raise PickleFault("_frombuffer with other arguments than (bytes, dtype, shape, order)")


def _scalar(arguments: tuple) -> Tensor:
    match arguments:
        case (DType(dtype=dtype), data):
            return Tensor(_array(data, dtype, (), "C"))
    raise PickleFault("a NumPy scalar with other arguments than (dtype, bytes)")


def _encode(arguments: tuple) -> bytes:
    """How protocol 2 writes bytes."""
    match arguments:
        case (str() as text, "latin1" | "latin-1"):
            return _latin1(text)
    raise PickleFault("_codecs.encode with another codec than latin1")


def _latin1(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise PickleFault("bytes written as text that is not latin-1") from error


def _empty_bytes(arguments: tuple) -> bytes:
    if arguments:
        raise PickleFault("bytes with arguments")
    return b""


def _ordered(arguments: tuple) -> Ordered:
    if arguments:
        raise PickleFault("an OrderedDict with arguments")
    return Ordered()


def _counter(arguments: tuple) -> dict:
    """As schedulers of torch keep their milestones; its dict itself, as a copy would cost memory."""
    match arguments:
        case (dict() as counts,) if all(type(count) is int for count in counts.values()):
            return counts
    raise PickleFault("a Counter with other arguments than a dict of numbers")


# Exact names and nothing else. None: may be mentioned, not called.
CALLS: dict[str, Call | None] = {
    "numpy ndarray": None,
    "numpy dtype": DType,
    "numpy.core.multiarray _reconstruct": _reconstruct,
    "numpy._core.multiarray _reconstruct": _reconstruct,
    "numpy.core.multiarray scalar": _scalar,
    "numpy._core.multiarray scalar": _scalar,
    "numpy.core.numeric _frombuffer": _from_buffer,
    "numpy._core.numeric _frombuffer": _from_buffer,
    "_codecs encode": _encode,
    "__builtin__ bytes": _empty_bytes,
    "collections OrderedDict": _ordered,
    "collections Counter": _counter,
}
