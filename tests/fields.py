"""What tests of configs share: every number of one, set to values that nobody means."""

import copy
import dataclasses
import math
import typing

ODD = (0, -1, math.nan, 1e30, -1e30, 0.0, 10**30)


def changed(values, path, value):
    """A copy of nested plain values with one changed; `path` as in messages: `rpn.anchor_sizes[0][1]`."""
    values = copy.deepcopy(values)
    *parts, last = [
        int(p) if p.isdecimal() else p for p in path.replace("[", ".").replace("]", "").split(".")
    ]
    _set(values, parts, last, value)
    return values


def _set(values, parts, last, value):
    if parts:
        child = values[parts[0]]
        child = list(child) if isinstance(child, tuple) else child
        values[parts[0]] = child
        _set(child, parts[1:], last, value)
    else:
        values[last] = value


def numbers(values, path=""):
    """The paths of all numbers in nested plain values; None counts, since a number may stand there."""
    if isinstance(values, dict):
        found = [numbers(value, f"{path}.{name}" if path else name) for name, value in values.items()]
    elif isinstance(values, tuple | list):
        found = [numbers(value, f"{path}[{i}]") for i, value in enumerate(values)]
    else:
        return [path] if values is None or type(values) in (int, float) else []
    return [path for paths in found for path in paths]


def without_range(kind, path=""):
    """The fields of a dataclass, and of those in it, that hold a number whose range is not declared."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return [fault for name, hint in hints.items() for fault in _bare(hint, f"{path}{name}")]


def _bare(hint, path):
    if dataclasses.is_dataclass(hint):
        return without_range(hint, f"{path}.")
    if hint in (int, float):
        return [path]
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        arguments = () if arguments[0] in (int, float) else arguments[:1]
    return [fault for argument in arguments for fault in _bare(argument, path)]
