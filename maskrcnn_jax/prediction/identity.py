"""What the results in a folder depend on, as a JSON file beside them, and whether that is what is wanted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskrcnn_jax.documents import DocumentError, read_json


def read(path: Path) -> dict[str, Any] | None:
    """What the file says; None if there is none, or a lost disk has cut it."""
    try:
        found = read_json(path)
    except DocumentError:
        return None
    return found if isinstance(found, dict) else None


def differences(found: Mapping[str, Any] | None, wanted: Mapping[str, Any], then: str) -> str:
    """A line for each value of `wanted` that `found` has otherwise, to end a message; empty if none is."""
    found = found or {}
    return "".join(
        f"\n  {name}: {found.get(name)} {then}, {value} now"
        for name, value in wanted.items()
        if found.get(name) != value
    )
