"""A program ends while a stream of batches is alive: its threads do not keep it."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
from maskrcnn_jax.data.pipeline import batches
from maskrcnn_jax.data.synthetic import draw_records

records = draw_records(1, seed=0, size=64, nuclei=(3, 3), diameters=(8, 12))
options = {"augment": (), "canvas": (64, 64), "batch_size": 2, "max_instances": 4, "seed": 0}
stream = batches(records, **options)
for _ in range(5):
    next(stream)
"""


@pytest.mark.parametrize(
    ("end", "code", "said"), [("", 0, ""), ("raise SystemExit(3)", 3, ""), ("raise KeyError", 1, "KeyError")]
)
def test_a_program_ends_with_a_stream_alive(end, code, said):
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", PROGRAM + end]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == code and said in done.stderr
