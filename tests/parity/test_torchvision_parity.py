"""torchvision's two Mask R-CNNs with weights drawn by a seed: every stage, end to end, and a training step.

What torchvision computed lies beside this file; `benchmarks/torchvision_goldens.py` made it.
"""

from pathlib import Path

import pytest
from torchvision_case import MODELS
from torchvision_parity import load, measure_prediction, measure_training

FOLDER = Path(__file__).parent / "torchvision"


@pytest.fixture(scope="module")
def goldens():
    return {name: load(FOLDER, name) for name in MODELS}


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("v1", measure_prediction),
        ("v1", measure_training),
        ("v2", measure_prediction),
        ("v2", measure_training),
    ],
)
def test_agrees_with_torchvision(goldens, name, measure):
    rows = measure(goldens[name])
    over = [f"{row.what}: {row.difference:.3g} (allowed {row.allowed:.3g})" for row in rows if not row.ok]
    assert rows and not over, "\n".join(over)


@pytest.mark.parametrize("name", MODELS)
def test_goldens_select(goldens, name):
    """Or they would say nothing about selection: limits cut, scores and classes differ."""
    arrays = goldens[name].arrays
    assert len(arrays["found_scores"]) == goldens[name].config.detection.max_detections
    assert len(set(arrays["found_labels"].tolist())) > 1
    assert arrays["found_scores"].max() - arrays["found_scores"].min() > 0.1
    assert len(arrays["rois_positive"]) > 3 and len(arrays["anchors_positive"]) > 3
