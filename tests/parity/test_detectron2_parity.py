"""Detectron2's goldens: every stage, end to end, and a training step, within what issue and README allow.

The goldens lie beside the checkout, or where MASKRCNN_GOLDENS says. What is compared, and how far it may
differ, stands in `benchmarks/parity_*.py`, which also make the table of the documentation.
"""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
from parity_detections import measure_detections
from parity_goldens import find_models, load
from parity_stages import measure_stages
from parity_targets import measure_targets
from parity_training import measure_training

_SHARED = Path(os.environ.get("MASKRCNN_SHARED", Path(__file__).parents[3] / "shared"))
FOLDER = Path(os.environ.get("MASKRCNN_GOLDENS", _SHARED / "goldens"))
MODELS = find_models(FOLDER)
if "MASKRCNN_GOLDENS" in os.environ and not MODELS:
    raise FileNotFoundError(f"MASKRCNN_GOLDENS: {FOLDER} holds no *_config.yaml")


@pytest.fixture(scope="module", params=MODELS)
def golden(request):
    return load(FOLDER, request.param)


def assert_close(rows):
    over = [f"{row.what}: {row.difference:.3g} (allowed {row.allowed:.3g})" for row in rows if not row.ok]
    assert rows and not over, "\n".join(over)


def test_every_stage_fed_with_its_golden_input(golden):
    assert golden.allowed, "the README's table was not found"
    assert_close(measure_stages(golden))


def test_from_the_image_to_proposals_and_detections(golden):
    assert_close(measure_detections(golden))


def test_targets_of_training(golden):
    assert_close(measure_targets(golden))


def test_losses_and_gradients(golden):
    assert_close(measure_training(golden))


@pytest.mark.parametrize("name", MODELS)
def test_both_kinds_of_file_hold_the_same(name):
    pickled, zipped = (load(FOLDER, name, suffix) for suffix in ("pkl", "pth"))
    assert pickled.config == zipped.config
    jax.tree.map(np.testing.assert_array_equal, pickled.params, zipped.params)
