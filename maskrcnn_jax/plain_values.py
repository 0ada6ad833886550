"""Dataclasses from the plain values that JSON, YAML and ml_collections hold; every fault names its field.

A field's annotation is all that is said of it: its type and, by `Annotated`, its range (see `ranges`). The
same check meets values from a file, from the command line and from Python.
"""

import dataclasses
import difflib
import functools
import math
import reprlib
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from maskrcnn_jax.errors import UserError

_SCALARS = {bool: "True or False", int: "a whole number", float: "a number", str: "text", dict: "a mapping"}
# Values in messages: a list of any length, nested as it may be, stays readable.
_SHORT = reprlib.Repr()
_SHORT.maxtuple = _SHORT.maxlist = _SHORT.maxdict = 12
_SHORT.maxstring = _SHORT.maxother = 200


class FieldError(UserError):
    """Values that a dataclass cannot have; `faults` has one line for each, which begins with its field."""

    def __init__(self, kind: str, faults: list[str]):
        super().__init__(f"{kind} with impossible values:\n  " + "\n  ".join(faults))
        self.faults = faults


class Checked:
    """A frozen dataclass whose fields are what their annotations say, however it is made.

    Lists become tuples and whole numbers floats, where that is what the annotation says.
    """

    def __post_init__(self) -> None:
        faults: list[str] = []
        for name, hint in _hints(type(self)).items():
            object.__setattr__(self, name, _convert(hint, getattr(self, name), name, faults))
        faults = faults or list(self.conflicts())
        if faults:
            raise FieldError(type(self).__name__, faults)

    def conflicts(self) -> Iterable[str]:
        """What no single field's range can say: a line for each set of fields that do not go together."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON or ml_collections."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
          FieldError: lists every field that is unknown (with its nearest neighbour), of another type or
            out of its range.
        """
        faults: list[str] = []
        built = _build(cls, values, "", faults)
        if faults:
            raise FieldError(cls.__name__, faults)
        return built


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is closest to a misspelt one; empty where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def describe(hint: Any) -> str:
    """What a value of this annotation may be, for people: `a whole number from 1 to 8`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return " ".join([describe(arguments[0]), *map(str, arguments[1:])])
    if origin in (types.UnionType, typing.Union):
        return " or ".join("None" if a is types.NoneType else describe(a) for a in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is tuple:
        kinds = list(dict.fromkeys(describe(a) for a in arguments if a is not Ellipsis))
        length = "a list" if Ellipsis in arguments else f"a list of {len(arguments)} values"
        return f"{length}, each {' or '.join(kinds)}"
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return "a mapping with the fields " + ", ".join(_hints(hint))
    return _SCALARS.get(origin or hint, str(hint))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _build(kind: type, values: dict[str, Any], path: str, faults: list[str]) -> Any:
    """A dataclass, and those in it, from nested plain values; None where that adds to `faults`."""
    hints, before = _hints(kind), len(faults)
    for name in values.keys() - hints.keys():
        faults.append(f"{path}{name}: unknown field{nearest(str(name), hints)}")
    known = {name: value for name, value in values.items() if name in hints}
    built = {name: _convert(hints[name], value, f"{path}{name}", faults) for name, value in known.items()}
    if len(faults) > before:
        return None
    try:
        return kind(**built)
    except FieldError as error:
        faults.extend(f"{path}{fault}" for fault in error.faults)
        return None


def _convert(hint: Any, value: Any, path: str, faults: list[str], rules: tuple[Any, ...] = ()) -> Any:
    """`value` as its annotation has it; where it cannot be, None, and a line more in `faults`.

    Args:
      rules: what is annotated to `hint`, such as a range; a value must be in each.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _convert(arguments[0], value, path, faults, arguments[1:])
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _convert(next(a for a in arguments if a is not types.NoneType), value, path, faults)
    before = len(faults)
    converted = _of_kind(hint, value, path, faults)
    if len(faults) == before and (converted is None or any(converted not in rule for rule in rules)):
        wanted = " ".join([describe(hint), *map(str, rules)])
        faults.append(f"{path} is {_SHORT.repr(value)}: it must be {wanted}")
    return converted if len(faults) == before else None


def _of_kind(hint: Any, value: Any, path: str, faults: list[str]) -> Any:
    """`value` as a type without ranges; None where it is of another one."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{path}.", faults) if isinstance(value, dict) else _instance(hint, value)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            return None
        pairs = enumerate(zip(kinds, value, strict=True))
        return tuple(_convert(kind, v, f"{path}[{i}]", faults) for i, (kind, v) in pairs)
    if origin is dict and isinstance(value, dict):
        return {k: _convert(arguments[1], v, f"{path}.{k}", faults) for k, v in value.items()}
    if hint is Any:
        return value
    if origin is Literal:
        return next((a for a in arguments if type(a) is type(value) and a == value), None)
    if hint is float and type(value) is int:
        return float(value) if abs(value) < 2**1000 else math.inf
    return _instance(origin or hint, value)


def _instance(kind: type, value: Any) -> Any:
    """`value` where it is of this very type; True is no whole number."""
    return value if type(value) is kind or (kind is dict and isinstance(value, dict)) else None
