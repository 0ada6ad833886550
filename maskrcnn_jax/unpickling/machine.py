"""The pickle language without its power: plain values, and calls of functions that a table names.

Python's own unpickler imports what a file asks for, and where it is kept from that, it still hashes
whatever is a key: tuples in tuples take the process's stack or 2^n steps. This one knows no import, no
class and no attribute: a global is a name, a call looks the name up in a table, keys are plain, and every
opcode that could do more is refused. `pickletools` of the standard library decodes opcodes and runs nothing.
"""

import abc
import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from maskrcnn_jax.unpickling.faults import COPY_AGAIN, PickleFault

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINSTRING", "SHORT_BINSTRING"),  # Python 2; pickletools decodes them as latin-1, as Detectron2 does.
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KEYS = (str, int, float, bool, type(None))
_MARK = object()
# Calls copy text and bytearrays; a file that has them copied more often is an attack on memory.
_MOST_COPIES = 4

RESAVE = "save it anew with the program that wrote it: pickle.dump(content, file, protocol=4)"

Call = Callable[[Any], Any]


class Global:
    """A name that a pickle mentions, `module name`; not the thing that it names."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __str__(self) -> str:
        return self.name.replace(" ", ".")


class Buildable(abc.ABC):
    """A value that a pickle first creates and then fills, as it does with arrays."""

    @abc.abstractmethod
    def build(self, state: Any) -> None:
        """Takes the state that the pickle holds; raises PickleFault where it is not as expected."""


class Ordered(dict, Buildable):
    """An ordered dict; torch hangs version numbers of modules on it, which nobody here reads."""

    def build(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise PickleFault("an OrderedDict with a state that is no dict")


def run(
    data: bytes,
    calls: Mapping[str, Call | None],
    load_persistent: Call | None = None,
) -> Any:
    """Evaluates a pickle of protocol 2 to 5.

    Args:
      data: the pickle.
      calls: by `module name`, what a call of that global does with its tuple of arguments; None for a
        global that may be mentioned and never called.
      load_persistent: turns a persistent id into a value.

    Returns:
      None, bool, int, float, str, bytes, lists, tuples, dicts with plain keys, and results of `calls`.

    Raises:
      PickleFault: with the byte position.
    """
    machine = _Machine(calls, load_persistent, copies=_MOST_COPIES * len(data))
    position = 0
    try:
        with warnings.catch_warnings(action="ignore"):  # Of odd escapes in texts of protocol 0.
            for opcode, argument, at in pickletools.genops(data):
                position = at or 0
                machine.step(opcode.name, argument)
            return machine.result()
    except PickleFault as fault:
        raise PickleFault(f"at byte {position}: {fault}", fault.remedy) from fault
    except (ValueError, OverflowError, MemoryError) as error:
        # From pickletools: it reads ahead of `position`.
        what = f"after byte {position}: damaged or cut short ({error})"
        raise PickleFault(what, COPY_AGAIN) from error


class _Machine:
    def __init__(self, calls: Mapping[str, Call | None], load_persistent: Call | None, copies: int):
        self._calls = calls
        self._copies_left = copies
        self._load_persistent = load_persistent
        self._stack: list[Any] = []
        # A dict, so that a huge index in the file does not ask for a huge list.
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        value = self._pop()
        if self._stack:
            raise PickleFault("values are left over at the end")
        return value

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self._stack.append(tuple(reversed([self._pop() for _ in range(_TUPLES[name])])))
        elif (method := getattr(type(self), f"_op_{name.lower()}", None)) is not None:
            method(self, argument)
        else:
            raise PickleFault(f"the opcode {name} is refused")

    def _op_proto(self, version: int) -> None:
        if not 2 <= version <= 5:
            raise PickleFault(f"pickle protocol {version}; 2 to 5 are read", RESAVE)

    def _op_frame(self, _) -> None:
        """Frames group bytes for reading; they have no meaning."""

    _op_stop = _op_frame

    def _op_mark(self, _) -> None:
        self._stack.append(_MARK)

    def _op_tuple(self, _) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _op_append(self, _) -> None:
        item = self._pop()
        self._top(list).append(item)

    def _op_appends(self, _) -> None:
        items = self._pop_to_mark()
        self._top(list).extend(items)

    def _op_setitem(self, _) -> None:
        value, key = self._pop(), self._pop()
        self._set(self._top(dict), key, value)

    def _op_setitems(self, _) -> None:
        items = self._pop_to_mark()
        if len(items) % 2:
            raise PickleFault("a key without a value")
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(target, key, value)

    @staticmethod
    def _set(target: dict, key: Any, value: Any) -> None:
        # Hashing a nested tuple can take forever, or the interpreter's stack.
        if type(key) not in _KEYS:
            raise PickleFault(f"a dict key of type {type(key).__name__}")
        target[key] = value

    def _op_memoize(self, _) -> None:
        self._memo[len(self._memo)] = self._top(object)

    def _op_binput(self, index: int) -> None:
        self._memo[index] = self._top(object)

    _op_long_binput = _op_binput

    def _op_binget(self, index: int) -> None:
        if index not in self._memo:
            raise PickleFault(f"memo {index} is read before it is written")
        self._stack.append(self._memo[index])

    _op_long_binget = _op_binget

    def _op_global(self, name: str) -> None:
        if name not in self._calls:
            raise PickleFault(
                f"it names '{Global(name)}', which is no array, tensor or container; nothing was run"
            )
        self._stack.append(Global(name))

    def _op_stack_global(self, _) -> None:
        name, module = self._pop(), self._pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise PickleFault("a global whose name is no text")
        self._op_global(f"{module} {name}")

    def _op_reduce(self, _) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Global) or type(arguments) is not tuple:
            raise PickleFault("a call of something that is no global, or without a tuple of arguments")
        call = self._calls[function.name]
        if call is None:
            raise PickleFault(f"a call of {function}, which may only be mentioned")
        self._spend(arguments)
        self._stack.append(call(arguments))

    def _op_build(self, _) -> None:
        state = self._pop()
        self._spend(state)
        self._top(Buildable).build(state)

    def _spend(self, values: Any) -> None:
        if isinstance(values, tuple):
            self._copies_left -= sum(len(value) for value in values if isinstance(value, str | bytearray))
        if self._copies_left < 0:
            raise PickleFault(f"its values take more than {_MOST_COPIES} times the bytes of the file")

    def _op_binpersid(self, _) -> None:
        if self._load_persistent is None:
            raise PickleFault("a persistent id, which only torch's zip files have")
        self._stack.append(self._load_persistent(self._pop()))

    def _top(self, kind: type) -> Any:
        if not self._stack or self._stack[-1] is _MARK or not isinstance(self._stack[-1], kind):
            found = type(self._stack[-1]).__name__ if self._stack else "nothing"
            raise PickleFault(f"an operation on {found}, which has no such operation")
        return self._stack[-1]

    def _pop(self) -> Any:
        self._top(object)
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        items = []
        while self._stack and self._stack[-1] is not _MARK:
            items.append(self._stack.pop())
        if not self._stack:
            raise PickleFault("the end of a group without its beginning")
        self._stack.pop()
        return items[::-1]
