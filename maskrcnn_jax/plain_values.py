"""Dataclasses from the plain values that JSON, YAML and ml_collections hold; every fault names its field."""

import dataclasses
import difflib
import types
import typing
from typing import Any, Literal


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """A hint at the known name that is closest to a misspelt one; empty where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def build(kind: type, values: dict[str, Any], faults: list[str], path: str = "") -> Any:
    """A frozen dataclass, and those in it, from nested plain values; the inverse of `dataclasses.asdict`.

    Args:
      faults: gets one line for each field that is unknown (with its nearest neighbour) or of another type,
        and for each ValueError of a dataclass.
      path: what the fields' names begin with there.

    Returns:
      The dataclass; None where there are faults.
    """
    hints = typing.get_type_hints(kind)
    for name in values.keys() - hints.keys():
        faults.append(f"{path}{name}: unknown field{nearest(name, hints)}")
    known = {name: value for name, value in values.items() if name in hints}
    built = {name: _convert(hints[name], value, f"{path}{name}", faults) for name, value in known.items()}
    if faults:
        return None
    try:
        return kind(**built)
    except ValueError as error:
        faults.append(str(error))
        return None


def _convert(hint: Any, value: Any, path: str, faults: list[str]) -> Any:
    """`value` as the type that its annotation names; lists become tuples, ints become floats."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        if value is None and types.NoneType in arguments:
            return None
        return _convert(next(a for a in arguments if a is not types.NoneType), value, path, faults)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return build(hint, value, faults, f"{path}.")
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            pairs = enumerate(zip(kinds, value, strict=True))
            return tuple(_convert(k, v, f"{path}[{i}]", faults) for i, (k, v) in pairs)
    if origin is Literal and value in arguments:
        return value
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint in (int, bool, str) and type(value) is hint:
        return value
    choices = " or ".join(map(repr, arguments)) if origin is Literal else getattr(hint, "__name__", hint)
    faults.append(f"{path}: expected {choices}, found {value!r}")
    return None
