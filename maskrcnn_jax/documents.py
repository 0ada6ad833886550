"""JSON and YAML of strangers, read within bounds: bytes, depth, and values after aliases.

Whatever is wrong becomes one error that names the file. What is returned is plain: dicts, lists, text,
numbers, bool and None, nested at most `MOST_DEPTH` times, so that recursion over it is safe.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.files import require_regular

MOST_DEPTH = 50  # COCO's annotations need 6, Detectron2's configurations 5
SMALL = 1 << 24  # bytes of a file that people write by hand or a program for one model
DATA_SET = 1 << 31  # bytes of COCO's files: those of its train2017 are 0.4 GB
_MOST_YAML = 1 << 20
_MOST_YAML_VALUES = 20_000  # after aliases, which let a kilobyte stand for a billion
_MOST_KEY = 1024  # characters, as YAML allows a simple key
_MOST_DIGITS = 400


class DocumentError(UserError):
    """A JSON or YAML file cannot be used.

    Attributes:
      path, what, remedy: which file, what is wrong with it and what to do.
    """

    def __init__(self, path: str | os.PathLike, what: str, remedy: str = "write or copy it again"):
        super().__init__(f"{path} {what}; {remedy}")
        self.path, self.what, self.remedy = Path(path), what, remedy


def read_json(path: str | os.PathLike, *, most_bytes: int = SMALL) -> Any:
    """What a JSON file holds, in UTF-8, 16 or 32.

    Raises:
      DocumentError: there is no such regular file, it is too large, no JSON, nested too deeply, or names
        a field of one object twice.
    """
    return parse_json(_read(path, most_bytes), path)


def read_json_lines(path: str | os.PathLike) -> Iterator[Any]:
    """What a file of one JSON text a line holds, read line by line.

    Raises:
      DocumentError: there is no such regular file, or a line is too long or no JSON, as in `read_json`.
    """
    try:
        require_regular(path)
        with Path(path).open("rb") as file:
            while line := file.readline(SMALL + 1):
                if len(line) > SMALL:
                    raise _too_large(path, SMALL)
                yield parse_json(line, path)
    except OSError as error:
        raise _unreadable(path, error) from error


def parse_json(text: bytes | str, path: str | os.PathLike) -> Any:
    """What a JSON text holds that stands in the file `path`, as a line of it say.

    Raises:
      DocumentError: it is no JSON, nested too deeply, or names a field of one object twice.
    """
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except RecursionError as error:
        raise _too_deep(path) from error
    except ValueError as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(path, f"is no JSON: {error}") from error
    except MemoryError as error:
        raise DocumentError(path, "does not fit into memory", "split it into smaller files") from error
    _require_flat(path, content)
    return content


def read_yaml(path: str | os.PathLike) -> Any:
    """What a YAML file of one document in UTF-8 holds; dates are text, `!!python/tuple` is a tuple.

    Raises:
      DocumentError: there is no such regular file, it is too large, no YAML, nested too deeply, has more
        values than are read, a mapping with one key twice or one that holds itself, or another tag.
    """
    try:
        content = yaml.load(_read(path, _MOST_YAML).decode("utf-8-sig"), _Loader)
    except RecursionError as error:
        raise _too_deep(path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DocumentError(path, f"is no plain YAML: {error}") from error
    _require_flat(path, content)
    return content


def _read(path: str | os.PathLike, most_bytes: int) -> bytes:
    try:
        require_regular(path)
        with Path(path).open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:  # A NUL in the path.
        raise DocumentError(repr(path), f"is no path: {error}", "check it") from error
    if len(data) > most_bytes:
        raise _too_large(path, most_bytes)
    return data


def _unreadable(path: str | os.PathLike, error: OSError) -> DocumentError:
    return DocumentError(path, f"cannot be read: {error.strerror or error}", "check the path")


def _too_large(path: str | os.PathLike, most_bytes: int) -> DocumentError:
    what = f"has more than {most_bytes:,} bytes, the most that are read of such a file"
    return DocumentError(path, what, "is it the right file?")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise UserError(f"an object has the field {twice[:100]!r} twice")
    return content


def _require_flat(path: str | os.PathLike, content: Any) -> None:
    """Level by level, without recursion: Python's own readers give up only at the stack's end."""
    level = [content]
    for _ in range(MOST_DEPTH + 1):
        level = [item for value in level for item in _items(value) if type(item) in (dict, list, tuple)]
        if not level:
            return
    raise _too_deep(path)


def _items(value: Any) -> Iterable[Any]:
    if type(value) is dict:
        return value.values()
    return value if type(value) in (list, tuple) else ()


def _too_deep(path: str | os.PathLike) -> DocumentError:
    return DocumentError(path, f"is nested more than {MOST_DEPTH} times", "is it the right file?")


class _Loader(yaml.SafeLoader):
    """Safe YAML that counts what it makes, and names the line of what it refuses."""

    def __init__(self, stream: str):
        super().__init__(stream)
        self._depth = self._values = 0
        self._values_of: dict[int, int] = {}  # by id of a node that is complete

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        before, mark, is_alias = self._values, self.peek_event().start_mark, self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MOST_DEPTH} times", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._values_of:
            raise yaml.composer.ComposerError(None, None, "a value that holds itself", mark)
        self._values += self._values_of[id(node)] if is_alias else 1
        if self._values > _MOST_YAML_VALUES:
            what = f"more than {_MOST_YAML_VALUES:,} values, counting what aliases stand for"
            raise yaml.composer.ComposerError(None, None, what, mark)
        self._values_of.setdefault(id(node), self._values - before)
        return node

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.composer.ComposerError(None, None, "a key that is no text", key.start_mark)
            if len(key.value) > _MOST_KEY:
                what = f"a key of more than {_MOST_KEY} characters"
                raise yaml.composer.ComposerError(None, None, what, key.start_mark)
            if (key.tag, key.value) in seen:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} twice", key.start_mark)
            seen.add((key.tag, key.value))
        return node


def _checked(construct: Callable[[_Loader, yaml.Node], Any]) -> Callable[[_Loader, yaml.Node], Any]:
    """PyYAML's constructors raise whatever comes on values that their tag does not suit: KeyError, say."""

    def construct_checked(loader: _Loader, node: yaml.Node) -> Any:
        if len(node.value) > _MOST_DIGITS:
            raise yaml.constructor.ConstructorError(None, None, "an endless number", node.start_mark)
        try:
            return construct(loader, node)
        except (ValueError, LookupError, ArithmeticError, AttributeError, TypeError) as error:
            what = f"{node.value!r} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from error

    return construct_checked


_CORE = "tag:yaml.org,2002:"
_Loader.yaml_constructors = {
    **{f"{_CORE}{tag}": yaml.SafeLoader.yaml_constructors[f"{_CORE}{tag}"] for tag in ("str", "seq", "map")},
    **{
        f"{_CORE}{tag}": _checked(yaml.SafeLoader.yaml_constructors[f"{_CORE}{tag}"])
        for tag in ("null", "bool", "int", "float")
    },
    f"{_CORE}python/tuple": lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
    None: yaml.SafeLoader.construct_undefined,
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_CORE}timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
