"""Compares the model with what Detectron2 computed, stage by stage and end to end, and writes the table.

python benchmarks/parity.py --goldens DIR [--out docs/parity.md]

`parity_goldens.load` says what DIR holds. Nothing about the models is written here: all comes from there.
"""

import argparse
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

import jax
from parity_detections import measure_detections
from parity_goldens import Row, find_models, load
from parity_stages import measure_stages
from parity_targets import measure_targets
from parity_training import measure_training


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--goldens", type=Path, required=True, help="the folder of what Detectron2 computed")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    arguments = parser.parse_args()
    rows = []
    for name in find_models(arguments.goldens):
        golden = load(arguments.goldens, name)
        for measure in (measure_stages, measure_detections, measure_targets, measure_training):
            rows += measure(golden)
    if not rows:
        parser.error(f"{arguments.goldens} holds no *_config.yaml")
    readme = (arguments.goldens / "README.md").read_text()
    text = _document(rows, _peer(readme))
    if arguments.out is not None:
        arguments.out.write_text(text)
    print(text)
    return 0 if all(row.ok for row in rows) else 1


def _peer(readme: str) -> str:
    """How Detectron2's numbers were made, in its README's words."""
    found = re.search(r"^Made on .*?\. ", readme.replace(",\n", ", "), re.MULTILINE)
    return found[0].strip() if found else ""


def _document(rows: list[Row], peer: str) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "numpy", "pillow"))
    over = sum(not row.ok for row in rows)
    head = f"""# Parity with Detectron2

Small random models that Detectron2 built, and what it computed with them, against this package.
Stages are fed with Detectron2's own input and must agree within ten times what Detectron2's float32
differs from float64. End to end starts from the image; boxes are compared as sets.

    python benchmarks/parity.py --goldens DIR --out docs/parity.md

Here: Python {platform.python_version()}, {packages}, on {jax.default_backend().upper()}.
Detectron2: {peer}

{len(rows)} comparisons, {over or "none"} beyond what is allowed.

| model | what | difference | allowed | |
|---|---|---|---|---|
"""
    lines = [
        f"| {r.model} | {r.what} | {r.difference:.2g} | {r.allowed:.2g} | {'' if r.ok else '**over**'} |"
        for r in rows
    ]
    return head + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
