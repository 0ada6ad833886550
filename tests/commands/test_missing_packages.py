"""A package that is not installed is named where something needs it; nothing else asks for it."""

import json
import subprocess
import sys

import pytest

RUN = """
import json, sys
from maskrcnn_jax.commands.cli import main
cases = json.loads(sys.argv[1])
for package, arguments in cases:
    sys.modules[package] = None
    print(main(arguments), file=sys.stderr)
    del sys.modules[package]
import maskrcnn_jax
for package in ("flax", "jax"):
    sys.modules[package] = None
try:
    maskrcnn_jax.MaskRCNN
except ValueError as error:
    print(error, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What is said on stderr where each command lacks a package, and then the public surface."""
    folder = tmp_path_factory.mktemp("empty")
    cases = [
        ("tensorflow", ["train", "--config", "synthetic_tiny", "--workdir", str(folder)]),
        ("pycocotools", ["evaluate", "--config", "synthetic_tiny", "--results", str(folder)]),
        ("pycocotools", ["check", "--format", "coco", str(folder)]),
        ("tifffile", ["predict", str(folder), "--out", str(folder / "out")]),
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(cases)], capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("number", "command", "package"),
    [
        (0, "train", "tensorflow"),
        (1, "evaluate", "pycocotools"),
        (2, "check", "pycocotools"),
        (3, "predict", "tifffile"),
    ],
)
def test_commands_name_what_is_missing(said, number, command, package):
    message = f"{command}: it needs {package}, which is not there; pip install {package}"
    assert said[2 * number : 2 * number + 2] == [f"maskrcnn-jax {message}", "1"]


def test_so_does_the_public_surface(said):
    assert said[8] in (f"it needs {name}, which is not there; pip install {name}" for name in ("jax", "flax"))
