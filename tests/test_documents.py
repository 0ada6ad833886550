"""JSON and YAML of strangers: read as the standard readers do, or one error that names the file, soon."""

import contextlib
import json
import math
import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn_jax.documents import MOST_DEPTH, SMALL, DocumentError, read_json, read_json_lines, read_yaml

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("documents") / "file.txt"


@given(PLAIN)
def test_json_comes_back(place, value):
    place.write_text(json.dumps(value))
    assert read_json(place) == value


@given(PLAIN)
def test_yaml_comes_back(place, value):
    place.write_text(yaml.safe_dump(value))
    assert read_yaml(place) == value


@given(st.binary(max_size=60))
def test_bytes_are_a_document_or_one_error(place, data):
    place.write_bytes(data)
    for read in (read_json, read_yaml):
        with contextlib.suppress(DocumentError):
            read(place)


YAML_PARTS = (
    *("a", "b: ", "- ", "{", "}", "[", "]", ",", ": ", "? ", "\n", " ", "  ", "&a ", "*a", "<<: ", "'", '"'),
    *("!!bool ", "!!int ", "!!float ", "!!null ", "!!str ", "!!set ", "!!timestamp ", "!!binary ", "!!omap "),
    *(
        "!!python/tuple ",
        "!!merge ",
        "!x ",
        "|\n",
        "1:30",
        "2020-01-01",
        ".inf",
        "0x",
        "-",
        "~",
        "---\n",
        "#",
    ),
)


@given(st.lists(st.sampled_from(YAML_PARTS), max_size=25).map("".join))
def test_parts_of_yaml_are_a_document_or_one_error(place, text):
    place.write_text(text)
    with contextlib.suppress(DocumentError):
        json.dumps(read_yaml(place))


def test_values_of_types_that_json_lacks(place):
    place.write_text("{a: !!python/tuple [1, 2], b: .inf, c: 2020-01-01, d: 2020-13-45, e: yes}")
    expected = {"a": (1, 2), "b": math.inf, "c": "2020-01-01", "d": "2020-13-45", "e": True}
    assert read_yaml(place) == expected


def test_aliases_and_merged_mappings(place):
    place.write_text("base: &b {x: 1, y: 2}\nsame: *b\nmore: {<<: *b, y: 3}")
    both = {"x": 1, "y": 2}
    assert read_yaml(place) == {"base": both, "same": both, "more": {"x": 1, "y": 3}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_of_json(place, encoding):
    place.write_text('{"ä": 1}', encoding=encoding)
    assert read_json(place) == {"ä": 1}


BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} {{{', '.join(f'k{n}: *{below}' for n in range(9))}}}\n"
    for below, name in zip("abcdefghijkl", "bcdefghijklm", strict=True)
)
CHAIN = "a: &n0 [1]\n" + "".join(f"k{n}: &n{n} [*n{n - 1}]\n" for n in range(1, 190))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x {b: *x}", "holds itself"),
        ("&x [*x]", "holds itself"),
        ("&x !!python/tuple [*x]", "holds itself"),
        (BOMB, "counting what aliases stand for"),
        (BOMB.replace("{", "{<<: {").replace("}", "}}"), "counting what aliases stand for"),
        (CHAIN, "nested more than"),
        ("[" * 5000, "nested more than"),
        ("- " * 5000, "nested more than"),
        ("? " * 5000, "nested more than"),
        ("[" + "1," * 50_000 + "]", "more than 20,000 values"),
        ("a: 1\na: 2", "the key 'a' twice"),
        ("? [a]\n: 1", "a key that is no text"),
        ("? " + "a" * 2000 + "\n: 1", "a key of more than"),
        ("!!bool x", "'x' is no bool"),
        ("!!float ''", "'' is no float"),
        ("!!int x", "'x' is no int"),
        ("!!int [1]", "expected a scalar"),
        ("9" * 500, "endless number"),
        ("1" + ":1" * 4000, "endless number"),
        ("!!timestamp x", "could not determine a constructor"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("*x", "undefined alias"),
        ("a: b: c", "not allowed here"),
        ("\x00", "not allowed"),
        ("a\n---\nb", "single document"),
    ],
)
def test_yaml_that_is_refused(place, text, message):
    place.write_text(text)
    with pytest.raises(DocumentError, match=rf"(?s)file\.txt .*{message}"):
        read_yaml(place)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested more than"),
        ("[" * 100_000 + "]" * 100_000, "nested more than"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested more than"),
        ("[" * (MOST_DEPTH + 2) + "]" * (MOST_DEPTH + 2), "nested more than"),
        ('{"a": 1, "a": 2}', "field 'a' twice"),
        ("9" * 5000, "no JSON"),
        ("", "no JSON"),
        ("{", "no JSON"),
    ],
)
def test_json_that_is_refused(place, text, message):
    place.write_text(text)
    with pytest.raises(DocumentError, match=rf"(?s)file\.txt .*{message}"):
        read_json(place)


def test_the_deepest_that_is_read(place):
    place.write_text("[" * MOST_DEPTH + "]" * MOST_DEPTH)
    repr(read_json(place))


@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_what_is_no_file(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for path, what in (
        (tmp_path / "pipe", "a named pipe"),
        (tmp_path, "a folder"),
        (tmp_path / "absent", "No such file"),
        ("/dev/zero", "a device"),
        ("a\0b", "no path"),
        (tmp_path / ("a" * 5000), "too long"),
    ):
        with pytest.raises(DocumentError, match=what):
            read(path)


def test_files_that_are_too_large(place):
    place.write_text(" " * 1_100_000 + "1")
    assert read_json(place) == 1
    with pytest.raises(DocumentError, match="more than 1,048,576 bytes"):
        read_yaml(place)
    with pytest.raises(DocumentError, match="more than 1,000 bytes"):
        read_json(place, most_bytes=1000)


def test_lines_of_json_are_read_one_by_one(place):
    """What comes before a bad line is there before it is found."""
    place.write_bytes(b'{"a": 1}\n[2, null]\n{"b": [[\n3\n')
    lines = read_json_lines(place)
    assert next(lines) == {"a": 1} and next(lines) == [2, None]
    with pytest.raises(DocumentError, match="is no JSON"):
        next(lines)
    with pytest.raises(DocumentError, match="cannot be read"):
        next(read_json_lines(place.with_name("gone")))
    place.write_bytes(b" " * (SMALL + 1))
    with pytest.raises(DocumentError, match=f"more than {SMALL:,} bytes"):
        next(read_json_lines(place))
