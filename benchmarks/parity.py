"""Compares the model with what Detectron2 computed, and writes its section of the table.

python benchmarks/parity.py --goldens DIR [--out docs/parity.md]

`parity_goldens.load` says what DIR holds. Nothing about the models is written here: all comes from there.
"""

import argparse
import re
import sys
from pathlib import Path

from parity_detections import measure_detections
from parity_document import here, replace_section, table
from parity_goldens import Row, find_models, load
from parity_stages import measure_stages
from parity_targets import measure_targets
from parity_training import measure_training


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--goldens", type=Path, required=True, help="the folder of what Detectron2 computed")
    parser.add_argument("--out", type=Path, help="a Markdown file for the section")
    arguments = parser.parse_args()
    rows = []
    for name in find_models(arguments.goldens):
        golden = load(arguments.goldens, name)
        for measure in (measure_stages, measure_detections, measure_targets, measure_training):
            rows += measure(golden)
    if not rows:
        parser.error(f"{arguments.goldens} holds no *_config.yaml")
    readme = (arguments.goldens / "README.md").read_text()
    text = _section(rows, _peer(readme))
    if arguments.out is not None:
        replace_section(arguments.out, "Detectron2", text)
    print(text)
    return 0 if all(row.ok for row in rows) else 1


def _peer(readme: str) -> str:
    """How Detectron2's numbers were made, in its README's words."""
    found = re.search(r"^Made on .*?\. ", readme.replace(",\n", ", "), re.MULTILINE)
    return found[0].strip() if found else ""


def _section(rows: list[Row], peer: str) -> str:
    return f"""Small random models that Detectron2 built, and what it computed with them, against ours.
Stages are fed with Detectron2's own input and must agree within ten times what Detectron2's float32
differs from float64. End to end starts from the image; boxes are compared as sets.

    python benchmarks/parity.py --goldens DIR --out docs/parity.md

{here()}
Detectron2: {peer}

{table(rows)}
"""


if __name__ == "__main__":
    sys.exit(main())
