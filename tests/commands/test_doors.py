"""What a person meets at the doors: a message and an exit code for each mistake, a traceback for our own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# All cases in one process: each starts as a script would, up to its end.
SCRIPT = """
import json, sys, types
from absl import flags
from maskrcnn_jax import config
from maskrcnn_jax.commands import doors

def define(values, argv):
    doors.define_config(values, argv)
    flags.DEFINE_enum("split", "train", ["train", "test"], "", flag_values=values)

def fine(values): pass
def ours(values): config.MaskRCNNConfig(num_classes=0)
def missing_file(values): open("gone.txt")
def a_bug(values): config.MaskRCNNConfig().channels
def their_value_error(values): int("x")
def interrupt(values): raise KeyboardInterrupt("stopped; step 3 is saved")

for name, arguments in json.loads(sys.argv[1]):
    print("CASE", file=sys.stderr)
    command = types.SimpleNamespace(define=define, run=globals()[name])
    try:
        print("EXIT", doors.main(command, ["some/door.py", *arguments]), file=sys.stderr)
    except Exception as error:
        print("TRACEBACK", type(error).__name__, file=sys.stderr)
"""
CONFIG = "--config=tests/tiny_config.py"
CASES = {
    ("fine",): "EXIT 0",
    ("fine", CONFIG): "EXIT 0",
    ("ours",): "door.py: MaskRCNNConfig with impossible values:\n"
    "  num_classes is 0: it must be a whole number from 1 to 10,000\nEXIT 1",
    ("missing_file",): "door.py: [Errno 2] No such file or directory: 'gone.txt'\nEXIT 1",
    ("a_bug",): "TRACEBACK AttributeError",
    ("their_value_error",): "TRACEBACK ValueError",
    (
        "interrupt",
    ): "door.py: stopped; step 3 is saved; the same command goes on from the last checkpoint\nEXIT 130",
    ("fine", "--split=all"): "door.py: flag --split=all: value should be one of <train|test>\n"
    "Pass --help to see the flags.\nEXIT 2",
    ("fine", "--splitt=train"): "door.py: Unknown command line flag 'splitt'. Did you mean: split ?\n"
    "Pass --help to see the flags.\nEXIT 2",
    ("fine", "train"): "door.py: unexpected arguments: train\nPass --help to see the flags.\nEXIT 2",
    ("fine", CONFIG, "--config.stps=3"): "door.py: the config has no field 'stps'\n"
    'Did you mean "steps" instead of "stps"?\nEXIT 2',
    ("fine", "--config=nuclei_small:scratch"): "EXIT 0",
    ("fine", "--config", "nuclei_small", "--config.steps=3"): "EXIT 0",
    ("fine", "--config=nuclei_smal"): "door.py: --config nuclei_smal: no experiment of this name (did you "
    "mean 'nuclei_small'?); there are "
    + ", ".join(sorted(path.stem for path in (ROOT / "configs").glob("*.py")))
    + ", or give the path of a file\nEXIT 2",
    (
        "fine",
        CONFIG,
        "--config.steps=many",
    ): "door.py: flag --config.steps=many: invalid literal for int() with "
    "base 10: 'many'\nPass --help to see the flags.\nEXIT 2",
}


@pytest.fixture(scope="module")
def outcomes():
    """What each case printed, and how it ended."""
    cases = json.dumps([(name, arguments) for name, *arguments in CASES])
    done = subprocess.run([sys.executable, "-c", SCRIPT, cases], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, done.stderr.split("CASE\n")[1:], strict=True))


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_it_ends_as_it_should(outcomes, case):
    assert outcomes[case].strip() == CASES[case]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=a"], "Flag --config must have a value other than None"),
        ([CONFIG], "Exactly one of (workdir, bundle, results) must have a value"),
        (
            [CONFIG, "--workdir=a", "--bundle=b"],
            "Exactly one of (workdir, bundle, results) must have a value",
        ),
        (
            [CONFIG, "--workdir=a", "--max_dets=9,x"],
            "give positive numbers, as 100,2000",
        ),
        ([CONFIG, "--workdir=a", "--min_score=-1"], "min_score"),
        ([CONFIG, "--results=a", "--split=test"], "the test split has no ground truth"),
    ],
)
def test_evaluate_refuses_flags_that_make_no_sense(arguments, message):
    done = subprocess.run(
        [sys.executable, "evaluate.py", *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2 and done.stderr.startswith("evaluate.py: ") and message in done.stderr
