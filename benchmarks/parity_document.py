"""Sections of docs/parity.md: each is written by the script that measures it, and leaves the others alone."""

import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import jax
from parity_goldens import Row


def here() -> str:
    """What our numbers were made with."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "numpy", "pillow"))
    return f"Here: Python {platform.python_version()}, {packages}, on {jax.default_backend().upper()}."


def table(rows: Sequence[Row]) -> str:
    """How many comparisons there are, and a line for each."""
    over = sum(not row.ok for row in rows)
    lines = [
        f"| {r.model} | {r.what} | {r.difference:.2g} | {r.allowed:.2g} | {'' if r.ok else '**over**'} |"
        for r in rows
    ]
    head = f"{len(rows)} comparisons, {over or 'none'} beyond what is allowed.\n\n"
    return head + "| model | what | difference | allowed | |\n|---|---|---|---|---|\n" + "\n".join(lines)


def replace_section(path: Path, heading: str, text: str) -> None:
    """Puts `text` under `## heading`, in place of what is there, or at the end."""
    document = path.read_text()
    section = f"## {heading}\n\n{text.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(heading)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(document):
        document = pattern.sub(lambda _: section + "\n", document, count=1)
    else:
        document = f"{document.rstrip()}\n\n{section}"
    path.write_text(document.rstrip() + "\n")
